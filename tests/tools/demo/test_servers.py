"""The demo keeps one folder for itself, sets data of other migrations aside, and stops both servers."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from flask_opsjobs.testing.postgres import Postgres
from flask_opsjobs.testing.valkey import Valkey
from tools.demo import folder as data_folder
from tools.demo.servers import running_servers


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where a demo keeps its data: not below pytest's own folder, which each run closes to others."""
    with tempfile.TemporaryDirectory(prefix="opd-") as folder:
        yield Path(folder)


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
    assert not data_folder.is_older(folder, at_hand)  # there is no database yet
    (folder / "postgres").mkdir()
    if made is not None:
        data_folder.note_steps(folder, made)
    assert data_folder.is_older(folder, at_hand) == is_older


@pytest.mark.processes
def test_the_first_server_that_dies_is_named(folder: Path) -> None:
    with running_servers(folder) as servers:
        over = threading.Event()
        servers.valkey.stop()
        assert servers.wait_for_death(over) == "Valkey"
        over.set()
        assert servers.wait_for_death(over) is None
        servers.postgres.kill()


@pytest.mark.processes
def test_both_are_stopped_when_the_second_does_not_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Valkey) -> None:
        raise click.ClickException("no")

    monkeypatch.setattr("flask_opsjobs.testing.valkey.Valkey.start", refuse)
    with pytest.raises(click.ClickException, match="no"), running_servers(folder):
        raise AssertionError("never gets here")
    assert not Postgres(folder).is_alive()


def test_a_folder_serves_one_demo_at_a_time(folder: Path) -> None:
    with (
        data_folder.claimed(folder),
        pytest.raises(click.ClickException, match=f"another demo, process {os.getpid()}, uses"),
        data_folder.claimed(folder),
    ):
        raise AssertionError("never gets here")
    with data_folder.claimed(folder) as claimed:
        assert claimed == folder


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(click.ClickException, match=r"cannot write to .*file/demo: Not a directory"),
        data_folder.claimed(tmp_path / "file/demo"),
    ):
        raise AssertionError("never gets here")

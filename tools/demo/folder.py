"""Manages the folder of a demo's data: locks it for one demo, and sets data of other migrations aside."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click

_DATA, _OLDER = "postgres", "postgres.older"
# Which migrations made the database: {file name: hash of its text}. It lies in the database's own folder, and
# goes wherever that goes.
_STEPS = f"{_DATA}/migrations.json"
# An empty file: the database has its history.
_HISTORY = f"{_DATA}/history"


@contextmanager
def claimed(folder: Path) -> Iterator[Path]:
    """The folder, created if missing and locked until the block ends. Raises `ClickException`."""
    path = folder.absolute() / "lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("a+")
    except OSError as error:
        raise click.ClickException(
            f"cannot write to {path.parent}: {error.strerror}; give another --data-dir"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise click.ClickException(
                f"another demo, process {holder}, uses {path.parent}: "
                "stop it, or give another --data-dir"
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield path.parent


def hash_steps(folders: Iterable[Path]) -> dict[str, str]:
    """The hash of each migration in these folders, by file name."""
    return {
        step.name: hashlib.sha256(step.read_bytes()).hexdigest()
        for folder in folders
        for step in sorted(folder.glob("*.py"))
    }


def is_older(folder: Path, steps: Mapping[str, str]) -> bool:
    """Whether a migration that made the database in `folder` is missing from `steps`, or differs there.

    Such a database cannot be upgraded. A database that only lacks newer steps can.
    """
    if not (folder / _DATA).exists():
        return False
    made = noted_steps(folder)
    return not made or not made.items() <= steps.items()


def set_aside(folder: Path) -> str:
    """Move the database in `folder` aside, replacing the one moved before. Returns a sentence about it."""
    older = folder / _OLDER
    shutil.rmtree(older, ignore_errors=True)
    (folder / _DATA).rename(older)
    return (
        "other migrations made the database of this demo: it is kept in "
        f"{shlex.quote(str(older))}, and a new one is made"
    )


def noted_steps(folder: Path) -> dict[str, str]:
    """Which migrations made the database in `folder`; nothing when that is not known."""
    try:
        noted: dict[str, str] = json.loads((folder / _STEPS).read_text())
    except (OSError, ValueError):
        return {}
    return noted


def note_steps(folder: Path, steps: Mapping[str, str]) -> None:
    """Store which migrations made the database in `folder`."""
    (folder / _STEPS).write_text(json.dumps(steps, indent=1, sort_keys=True))


def has_history(folder: Path) -> bool:
    """Whether the database in `folder` has its history."""
    return (folder / _HISTORY).exists()


def note_history(folder: Path) -> None:
    """Store that it has."""
    (folder / _HISTORY).touch()

"""The folder in which a demo keeps its data: writable, and used by one demo at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click


@contextmanager
def claimed(folder: Path) -> Iterator[Path]:
    """The folder, made when it is not there and ours until the block ends. Raises `ClickException`."""
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

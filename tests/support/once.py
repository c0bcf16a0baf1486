"""Makes what is costly, such as the documentation, once for all processes of a run of the tests."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder `name`, which `make` has filled here or in another process; nobody may change it."""
    base = factory.getbasetemp()
    # A process of xdist has its own folder in that of the run.
    place = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = place / name
    with (place / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            begun = factory.mktemp(name)
            make(begun)
            begun.rename(folder)
    return folder


def take_first_turn() -> int:
    """A lock on this file, open to be closed: the first process of a run then holds it already."""
    lock = os.open(__file__, os.O_RDONLY)
    if os.environ.get("PYTEST_XDIST_WORKER") == "gw0":
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return lock


def wait_for_first_turn(lock: int) -> None:
    """Return when the first process has closed its lock; in that one, and where it is alone, at once."""
    if os.environ.get("PYTEST_XDIST_WORKER", "gw0") != "gw0":
        fcntl.flock(lock, fcntl.LOCK_SH)

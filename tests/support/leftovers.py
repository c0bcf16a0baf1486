"""The host of tests/support/host.py with tasks that leave something behind, and tasks that look for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

from .host import create_app, opsjobs

__all__ = ["create_app", "leave", "look"]

# What a job leaves in a global.
kept: list[Any] = []


def _start_thread(name: str = "uploader") -> None:
    threading.Thread(target=threading.Event().wait, name=name, daemon=True).start()


def _start_process() -> None:
    kept.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))


def _open_descriptors() -> None:
    """Open as many as there may be."""
    try:
        while True:
            kept.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass


def _open_one() -> str | None:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return str(error)
    return None


def _umask() -> int:
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


LEAVE: dict[str, Callable[[], Any]] = {
    "nothing": lambda: None,
    "thread": _start_thread,
    "tracker": lambda: _start_thread("sentry-sdk.BackgroundWorker"),
    "signal_handler": lambda: signal.signal(signal.SIGUSR1, lambda *_: None),
    "signal_mask": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2}),
    "timer": lambda: signal.setitimer(signal.ITIMER_REAL, 60),
    "process": _start_process,
    "descriptors": _open_descriptors,
    "folder": lambda: os.chdir("/"),
    "umask": lambda: os.umask(0o007),
}

LOOK: dict[str, Callable[[], Any]] = {
    "nothing": lambda: None,
    "thread": lambda: [each.name for each in threading.enumerate()],
    "tracker": lambda: [each.name for each in threading.enumerate()],
    "signal_handler": lambda: str(signal.getsignal(signal.SIGUSR1)),
    "signal_mask": lambda: len(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    "timer": lambda: signal.getitimer(signal.ITIMER_REAL),
    "process": lambda: len(kept),
    "descriptors": _open_one,
    "folder": os.getcwd,
    "umask": _umask,
}


@opsjobs.task(record_output=True, max_attempts=1)
def leave(what: str) -> int:
    """Leaves it behind, and returns in which process."""
    LEAVE[what]()
    return os.getpid()


@opsjobs.task(record_output=True, max_attempts=1)
def look(what: str) -> Any:
    """Returns in which process it looks for that, and what it sees."""
    return [os.getpid(), LOOK[what]()]

"""Ways in which a function ends its process, or makes it unfit for the next job."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

# What a function of a host keeps in a global.
_kept: list[object] = []


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


def _use_up_memory() -> None:
    """Allocate until nothing is left, and keep it."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + 2**26
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    size = 2**20
    while size > 64:
        try:
            _kept.append(bytearray(size))
        except MemoryError:
            size //= 2
    raise MemoryError


def _abort_without_memory() -> None:
    """Do what a library in C does when it gets no memory."""
    try:
        _use_up_memory()
    except MemoryError:
        os.abort()


def _use_up_files() -> None:
    while True:
        _kept.append(os.open(os.devnull, os.O_RDONLY))


def _fork() -> None:
    """Come back twice: in this process, and in one that it forks."""
    os.fork()


WAYS: dict[str, Callable[[], object]] = {
    "exit": lambda: os._exit(3),
    "kill": _kill,
    "real-time signal": lambda: os.kill(os.getpid(), signal.SIGRTMIN + 1),
    "segfault": lambda: ctypes.string_at(0),
    "abort": _abort_without_memory,
    "memory": _use_up_memory,
    "files": _use_up_files,
    "fork": _fork,
}

"""Makes a fork safe: one lock around every fork, and what a child does first."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sqlalchemy import Engine, Pool

from ...core.db import Connection, connect_apart
from ...host import Host

if TYPE_CHECKING:
    from flask import Flask

# The parent holds this lock while it forks. Its other threads hold it while they log or connect, because
# that takes locks inside C libraries and `io`. A child has only the thread that forked: if another thread
# held such a lock at the fork, nobody would ever release it in the child.
fork_lock = threading.Lock()
# The parent holds it at the fork. In the child it is free again, for what connects there.
os.register_at_fork(after_in_child=fork_lock._at_fork_reinit)  # type: ignore[attr-defined]

_PR_SET_PDEATHSIG = 1
_MADV_COLLAPSE = 25
_LARGE_PAGE_BYTES = 2**21
# Found here once, because each child would need 0.3 ms for it.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None
_prctl = None if _libc is None else _libc.prctl
# Postgres gets at least so long for an answer, and no longer when the worker stops.
PATIENCE_SECONDS = 2.0


# The main thread waits no longer for the lock.
_FORK_SECONDS = 0.01


@contextlib.contextmanager
def fork_lock_if_free() -> Iterator[bool]:
    """Hold the fork lock if it is free. Whoever holds it may wait for a server: the main thread does not."""
    is_free = fork_lock.acquire(timeout=_FORK_SECONDS)
    try:
        yield is_free
    finally:
        if is_free:
            fork_lock.release()


def connect_while_forking(host: Host) -> Connection:
    """Open a connection in a thread of a process that forks.

    The caller holds `fork_lock`, because the resolver and the driver take locks that must be free at a fork.
    It holds it until it has noted the connection, so that a child that is forked next lets the socket go.

    It fails when an answer does not come: the thread then asks on a new one, long before its worker counts as
    missing.
    """
    return connect_apart(host.engine, max(PATIENCE_SECONDS, host.settings.missing_seconds / 4))


def set_group(pid: int) -> None:
    """Give a child a process group of its own, so that killing the group never hits the parent."""
    # Parent and child both call this, because either may run first.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.setpgid(pid, pid)


def die_with(parent_pid: int) -> None:
    """Ask Linux to kill this process when its parent dies; exit at once when the parent is dead already."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # Compares with the pid from before the fork, because under a subreaper an orphan's parent is not 1.
        if os.getppid() != parent_pid:
            os._exit(1)


def use_large_pages() -> None:
    """Move the memory of this process into large pages, as far as Linux can: a fork copies an entry for each.

    A child that writes into a large page gets a copy of 4 kB of it, as it does of a small one.
    """
    if _libc is None:
        return
    with open("/proc/self/maps") as maps:
        ranges = [line.split() for line in maps]
    for addresses, access, _, _, inode, *name in ranges:
        if access != "rw-p" or inode != "0" or name not in ([], ["[heap]"]):
            continue
        start, end = (int(address, 16) for address in addresses.split("-"))
        start = -(-start // _LARGE_PAGE_BYTES) * _LARGE_PAGE_BYTES
        if (size := (end - start) // _LARGE_PAGE_BYTES * _LARGE_PAGE_BYTES) > 0:
            # An older Linux refuses, and one that is short of memory: then the pages stay as they are.
            _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), _MADV_COLLAPSE)


def close_idle_connections(app: Flask) -> None:
    """Close the pooled database connections of a worker before it forks: its parent needs none."""
    for engine in _engines(app):
        engine.dispose()


class ChildPools:
    """Holds an unused connection pool for each engine of the app. A child takes them right after the fork.

    A thread of the host may hold a lock of the parent's pools at that moment, but none of these: it does not
    know them. They are made before the fork, since to make them would cost each child a millisecond.
    """

    def __init__(self, app: Flask) -> None:
        self._pools = [(engine, engine.pool.recreate()) for engine in _engines(app)]
        # Those of the parent. To free them would cost each child copies of the memory that it shares.
        self._of_parent: list[Pool] = []

    def take(self) -> None:
        """Let the engines use these pools. The connections of the parent stay open."""
        for engine, pool in self._pools:
            self._of_parent.append(engine.pool)
            engine.pool = pool


def _engines(app: Flask) -> list[Engine]:
    engines: list[Engine] = []
    # A teardown function of the host may raise here; the job must run all the same.
    with contextlib.suppress(Exception), app.app_context():
        engines += app.extensions["sqlalchemy"].engines.values()
    return engines

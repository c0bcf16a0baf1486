"""Makes a fork safe: one lock around every fork, and what a child does first."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

from sqlalchemy import Engine

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
# Found here once, because each child would need 0.3 ms for it.
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
# Postgres gets at least so long for an answer, and no longer when the worker stops.
PATIENCE_SECONDS = 2.0


def connect_while_forking(host: Host) -> Connection:
    """Open a connection in a thread of a process that forks.

    It fails when an answer does not come: the thread then asks on a new one, long before its worker counts as
    missing.
    """
    # The resolver and the driver take locks that must be free at a fork.
    with fork_lock:
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

    def take(self) -> None:
        """Let the engines use these pools. The connections of the parent stay open."""
        for engine, pool in self._pools:
            engine.pool = pool


def _engines(app: Flask) -> list[Engine]:
    engines: list[Engine] = []
    # A teardown function of the host may raise here; the job must run all the same.
    with contextlib.suppress(Exception), app.app_context():
        engines += app.extensions["sqlalchemy"].engines.values()
    return engines

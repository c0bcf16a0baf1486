"""Tells whether the worker or the loops of this machine or container are alive, with one statement."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.rows import class_row

from ..core import sql
from ..core.db import Connection
from ..core.words import span
from ..workers.process_identity import ProcessIdentity, identify


@dataclass(frozen=True)
class ProcessHere:
    """A worker or a process of loops on this machine. The newest pass of its loops is its heartbeat."""

    kind: str
    name: str
    pid: int
    boot_id: str | None
    pid_namespace: str | None
    pid_started_at: int | None
    age_seconds: float
    has_ended: bool
    is_fresh: bool

    @property
    def is_gone(self) -> bool:
        """Whether its process is seen to have ended, whatever Postgres says."""
        if self.kind == "loops":
            # Its start is not recorded, so only the pid is looked for.
            can_see = identify(os.getpid()).started_at is not None
            return can_see and identify(self.pid).started_at is None
        own = ProcessIdentity(self.pid, self.boot_id, self.pid_namespace, self.pid_started_at)
        return own.is_gone() is True

    @property
    def is_alive(self) -> bool:
        """Whether it runs, and sent a heartbeat lately."""
        return self.is_fresh and not self.has_ended and not self.is_gone

    @property
    def who(self) -> str:
        """What it is called."""
        is_loops = self.kind == "loops"
        return f"the process {self.name} of the loops" if is_loops else f"worker {self.name}"

    @property
    def sentence(self) -> str:
        """How it is, and why it counts as dead when it does."""
        who = self.who
        last = f"its last heartbeat was {span(max(0.0, self.age_seconds))} ago"
        if self.has_ended:
            return f"{who} has stopped: {last}"
        if self.is_gone:
            return f"{who} is gone: no process of this machine has its pid, and {last}"
        return f"{who} is {'alive' if self.is_fresh else 'silent'}: {last}"


def list_processes_here(
    connection: Connection, kind: str | None, name: str | None, late_seconds: float
) -> Sequence[ProcessHere]:
    """Return workers (kind `worker`) or processes of loops (`loops`) of this machine, or both.

    The newest heartbeat is first. `name` is that of a worker.
    """
    here = identify(os.getpid())
    values = {
        "now": "now",
        "host": socket.gethostname(),
        "boot_id": here.boot_id,
        "pid_namespace": here.pid_namespace,
        "name": name,
        "late_seconds": late_seconds,
    }
    with connection.cursor(row_factory=class_row(ProcessHere)) as cursor:
        found = cursor.execute(sql.load("find_processes_here"), values).fetchall()
    return [process for process in found if kind in (None, process.kind)]

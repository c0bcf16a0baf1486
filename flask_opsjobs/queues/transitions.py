"""Writes what an operator decides about queues: pause, drain, resume, prefetch.

Every function is part of the caller's transaction. `lock` first, then `look`: the writes trust what that saw.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from ..core import sql
from ..core.db import Connection
from .lifecycle import state_of


@dataclass(frozen=True)
class QueueForDecision:
    """A queue as a decision about it is made."""

    name: str
    is_paused: bool
    is_draining: bool
    prefetch: int | None
    paused_at: datetime | None
    paused_by: str | None

    @property
    def state(self) -> str:
        """`open`, `draining` or `paused`."""
        return state_of(self.is_paused, self.is_draining)


def lock(connection: Connection, names: Iterable[str], now: datetime) -> None:
    """Lock these queues, in the order of their names; one without a row is given one, as if nobody had decided."""
    asked = {"names": sorted(names), "now": now}
    connection.execute(sql.load("create_queues"), asked)
    connection.execute(sql.load("lock_queues"), asked)


def look(
    connection: Connection, names: Iterable[str], declared: Collection[str]
) -> dict[str, QueueForDecision]:
    """How these queues stand, by name; those that are `declared` or known to the database. Locks nothing."""
    with connection.cursor(row_factory=class_row(QueueForDecision)) as cursor:
        asked = {"names": list(names), "declared": list(declared)}
        cursor.execute(sql.load("look_at_queues"), asked)
        return {queue.name: queue for queue in cursor}


def pause(
    connection: Connection, names: Collection[str], actor: str, reason: str, now: datetime
) -> None:
    """Dispatch nothing from these queues; recalling what was dispatched is an effect, after the commit."""
    _hold(connection, names, actor, reason, now, is_draining=False)


def drain(
    connection: Connection, names: Collection[str], actor: str, reason: str, now: datetime
) -> None:
    """Dispatch nothing more from these queues; what was dispatched may run."""
    _hold(connection, names, actor, reason, now, is_draining=True)


def resume(connection: Connection, names: Collection[str]) -> None:
    """Dispatch from these queues again."""
    connection.execute(sql.load("resume_queues"), {"names": list(names)})


def set_prefetch(connection: Connection, names: Collection[str], prefetch: int | None) -> None:
    """Let so many jobs of each lie in Redis; None leaves it to the number and speed of live workers."""
    connection.execute(sql.load("set_prefetch"), {"names": list(names), "prefetch": prefetch})


def _hold(
    connection: Connection, names: Collection[str], actor: str, reason: str, now: datetime, **kind: bool
) -> None:  # fmt: skip
    asked = {"names": list(names), "actor": actor, "reason": reason, "now": now, **kind}
    connection.execute(sql.load("hold_queues"), asked)

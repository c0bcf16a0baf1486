"""Writes the decisions of an operator about queues: pause, drain, resume, prefetch.

Every function runs in the caller's transaction. Call `lock`, then `read`: the writes rely on the rows
that `read` returned.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from .. import signals
from ..core import sql
from ..core.db import Connection
from ..host import Host
from .lifecycle import state_of

_MOST_QUEUES = 1_000


@dataclass(frozen=True)
class QueueForDecision:
    """The columns of a queue that a decision needs."""

    name: str
    is_paused: bool
    is_draining: bool
    prefetch: int | None
    paused_at: datetime | None
    paused_by: str | None
    paused_reason: str | None

    @property
    def target(self) -> str:
        """The queue as the target of an action."""
        return f"queue/{self.name}"

    @property
    def label(self) -> str:
        """The queue for people: its name."""
        return self.name

    @property
    def state(self) -> str:
        """`open`, `draining` or `paused`."""
        return state_of(self.is_paused, self.is_draining)


def lock(connection: Connection, names: Iterable[str], now: datetime) -> None:
    """Lock these queues in the order of their names.

    A queue without a row gets one with the default values.
    """
    parameters = {"names": sorted(names), "now": now}
    connection.execute(sql.load("create_queues"), parameters)
    connection.execute(sql.load("lock_queues"), parameters)


def read(
    connection: Connection, names: Iterable[str], declared: Collection[str]
) -> dict[str, QueueForDecision]:
    """Those of these queues that are `declared` or known to the database, by name. Locks nothing."""
    with connection.cursor(row_factory=class_row(QueueForDecision)) as cursor:
        parameters = {"names": list(names), "declared": list(declared)}
        cursor.execute(sql.load("read_queues"), parameters)
        return {queue.name: queue for queue in cursor}


def pause(
    connection: Connection, names: Collection[str], actor: str, reason: str, now: datetime
) -> None:
    """Dispatch nothing from these queues. After the commit an effect recalls what was dispatched already."""
    _hold(connection, names, actor, reason, now, is_draining=False)
    _tell(names, "pause")


def drain(
    connection: Connection, names: Collection[str], actor: str, reason: str, now: datetime
) -> None:
    """Dispatch nothing more from these queues. Jobs that were dispatched already may still run."""
    _hold(connection, names, actor, reason, now, is_draining=True)
    _tell(names, "drain")


def resume(connection: Connection, names: Collection[str]) -> None:
    """Dispatch from these queues again."""
    connection.execute(sql.load("resume_queues"), {"names": list(names)})
    _tell(names, "resume")


def set_prefetch(connection: Connection, names: Collection[str], prefetch: int | None) -> None:
    """Set how many jobs of each queue may be in Redis.

    None computes it from the number and speed of live workers.
    """
    connection.execute(sql.load("set_prefetch"), {"names": list(names), "prefetch": prefetch})
    _tell(names, "set_prefetch")


def _tell(names: Iterable[str], change: str) -> None:
    for name in names:
        signals.send(signals.queue_changed, queue=name, change=change)


def _hold(
    connection: Connection,
    names: Collection[str],
    actor: str,
    reason: str,
    now: datetime,
    **kind: bool,
) -> None:
    parameters = {"names": list(names), "actor": actor, "reason": reason, "now": now, **kind}
    connection.execute(sql.load("hold_queues"), parameters)


def list_known_queues(host: Host, connection: Connection) -> list[str]:
    """The names of the queues of this app's tasks and of all stored jobs, sorted. Locks nothing."""
    rows = connection.execute(sql.load("list_queue_names"), {"limit": _MOST_QUEUES})
    declared = {task.declared.queue for task in host.tasks.values()}
    return sorted({"default", *declared, *(name for (name,) in rows)})

"""Defines the shape of every loop: a name, an interval, and a function that makes one pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..core import sql
from ..core.db import Connection
from ..host import Host
from ..settings import Settings

_MOST_QUEUES = 1_000
# What a pass says that changed nothing.
IDLE = "nothing to do"


@dataclass
class Pass:
    """What one pass is given, and what it may leave.

    `connection` is in autocommit, inside the pass's transaction when the loop is alone. `now` is
    Postgres' clock, read once. `elapsed_seconds` is the time since any copy of the loop made its
    last pass. `memory` is kept from pass to pass of this process.
    """

    connection: Connection
    host: Host
    now: datetime
    elapsed_seconds: float = 0.0
    memory: dict[str, Any] = field(default_factory=dict)
    effects: list[Callable[[], None]] = field(default_factory=list)
    has_more: bool = False
    wait_seconds: float | None = None

    def after_commit(self, effect: Callable[[], None]) -> None:
        """Call `effect` once the pass's transaction is committed. What it raises is logged."""
        self.effects.append(effect)

    def queue_names(self) -> list[str]:
        """The queues that this app's tasks or any stored job name, in order."""
        rows = self.connection.execute(sql.load("list_queue_names"), {"limit": _MOST_QUEUES})
        declared = {task.declared.queue for task in self.host.tasks.values()}
        return sorted({"default", *declared, *(name for (name,) in rows)})

    def again(self) -> None:
        """Make the next pass at once: there is more to do than one pass may."""
        self.has_more = True

    def sooner(self, seconds: float) -> None:
        """Make the next pass within so many seconds of this one's beginning, if the interval is longer than that."""
        self.wait_seconds = seconds


@dataclass(frozen=True)
class Loop:
    """One background loop. `run` says in a few words what its pass did, `IDLE` when nothing.

    `is_alone`: the pass is one transaction behind an advisory lock, so of any number of copies one makes it. Loops that
    talk to Redis are not: their writes are fenced instead, because no lock of Postgres is ever held over a call to
    Redis, and because a lock that outlives a transaction does not pass PgBouncer.
    """

    name: str
    every_seconds: Callable[[Settings], float]
    run: Callable[[Pass], str]
    is_alone: bool


def every(seconds: float) -> Callable[[Settings], float]:
    """An interval that no setting changes."""
    return lambda settings: seconds

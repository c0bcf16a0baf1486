"""Defines a loop: a name, an interval, and a function that makes one pass."""

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
# The report of a pass that changed nothing.
IDLE = "nothing to do"


@dataclass
class Pass:
    """The inputs of one pass, and the requests that it leaves for its runner.

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
        """Return the names of the queues of this app's tasks and of all stored jobs, sorted."""
        rows = self.connection.execute(sql.load("list_queue_names"), {"limit": _MOST_QUEUES})
        declared = {task.declared.queue for task in self.host.tasks.values()}
        return sorted({"default", *declared, *(name for (name,) in rows)})

    def again(self) -> None:
        """Ask for the next pass at once, because one pass could not do everything."""
        self.has_more = True

    def sooner(self, seconds: float) -> None:
        """Ask for the next pass `seconds` after this one began, when that is sooner than the interval."""
        self.wait_seconds = seconds


@dataclass(frozen=True)
class Loop:
    """One background loop. `run` returns a short report of its pass, `IDLE` when it did nothing.

    `is_alone`: the pass is one transaction behind an advisory lock, so only one of all copies makes it at a
    time. Loops that talk to Redis are not alone, because no lock of Postgres may be held during a call to
    Redis, and a lock that outlives a transaction does not work through PgBouncer. Their writes are fenced
    instead.
    """

    name: str
    every_seconds: Callable[[Settings], float]
    run: Callable[[Pass], str]
    is_alone: bool


def every(seconds: float) -> Callable[[Settings], float]:
    """Return an interval that does not depend on settings."""
    return lambda settings: seconds

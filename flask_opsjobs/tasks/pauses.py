"""Writes the decisions of an operator about tasks: pause and resume.

Every function runs in the caller's transaction. Call `lock`, then `read`: the writes rely on what `read`
returned.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from ..core import sql
from ..core.db import Connection


@dataclass(frozen=True)
class TaskForDecision:
    """A task as a decision needs it. The times and words are None when it is not paused.

    Only to enqueue a job of it are read: `queue`, in which it will be; `fault`, why that cannot be done, as
    the skip's code and a sentence; and `waits`, why the job would wait.
    """

    name: str
    paused_at: datetime | None
    paused_by: str | None
    paused_reason: str | None
    queue: str | None = None
    fault: tuple[str, str] | None = None
    waits: str | None = None

    @property
    def target(self) -> str:
        """The task as the target of an action."""
        return f"task/{self.name}"

    @property
    def label(self) -> str:
        """The task for people: its name."""
        return self.name

    @property
    def state(self) -> str:
        """`open` or `paused`."""
        return "open" if self.paused_at is None else "paused"


def lock(connection: Connection) -> None:
    """Let no other operator pause or resume a task until the commit."""
    connection.execute(sql.load("lock_task_pauses"))


def read(
    connection: Connection, names: Iterable[str], declared: Collection[str]
) -> dict[str, TaskForDecision]:
    """Those of these tasks that are `declared` or known to the database, by name. Locks nothing."""
    with connection.cursor(row_factory=class_row(TaskForDecision)) as cursor:
        cursor.execute(sql.load("read_tasks"), {"names": list(names), "declared": list(declared)})
        return {task.name: task for task in cursor}


def pause(
    connection: Connection, names: Collection[str], actor: str, reason: str, now: datetime
) -> None:
    """Dispatch no jobs of these tasks. After the commit an effect recalls what was dispatched already."""
    parameters = {"tasks": list(names), "actor": actor, "reason": reason, "now": now}
    connection.execute(sql.load("pause_tasks"), parameters)


def resume(connection: Connection, names: Collection[str]) -> None:
    """Dispatch jobs of these tasks again."""
    connection.execute(sql.load("resume_tasks"), {"tasks": list(names)})

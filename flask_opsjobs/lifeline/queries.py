"""What pages read about who is alive: executors, and when each loop was last awake."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from .. import sql
from .models import Executor

_MOST_LIVE = 200
# What went missing is kept for a week: pages that count it count all of it, up to this.
_MOST_MISSING = 500
_MOST_STOPPED = 10
_MOST_HELD = 500
# A loop is silent when it has missed this many passes, and a little more for what a pass takes.
_PASSES_MISSED = 3
_GRACE_SECONDS = 5


@dataclass(frozen=True)
class ExecutorRow:
    """A worker process. `holding` lists the jobs it has in hand; `beat_at` is its last heartbeat, `ended_at` when it
    stopped or was given up. `is_listening` is the answer of `listeners.sql`; without it a worker is not `alive`.
    """

    id: int
    name: str
    kind: str
    host: str
    pid: int
    version: str | None
    queues: Sequence[str]
    state: str
    started_at: datetime
    beat_at: datetime
    rss_kb: int | None
    ended_at: datetime | None
    holding: Sequence[int]
    is_listening: bool = False


@dataclass(frozen=True)
class HeldRow:
    """A delivery that an executor said it held, with its job as that is now. `outcome` is how that attempt ended."""

    executor_id: int
    job_id: int
    task: str
    queue: str
    state: str
    attempt: int
    since: datetime
    outcome: str | None
    is_cancel_wanted: bool


@dataclass(frozen=True)
class LoopRow:
    """The last stretch in which a loop was awake. `took_seconds` is its last pass."""

    loop: str
    process: str
    started_at: datetime
    last_at: datetime
    every_seconds: float
    took_seconds: float
    said: str | None
    error: str | None
    is_awake: bool


_EXECUTOR: tuple[Any, ...] = (
    Executor.id, Executor.name, Executor.kind, Executor.host, Executor.pid, Executor.version,
    Executor.queues, Executor.state, Executor.started_at, Executor.beat_at, Executor.rss_kb,
    Executor.ended_at, Executor.holding,
)  # fmt: skip


def list_executors(session: Session, now: datetime, late_seconds: float) -> Sequence[ExecutorRow]:
    """The executors that have not ended, at most 200, and before them the missing ones of a day, at most 500."""
    missing = (
        select(*_EXECUTOR)
        .where(Executor.started_at > now - timedelta(days=7), Executor.state == "missing")
        .where(Executor.ended_at > now - timedelta(days=1))
        .order_by(Executor.ended_at.desc())
        .limit(_MOST_MISSING)
    )
    asked = {"now": now, "late_seconds": late_seconds}
    listening = {
        row.id for row in session.connection().exec_driver_sql(sql.load("listeners"), asked)
    }
    live = select(*_EXECUTOR).where(Executor.ended_at.is_(None)).order_by(Executor.name)
    rows = [*session.execute(missing), *session.execute(live.limit(_MOST_LIVE))]
    return [_as_it_listens(_executor(*row), listening) for row in rows]


def _as_it_listens(row: ExecutorRow, listening: Collection[int]) -> ExecutorRow:
    """The row, not `alive` when its heartbeat is late already and the watch loop has not said so yet."""
    is_listening = row.id in listening
    state = "late" if row.state == "alive" and not is_listening else row.state
    return replace(row, state=state, is_listening=is_listening)


def list_stopped(session: Session, now: datetime) -> Sequence[ExecutorRow]:
    """The last ten executors that ended by themselves within a day, the latest first."""
    stopped = (
        select(*_EXECUTOR)
        .where(Executor.started_at > now - timedelta(days=90), Executor.state == "stopped")
        .where(Executor.ended_at > now - timedelta(days=1))
        .order_by(Executor.ended_at.desc())
        .limit(_MOST_STOPPED)
    )
    return [_executor(*row) for row in session.execute(stopped)]


def list_held(
    session: Session, executors: Sequence[ExecutorRow]
) -> Mapping[int, Sequence[HeldRow]]:
    """What each of the executors held at its last beat, by its id; at most 500 in all."""
    asked = {"executor_ids": [executor.id for executor in executors], "limit": _MOST_HELD}
    rows = session.connection().exec_driver_sql(sql.load("list_held_jobs"), asked)
    held: dict[int, list[HeldRow]] = {executor.id: [] for executor in executors}
    for row in rows:
        held[row.executor_id].append(HeldRow(*row))
    return held


def find_executor(session: Session, executor_id: int) -> ExecutorRow | None:
    """The executor with this id, or None."""
    row = session.execute(select(*_EXECUTOR).where(Executor.id == executor_id)).one_or_none()
    return None if row is None else _executor(*row)


def _executor(*columns: Any) -> ExecutorRow:
    # A beat names what it holds as "<id>-<dispatch_no>".
    ids = [int(job_id) for held in columns[-1] if (job_id := held.partition("-")[0]).isdigit()]
    return ExecutorRow(*(*columns[:-1], ids))


def list_loops(session: Session, now: datetime) -> Sequence[LoopRow]:
    """The last stretch of every loop that ever ran, in order of their names."""
    rows = session.connection().exec_driver_sql(sql.load("list_latest_loop_runs")).all()
    return [LoopRow(*(*row, _is_awake(row, now))) for row in rows]


def _is_awake(row: Any, now: datetime) -> bool:
    quiet: timedelta = now - row.last_at
    return quiet <= timedelta(seconds=_PASSES_MISSED * row.every_seconds + _GRACE_SECONDS)

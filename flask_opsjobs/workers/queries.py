"""Reads workers for pages: who is alive, late, missing or stopped, and what each has reserved."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from ..core import sql
from .models import Worker

_MOST_LIVE = 200
# Pages that count missing workers count at most this many. Their rows are kept for a week.
_MOST_MISSING = 500
_MOST_STOPPED = 10
_MOST_RESERVED = 500


@dataclass(frozen=True)
class WorkerRow:
    """A worker process.

    `reserved` lists its jobs; `heartbeat_at` is its last heartbeat, `ended_at` when it stopped or was given
    up. `is_listening` is the answer of `listeners.sql`; without it a worker is not `alive`.
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
    heartbeat_at: datetime
    rss_kb: int | None
    ended_at: datetime | None
    reserved: Sequence[int]
    is_listening: bool = False


@dataclass(frozen=True)
class ReservedRow:
    """A delivery that a worker had reserved, with its job as it is now.

    `outcome` is the outcome of that attempt.
    """

    worker_id: int
    job_id: int
    task: str
    queue: str
    state: str
    attempt: int
    since: datetime
    outcome: str | None
    is_cancel_wanted: bool


_WORKER: tuple[Any, ...] = (
    Worker.id,
    Worker.name,
    Worker.kind,
    Worker.host,
    Worker.pid,
    Worker.version,
    Worker.queues,
    Worker.state,
    Worker.started_at,
    Worker.heartbeat_at,
    Worker.rss_kb,
    Worker.ended_at,
    Worker.reserved,
)


def list_workers(session: Session, now: datetime, late_seconds: float) -> Sequence[WorkerRow]:
    """Return at most 500 workers that went missing within a day, then at most 200 that have not ended."""
    missing = (
        select(*_WORKER)
        .where(Worker.started_at > now - timedelta(days=7), Worker.state == "missing")
        .where(Worker.ended_at > now - timedelta(days=1))
        .order_by(Worker.ended_at.desc())
        .limit(_MOST_MISSING)
    )
    parameters = {"now": now, "late_seconds": late_seconds}
    listening = {
        row.id for row in session.connection().exec_driver_sql(sql.load("listeners"), parameters)
    }
    live = select(*_WORKER).where(Worker.ended_at.is_(None)).order_by(Worker.name)
    rows = [*session.execute(missing), *session.execute(live.limit(_MOST_LIVE))]
    return [_as_it_listens(_worker(*row), listening) for row in rows]


def _as_it_listens(row: WorkerRow, listening: Collection[int]) -> WorkerRow:
    """Return the row with `is_listening`; a worker that does not listen is `late` instead of `alive`."""
    is_listening = row.id in listening
    state = "late" if row.state == "alive" and not is_listening else row.state
    return replace(row, state=state, is_listening=is_listening)


def list_stopped(session: Session, now: datetime) -> Sequence[WorkerRow]:
    """Return the last ten workers that stopped by themselves within a day, latest first."""
    stopped = (
        select(*_WORKER)
        .where(Worker.started_at > now - timedelta(days=90), Worker.state == "stopped")
        .where(Worker.ended_at > now - timedelta(days=1))
        .order_by(Worker.ended_at.desc())
        .limit(_MOST_STOPPED)
    )
    return [_worker(*row) for row in session.execute(stopped)]


def list_reserved(
    session: Session, workers: Sequence[WorkerRow]
) -> Mapping[int, Sequence[ReservedRow]]:
    """Return the jobs that each worker reserved at its last heartbeat, by worker id; at most 500 in all."""
    parameters = {"worker_ids": [worker.id for worker in workers], "limit": _MOST_RESERVED}
    rows = session.connection().exec_driver_sql(sql.load("list_reserved_jobs"), parameters)
    found: dict[int, list[ReservedRow]] = {worker.id: [] for worker in workers}
    for row in rows:
        found[row.worker_id].append(ReservedRow(*row))
    return found


def find_worker(session: Session, worker_id: int) -> WorkerRow | None:
    """Return the worker with this id, or None."""
    row = session.execute(select(*_WORKER).where(Worker.id == worker_id)).one_or_none()
    return None if row is None else _worker(*row)


def _worker(*columns: Any) -> WorkerRow:
    # A heartbeat names a reserved delivery "<id>-<dispatch_no>".
    ids = [int(job_id) for name in columns[-1] if (job_id := name.partition("-")[0]).isdigit()]
    return WorkerRow(*(*columns[:-1], ids))

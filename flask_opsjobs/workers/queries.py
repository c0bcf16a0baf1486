"""Reads workers for pages: who is alive, late, missing or stopped, and what each has reserved."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ScalarSelect, any_, bindparam, literal, or_, select
from sqlalchemy.orm import Session

from ..core import sql
from ..core.round_trips import start_reading
from .models import Worker
from .pool_report import FAILED_STARTS, ChildReport, LeaveCount, PoolReport

_MOST_LIVE = 200
# Pages that count missing workers count at most this many. Their rows are kept for a week.
_MOST_MISSING = 500
_MOST_STOPPED = 10
_MOST_RESERVED = 500
# How much the clocks of two hosts may differ.
_CLOCKS_DIFFER = timedelta(minutes=1)


@dataclass(frozen=True)
class WorkerSpan:
    """From when until when a worker ran, and how it is now."""

    id: int
    name: str
    host: str
    state: str
    started_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True)
class WorkerRow:
    """A worker process.

    `processes` is how many children perform jobs at once, `pool` what it told of them with its last
    heartbeat, `left` why children left that day. `boot_id` and `pid_namespace` tell its machine or container.
    `reserved` lists its jobs. `heartbeat_at` is its last heartbeat, `ended_at` when it stopped or was given
    up. `drain_requested_at` is when somebody asked it to leave. `deploy_id` is the deploy that it runs, if
    one was known when it started. `is_alive` is the answer of `alive_workers.sql`; without it the worker's
    state is not `alive`. `silent_since` is since when the Redis of a plain worker is silent, for those of
    which it is then not known whether they live.
    """

    id: int
    name: str
    kind: str
    host: str
    pid: int
    version: str | None
    deploy_version: str | None
    deploy_id: int | None
    queues: Sequence[str]
    state: str
    started_at: datetime
    heartbeat_at: datetime
    rss_kb: int | None
    ended_at: datetime | None
    processes: int
    boot_id: str | None
    pid_namespace: str | None
    pool: PoolReport
    left: Sequence[LeaveCount]
    drain_requested_at: datetime | None
    drain_requested_by: str | None
    reserved: Sequence[int]
    is_alive: bool = False
    silent_since: datetime | None = None

    @property
    def is_listening(self) -> bool:
        """Whether it takes jobs of its queues, as `listeners.sql` says: nobody asked it to leave.

        One of which it is not known whether it lives may do so.
        """
        return (self.is_alive or self.silent_since is not None) and self.drain_requested_at is None

    @property
    def is_childless(self) -> bool:
        """Whether it is alive and has no child, because none starts."""
        has_failed = any(left.kind in FAILED_STARTS for left in self.left)
        return self.is_alive and has_failed and not self.pool.children

    @property
    def last_left(self) -> LeaveCount | None:
        """Why its last child of that day left.

        None when none did, and when all left for the same unusual reason, which says so itself.
        """
        if len(self.left) == 1 and not self.left[0].is_usual:
            return None
        return max(self.left, key=lambda left: left.at, default=None)


@dataclass(frozen=True)
class ReservedRow:
    """An attempt of a worker that ran at its last heartbeat or runs now, with its job as it is now.

    `outcome` is the outcome of that attempt, None while it runs. `pid` is the process in which it began.
    """

    worker_id: int
    job_id: int
    task: str
    queue: str
    state: str
    attempt: int
    since: datetime
    outcome: str | None
    pid: int | None
    is_cancel_wanted: bool


@dataclass(frozen=True)
class ChildRow:
    """A child of a worker: what was told of it with the last heartbeat, and the attempt that it runs now.

    `report` is None for a child that is younger than the heartbeat. A plain RQ worker tells neither `report`
    nor `pid`.
    """

    pid: int | None
    report: ChildReport | None
    attempt: ReservedRow | None

    @property
    def state(self) -> str:
        """`runs` an attempt or a plain RQ job, `busy`, `idle`, or `starts` (also: leaves).

        A busy child ran a job at the heartbeat that has ended since, or is too young to have an attempt.
        """
        report = self.report
        if self.attempt is not None or report is None or report.rq_id is not None:
            return "runs"
        if report.is_busy:
            return "busy"
        return "idle" if report.is_ready else "starts"


_WORKER: tuple[Any, ...] = (
    Worker.id,
    Worker.name,
    Worker.kind,
    Worker.host,
    Worker.pid,
    Worker.version,
    Worker.deploy_version,
    Worker.deploy_id,
    Worker.queues,
    Worker.state,
    Worker.started_at,
    Worker.heartbeat_at,
    Worker.rss_kb,
    Worker.ended_at,
    Worker.processes,
    Worker.boot_id,
    Worker.pid_namespace,
    Worker.pool,
    Worker.left_children,
    Worker.drain_requested_at,
    Worker.drain_requested_by,
    Worker.reserved,
)
# The process of the loops is a worker too, of escalations only. Pages show it among the loops.
_IS_SHOWN = Worker.kind != "loops"
# Built once, as in overview/pace_queries.py.
_MISSING = (
    select(*_WORKER)
    .where(Worker.state == "missing", Worker.forgotten_at.is_(None), _IS_SHOWN)
    .where(Worker.ended_at > bindparam("ended"))
    .order_by(Worker.ended_at.desc())
    .limit(_MOST_MISSING)
)
_LIVE = (
    select(*_WORKER)
    .where(Worker.ended_at.is_(None), _IS_SHOWN)
    .order_by(Worker.name)
    .limit(_MOST_LIVE)
)


def list_workers(session: Session, now: datetime, late_seconds: float) -> Sequence[WorkerRow]:
    """Return at most 500 workers that went missing within a day, then at most 200 that have not ended."""
    since = {"ended": now - timedelta(days=1)}
    missing = start_reading(session, Session.execute, _MISSING, since)
    live = start_reading(session, Session.execute, _LIVE)
    parameters = {"now": now, "late_seconds": late_seconds}
    rows_alive = session.connection().exec_driver_sql(sql.load("alive_workers"), parameters)
    alive = {row.id for row in rows_alive}
    rows = [*missing.value, *live.value]
    return [_as_it_lives(_worker(*row), alive) for row in rows]


def served_by(workers: Sequence[WorkerRow]) -> set[str]:
    """Return the queues whose jobs these workers take straight from Postgres. Plain RQ workers do not."""
    ours = [worker for worker in workers if worker.is_listening and worker.kind == "pool"]
    return {queue for worker in ours for queue in worker.queues}


def _as_it_lives(row: WorkerRow, alive: Collection[int]) -> WorkerRow:
    """Return the row with `is_alive`; a worker that is not is `late` instead of `alive`."""
    is_alive = row.id in alive
    state = "late" if row.state == "alive" and not is_alive else row.state
    return replace(row, state=state, is_alive=is_alive)


def list_stopped(session: Session, now: datetime) -> Sequence[WorkerRow]:
    """Return the last ten workers that stopped by themselves within a day, latest first."""
    stopped = (
        select(*_WORKER)
        .where(Worker.state == "stopped", Worker.forgotten_at.is_(None), _IS_SHOWN)
        .where(Worker.ended_at > now - timedelta(days=1))
        .order_by(Worker.ended_at.desc())
        .limit(_MOST_STOPPED)
    )
    return [_worker(*row) for row in session.execute(stopped)]


def list_reserved(
    session: Session, workers: Sequence[WorkerRow]
) -> Mapping[int, Sequence[ReservedRow]]:
    """Return the attempts that each worker reported last, runs now or lost, by worker id; at most 500 in all.

    Jobs that wait in the worker have no attempt yet. Nor have those that run for less than 50 ms.
    """
    parameters = {"worker_ids": [worker.id for worker in workers], "limit": _MOST_RESERVED}
    rows = session.connection().exec_driver_sql(sql.load("list_reserved_jobs"), parameters)
    found: dict[int, list[ReservedRow]] = {worker.id: [] for worker in workers}
    for row in rows:
        found[row.worker_id].append(ReservedRow(*row))
    return found


def list_children(worker: WorkerRow, attempts: Sequence[ReservedRow]) -> list[ChildRow]:
    """Return a worker's children, given its attempts: first those it has told of, then younger ones."""
    running = [attempt for attempt in attempts if attempt.outcome is None]
    of_pid = {attempt.pid: attempt for attempt in running if attempt.pid is not None}
    known = [
        ChildRow(child.pid, child, of_pid.pop(child.pid, None)) for child in worker.pool.children
    ]
    others = [one for one in running if one.pid is None or one.pid in of_pid]
    return [*known, *(ChildRow(one.pid, None, one) for one in others)]


def list_jobs_of(session: Session, name: str, limit: int) -> Sequence[int]:
    """Return the jobs that the worker of this name has started or reserved, at most `limit`."""
    rows = session.connection().exec_driver_sql(
        sql.load("list_jobs_of_worker"), {"name": name, "limit": limit}
    )
    return [id for (id,) in rows]


def list_names(session: Session) -> Sequence[str]:
    """Return the names of at most 200 workers that have not ended, in order."""
    live = select(Worker.name).where(Worker.ended_at.is_(None)).order_by(Worker.name)
    return list(session.scalars(live.limit(_MOST_LIVE)))


def list_listeners_since(
    session: Session, queue: str, since: datetime, limit: int
) -> Sequence[WorkerRow]:
    """Return the workers that listened to the queue since then, those that started last first."""
    chosen = (
        select(*_WORKER)
        .where(literal(queue) == any_(Worker.queues))
        .where(or_(Worker.ended_at.is_(None), Worker.ended_at >= since))
        .order_by(Worker.started_at.desc())
        .limit(limit)
    )
    return [_worker(*row) for row in session.execute(chosen)]


def find_worker(session: Session, worker_id: int | ScalarSelect[int | None]) -> WorkerRow | None:
    """Return the worker with this id, or with the id that a statement finds; else None."""
    row = session.execute(select(*_WORKER).where(Worker.id == worker_id)).one_or_none()
    return None if row is None else _worker(*row)


def find_worker_named(session: Session, name: str) -> WorkerRow | None:
    """Return the worker of this name, or None."""
    row = session.execute(select(*_WORKER).where(Worker.name == name)).one_or_none()
    return None if row is None else _worker(*row)


def list_workers_of_deploy(
    session: Session, deploy_id: int, since: datetime, examined: int
) -> tuple[Sequence[WorkerSpan], bool]:
    """The workers that started with a deploy marked at `since`, those that started first first.

    They are looked for among so many that started since then; the second value says whether there are more.
    """
    # A worker that marks its deploy itself has started just before.
    columns = [getattr(Worker, name) for name in WorkerSpan.__annotations__]
    started = (
        select(Worker.deploy_id, *columns)
        .where(Worker.started_at >= since - _CLOCKS_DIFFER)
        .order_by(Worker.started_at)
        .limit(examined + 1)
    )
    rows = session.execute(started).all()
    workers = [WorkerSpan(*row[1:]) for row in rows[:examined] if row[0] == deploy_id]
    return workers, len(rows) > examined


def _worker(*columns: Any) -> WorkerRow:
    # A heartbeat names a reserved delivery "<id>-<dispatch_no>".
    ids = [int(job_id) for name in columns[-1] if (job_id := name.partition("-")[0]).isdigit()]
    *others, pool, left, drained_at, drained_by, _ = columns
    causes = [LeaveCount.of_json(stored) for stored in left]
    report = PoolReport.of_json(pool)
    return WorkerRow(*(*others, report, causes, drained_at, drained_by, ids))

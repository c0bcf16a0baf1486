"""Writes what a worker records about itself: its registration, its heartbeat, the jobs it has lost, its stop.

`watch` decides whether it is alive. An operator may ask it to leave, or forget it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg.rows import class_row, scalar_row
from psycopg.types.json import Jsonb

from ..core import sql
from ..core.db import SCHEMA_VERSION, Connection
from .pool_report import PoolReport

DeliveryKey = tuple[int, int]


class WorkerRemoved(Exception):
    """The row of a worker is gone, so its process must be restarted."""


@dataclass(frozen=True)
class WorkerProcess:
    """A worker of ours as it registers. `processes` is how many children perform jobs at once.

    `kind` is `pool`, or `loops` for the process of the loops, which performs escalations.

    `version` is that of flask_opsjobs, `deploy_version` that of the host's application, and `deploy_id` the
    deploy that it runs, if one is known.

    `boot_id`, `pid_namespace` and `pid_started_at` tell its process from all others; None where the system
    does not tell them.
    """

    name: str
    host: str
    pid: int
    version: str | None
    queues: Sequence[str]
    processes: int = 1
    boot_id: str | None = None
    pid_namespace: str | None = None
    pid_started_at: int | None = None
    deploy_version: str | None = None
    deploy_id: int | None = None
    kind: str = "pool"


@dataclass(frozen=True)
class Requests:
    """What somebody asked of a worker: to leave (`is_drained`), and to stop these jobs (id, dispatch_no)."""

    is_drained: bool = False
    stops: Sequence[DeliveryKey] = ()


@dataclass(frozen=True)
class WorkerForDecision:
    """The columns of a worker that a decision needs. `jobs` is how many it has, or has left."""

    id: int
    name: str
    kind: str
    state: str
    queues: Sequence[str]
    drain_requested_at: datetime | None
    drain_requested_by: str | None
    forgotten_at: datetime | None
    jobs: int

    @property
    def target(self) -> str:
        """The worker as the target of an action."""
        return f"worker/{self.name}"

    @property
    def label(self) -> str:
        """The worker for people: its name."""
        return self.name


@dataclass(frozen=True)
class HeartbeatReport:
    """What a worker says with the heartbeat number `heartbeat_no`.

    `reserved` are its deliveries (`id-dispatch_no`), `rss_kb` its memory, and `counts` are events since it
    started. `left_children` says why children left today, `pool` what the children do. `jobs_finished` and
    `jobs_failed` are the managed jobs that ended in it since it started, `work_seconds` how long they took.
    """

    heartbeat_no: int
    reserved: Sequence[str] = ()
    rss_kb: int | None = None
    counts: Mapping[str, Any] = field(default_factory=dict)
    left_children: Sequence[Mapping[str, Any]] = ()
    pool: PoolReport = field(default_factory=PoolReport)
    jobs_finished: int = 0
    jobs_failed: int = 0
    work_seconds: float = 0.0


def register(connection: Connection, process: WorkerProcess, now: datetime) -> int:
    """Register a worker; return its id. Commits."""
    values = {**vars(process), "queues": list(process.queues), "now": now}
    return _id(connection, "register_worker", values)


def find_or_register_plain(
    connection: Connection, name: str, host: str, pid: int, now: datetime
) -> int:
    """Return the id of a plain RQ worker; register it first when it is new. Commits."""
    values = {"name": name, "host": host, "pid": pid, "now": now}
    return _id(connection, "register_plain_worker", values)


def record_heartbeat(
    connection: Connection, worker_id: int, report: HeartbeatReport, now: datetime
) -> Requests:
    """Record a heartbeat; return what somebody asked of the worker. Commits.

    Raises `WorkerRemoved` when retention has removed the worker after a week without a heartbeat.
    """
    parameters = {
        **vars(report),
        "id": worker_id,
        "reserved": list(report.reserved),
        "counts": Jsonb(dict(report.counts)),
        "left_children": Jsonb(list(report.left_children)),
        # A downgrade asks which schema the code of a worker knows.
        "pool": Jsonb({**report.pool.to_json(), "schema": SCHEMA_VERSION}),
        "now": now,
    }
    rows = connection.execute(sql.load("record_heartbeat"), parameters).fetchall()
    if not rows:
        raise WorkerRemoved(f"worker {worker_id} was removed after a long silence: restart it")
    return _requests(rows)


def read_requests(connection: Connection, worker_id: int) -> Requests:
    """Return what somebody asked of the worker."""
    return _requests(connection.execute(sql.load("read_requests"), {"id": worker_id}).fetchall())


def _requests(rows: Sequence[tuple[bool, int | None, int | None]]) -> Requests:
    stops = [(id, number) for _, id, number in rows if id is not None and number is not None]
    return Requests(any(is_drained for is_drained, _, _ in rows), stops)


def find_lost(
    connection: Connection, worker_id: int, running: Collection[DeliveryKey]
) -> set[DeliveryKey]:
    """Return those deliveries in `running` whose jobs are no longer the worker's own and must be stopped.

    Give only deliveries whose claim is committed: an uncommitted claim looks like a lost job.
    """
    if not running:
        return set()
    parameters = {
        "worker_id": worker_id,
        "ids": [job_id for job_id, _ in running],
        "dispatch_nos": [number for _, number in running],
    }
    return set(connection.execute(sql.load("find_lost_jobs"), parameters).fetchall())


def stop(connection: Connection, worker_id: int, now: datetime) -> None:
    """Record that the worker has stopped. Commits."""
    connection.execute(sql.load("stop_worker"), {"id": worker_id, "now": now})


# --- what an operator decides; each function runs in the caller's transaction


def lock(connection: Connection, names: Iterable[str]) -> None:
    """Lock these workers, in id order."""
    connection.execute(sql.load("lock_workers"), {"names": list(names)})


def read(connection: Connection, names: Iterable[str]) -> dict[str, WorkerForDecision]:
    """Those of these workers that exist, by name. Locks nothing."""
    with connection.cursor(row_factory=class_row(WorkerForDecision)) as cursor:
        cursor.execute(sql.load("read_workers"), {"names": list(names)})
        return {worker.name: worker for worker in cursor}


def find_names(
    connection: Connection, kinds: Sequence[str], queue: str | None, host: str | None
) -> list[str]:
    """The names of the workers that have not ended, of a queue or of a machine, at most 1,000.

    Locks nothing.
    """
    parameters = {"kinds": list(kinds), "queue": queue, "host": host, "limit": 1_000}
    return [name for (name,) in connection.execute(sql.load("find_workers"), parameters)]


def drain(connection: Connection, ids: Collection[int], actor: str, now: datetime) -> None:
    """Ask workers to leave."""
    parameters = {"ids": list(ids), "actor": actor, "now": now}
    connection.execute(sql.load("drain_workers"), parameters)


def forget(connection: Connection, ids: Collection[int], now: datetime) -> None:
    """Take workers that have ended from all pages."""
    connection.execute(sql.load("forget_workers"), {"ids": list(ids), "now": now})


def _id(connection: Connection, statement: str, parameters: Mapping[str, Any]) -> int:
    with connection.cursor(row_factory=scalar_row) as cursor:
        found: int | None = cursor.execute(sql.load(statement), parameters).fetchone()
    assert found is not None
    return found

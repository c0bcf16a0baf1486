"""Writes what a worker records about itself: its registration, its heartbeat, the jobs it has lost, its stop.

`watch` decides whether it is alive.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg.rows import scalar_row
from psycopg.types.json import Jsonb

from ..core import sql
from ..core.db import Connection
from .pool_report import PoolReport

DeliveryKey = tuple[int, int]


@dataclass(frozen=True)
class WorkerProcess:
    """A worker of ours as it registers. `processes` is how many children perform jobs at once.

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


@dataclass(frozen=True)
class HeartbeatReport:
    """What a worker says with the heartbeat number `heartbeat_no`.

    `reserved` are its deliveries (`id-dispatch_no`), `rss_kb` its memory, and `counts` are events since it
    started. `left_children` says why children left today, `pool` what the children do.
    """

    heartbeat_no: int
    reserved: Sequence[str] = ()
    rss_kb: int | None = None
    counts: Mapping[str, Any] = field(default_factory=dict)
    left_children: Sequence[Mapping[str, Any]] = ()
    pool: PoolReport = field(default_factory=PoolReport)


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
) -> list[DeliveryKey]:
    """Record a heartbeat. Commits.

    Returns those of the worker's jobs for which somebody requested a stop, as (id, dispatch_no). Raises
    `LookupError` when retention has removed the worker after a week without a heartbeat: the process must be
    restarted.
    """
    parameters = {
        **vars(report),
        "id": worker_id,
        "reserved": list(report.reserved),
        "counts": Jsonb(dict(report.counts)),
        "left_children": Jsonb(list(report.left_children)),
        "pool": Jsonb(report.pool.to_json()),
        "now": now,
    }
    rows = connection.execute(sql.load("record_heartbeat"), parameters).fetchall()
    if not rows:
        raise LookupError(f"worker {worker_id} was removed after a long silence: restart it")
    return [(job_id, number) for job_id, number in rows if job_id is not None]


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


def _id(connection: Connection, statement: str, parameters: Mapping[str, Any]) -> int:
    with connection.cursor(row_factory=scalar_row) as cursor:
        found: int | None = cursor.execute(sql.load(statement), parameters).fetchone()
    assert found is not None
    return found

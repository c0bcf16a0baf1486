"""Writes what an operator does with jobs, except ends: retry, ask to stop, run again, delete.

Every function is part of the caller's transaction. `lock` first, then `look`: the writes trust what that saw.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from ..core import sql
from ..core.db import Connection
from .lifecycle import sources_of


@dataclass(frozen=True)
class JobForDecision:
    """A job as a decision about it is made. `unique_lock_of` is the job that holds its lock."""

    id: int
    origin: str
    task: str
    queue: str
    lane: str
    state: str
    dispatch_no: int
    attempt: int
    max_attempts: int
    due_at: datetime
    deadline_at: datetime | None
    ended_at: datetime | None
    ended_by: str | None
    cancel_requested_at: datetime | None
    cancel_requested_by: str | None
    unique_key: bytes | None
    unique_until: str | None
    worker: str | None
    worker_kind: str | None
    unique_lock_of: int | None


def lock(connection: Connection, ids: Iterable[int]) -> None:
    """Lock these jobs, in id order."""
    connection.execute(sql.load("lock_jobs"), {"ids": list(ids)})


def look(connection: Connection, ids: Iterable[int], now: datetime) -> dict[int, JobForDecision]:
    """How these jobs stand; those that exist, by id and in id order. Locks nothing."""
    with connection.cursor(row_factory=class_row(JobForDecision)) as cursor:
        cursor.execute(sql.load("look_at_jobs"), {"ids": list(ids), "now": now})
        return {job.id: job for job in cursor}


def retry(connection: Connection, ids: Collection[int], now: datetime) -> None:
    """Make jobs due now, with room for one more attempt. Their unique locks are the caller's to take first."""
    _act(connection, "retry_jobs", "retry", ids, now)


def request_cancel(
    connection: Connection, ids: Collection[int], actor: str, reason: str, now: datetime
) -> None:
    """RunSql the workers of started jobs to stop them."""
    asked = {"ids": list(ids), "actor": actor, "reason": reason, "now": now}
    connection.execute(sql.load("request_cancel"), asked)


def run_again(
    connection: Connection, ids: Collection[int], guarded: Collection[int], now: datetime
) -> dict[int, int]:
    """Insert a new job for each final one: the new ids by the old. Those in `guarded` need unique locks."""
    asked = {"ids": list(ids), "guarded": list(guarded), "sources": list(sources_of("run_again"))}
    rows = connection.execute(sql.load("run_jobs_again"), {**asked, "now": now})
    return {old: new for new, old in rows}


def delete(connection: Connection, ids: Collection[int], now: datetime) -> None:
    """Remove final jobs, with their attempts and outputs."""
    _act(connection, "delete_jobs", "delete", ids, now)


def forget_refusals(connection: Connection, deliveries: Collection[tuple[int, int]]) -> None:
    """Remove earlier attempts of these jobs (id, dispatch_no) that workers refused; the newest refusal stays."""
    ids, numbers = [id for id, _ in deliveries], [number for _, number in deliveries]
    connection.execute(sql.load("forget_refusals"), {"job_ids": ids, "dispatch_nos": numbers})


def _act(
    connection: Connection, statement: str, arrow: str, ids: Collection[int], now: datetime
) -> None:
    asked = {"ids": list(ids), "sources": list(sources_of(arrow)), "now": now}
    connection.execute(sql.load(statement), asked)

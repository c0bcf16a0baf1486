"""Reads what the page of a job shows beside the job: related jobs, and all stored columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Text, cast, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from .models import Attempt, Job, UniqueLock
from .rows import JobInFull, Relations, UniqueLockRow

_MOST = 20


def find_relations(session: Session, job: JobInFull) -> Relations:
    """The job it was run again from, at most 20 it was run again as, and the holder of its unique lock."""
    origin = select(Job.state).where(Job.id == job.run_again_from)
    # Sorted below: with an ORDER BY the planner might scan all jobs in that order. There are few copies.
    again = select(Job.id, Job.state).where(Job.run_again_from == job.id).limit(_MOST)
    copies: list[tuple[int, str]] = [(row[0], row[1]) for row in session.execute(again)]
    return Relations(
        session.scalars(origin).one_or_none() if job.run_again_from else None,
        sorted(copies, reverse=True),
        _find_unique_lock(session, job.id) if job.is_unique else None,
    )


def _find_unique_lock(session: Session, job_id: int) -> UniqueLockRow | None:
    key = select(Job.unique_key).where(Job.id == job_id).scalar_subquery()
    columns = (UniqueLock.job_id, UniqueLock.until, UniqueLock.expires_at)
    row = session.execute(select(*columns).where(UniqueLock.key == key)).one_or_none()
    return None if row is None else UniqueLockRow(*row)


def find_stored(session: Session, job_id: int) -> Mapping[str, Any] | None:
    """Every column of a job, JSON as text; None when there is no such job."""
    row = session.execute(select(*_stored(Job)).where(Job.id == job_id)).mappings().one_or_none()
    return None if row is None else dict(row)


def list_stored_attempts(session: Session, job_id: int) -> Sequence[Mapping[str, Any]]:
    """Every column of the job's last 20 attempts, with logs and tracebacks, the last first."""
    mine = select(*_stored(Attempt)).where(Attempt.job_id == job_id)
    rows = session.execute(mine.order_by(Attempt.dispatch_no.desc()).limit(_MOST))
    return [dict(row) for row in rows.mappings()]


def _stored(table: type[Job] | type[Attempt]) -> Sequence[Any]:
    return [
        cast(column, Text).label(column.name) if isinstance(column.type, JSONB) else column
        for column in table.__table__.columns
    ]

"""Reads jobs for an export in batches, the newest first: jobs enqueued meanwhile do not prolong it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Text, cast, select
from sqlalchemy.orm import Session

from ..adopted.queries import list_arguments
from ..models import Job
from ..queries import range_of
from .filter import JobFilter
from .index_scan import is_match, scan_index


@dataclass(frozen=True)
class ExportRow:
    """One job, with its payload as it is stored: `args` and `meta` are JSON texts."""

    id: int
    state: str
    task: str
    queue: str
    origin: str
    priority: int
    tags: Sequence[str]
    attempt: int
    max_attempts: int
    created_at: datetime
    due_at: datetime
    dispatched_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    ended_by: str | None
    rq_place: str | None
    rq_id: str | None
    rq_status: str | None
    run_again_from: int | None
    ended_reason: str | None
    error: str | None
    args: str
    meta: str


_COLUMNS: tuple[Any, ...] = (
    *(getattr(Job, name) for name in list(ExportRow.__annotations__)[:-2]),
    cast(Job.args, Text),
    cast(Job.meta, Text),
)


def batch_of_jobs(
    session: Session, wanted: JobFilter, now: datetime, *, before: int | None, size: int
) -> Sequence[ExportRow]:
    """At most `size` jobs that fit, with ids below `before`, the newest first.

    For filters without a search.
    """
    found = range_of(session, wanted, now).narrowed(before, None)
    rows = session.execute(scan_index(select(*_COLUMNS), wanted, found).limit(size))
    return _with_arguments(session, [ExportRow(*row) for row in rows])


def list_jobs_in_full(
    session: Session, wanted: JobFilter, ids: Sequence[int]
) -> Sequence[ExportRow]:
    """The jobs with these ids, in their order.

    Leaves out jobs that were deleted or no longer fit the filter.
    """
    # Queries by id alone: with another condition, the planner might scan another index.
    rows = session.execute(select(*_COLUMNS).where(Job.id.in_(ids)))
    found = {row[0]: ExportRow(*row) for row in rows}
    fitting = [row for job_id in ids if (row := found.get(job_id)) and is_match(wanted, row)]
    return _with_arguments(session, fitting)


def _with_arguments(session: Session, rows: Sequence[ExportRow]) -> Sequence[ExportRow]:
    """The rows; those of adopted jobs with the text of their arguments, which has a table of its own."""
    texts = list_arguments(session, [row.id for row in rows if row.origin == "rq"])
    return [replace(row, args=texts[row.id]) if row.id in texts else row for row in rows]

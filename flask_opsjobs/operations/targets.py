"""Selects the jobs of a filter to freeze them: all of them, where a list or a search stops at its limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Insert, Select, and_, func, insert, literal, select

from ..jobs.models import Attempt, Job
from ..jobs.search.conditions import Terms, contains
from ..jobs.search.filter import JobFilter
from .models import OperationRow

# The most jobs of one operation.
MOST_JOBS = 1_000_000
# In so many jobs the text of an error is searched.
MOST_ERRORS = 100_000
_FROZEN = ("queue", "origin", "state", "dispatch_no", "attempt")


def count_errors_statement(wanted: JobFilter, now: datetime) -> Select[int]:
    """Counts the jobs that fit and have an error, whatever it says, up to one more than `MOST_ERRORS`."""
    some = select(Job.id).where(*_conditions_of_errors(wanted, now)).limit(MOST_ERRORS + 1)
    return select(func.count()).select_from(some.subquery("some"))


def list_errors_statement(wanted: JobFilter, text: str, now: datetime) -> Select[int, str | None]:
    """Id and error of the jobs that fit and whose error, as it is stored, has this text."""
    has_text = contains(Job.error, text)
    return select(Job.id, Job.error).where(*_conditions_of_errors(wanted, now), has_text)


def _conditions_of_errors(wanted: JobFilter, now: datetime) -> list[ColumnElement[bool]]:
    return [Job.error.is_not(None), *Terms(wanted, now).list_all(with_texts=False)]


def freeze_statement(
    operation: int,
    wanted: JobFilter,
    now: datetime,
    most: int,
    jobs_of_texts: Mapping[str, Sequence[int]] | None = None,
) -> Insert:
    """The statement that writes a row for each job that fits now, by id, and one above `most` if there are.

    `jobs_of_texts` are the jobs whose errors have each searched text: the display policy decides, so Postgres
    cannot. The failure key is that of the attempt with the job's dispatch number: its last one.
    """
    chosen = select(Job.id, *(getattr(Job, name) for name in _FROZEN)).where(
        *Terms(wanted, now, jobs_of_texts or {}).list_all()
    )
    some = chosen.order_by(Job.id).limit(most + 1).subquery("some")
    last = and_(Attempt.job_id == some.c.id, Attempt.dispatch_no == some.c.dispatch_no)
    rows = select(
        literal(operation),
        func.row_number().over(order_by=some.c.id),
        *some.c,
        Attempt.failure_key,
    ).select_from(some.outerjoin(Attempt, last))
    columns = ["operation_id", "number", "job_id", *_FROZEN, "failure_key"]
    return insert(OperationRow).from_select(columns, rows)

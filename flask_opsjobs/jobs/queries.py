"""Reads jobs for pages: pages of a list, bounded counts, and one job in full.

Every query scans one index in order and stops early, whatever the planner estimates. Two measures ensure
this: the session allows neither sequential nor bitmap scans, and the condition on the leading column is
written as a range, so that no other index has the requested order. Returns the payload as it is stored; pages
and commands apply the display policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, Text, case, cast, func, or_, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from ..core import sql
from ..core.db import LARGEST_ID
from ..core.reading import KeptValue
from ..core.round_trips import start_reading
from ..workers.models import Worker
from .lifecycle import FINAL, STATES
from .models import Attempt, Job, Output, UniqueLock
from .rows import (
    CAP,
    AttemptRow,
    Count,
    JobInFull,
    JobPage,
    JobRow,
    OutputRow,
    Relations,
    UniqueLockRow,
)
from .search.conditions import Now, Terms, is_one_of
from .search.filter import Condition, JobFilter
from .search.index_scan import Range, conditions_of, indexed_part, scan_index
from .search.ranges import TimePoint

# How much the clocks of two hosts that enqueue jobs may differ.
_CLOCKS_DIFFER = timedelta(minutes=1)
_NAMES = 200
_NEWEST = 500
# A job that snoozes may have any number of attempts; its page shows the last ones.
_ATTEMPTS = 50

_TOLD = (Attempt.progress_done, Attempt.progress_total, Attempt.progress_note)
_PROGRESS = (
    select(func.json_build_array(*_TOLD))
    .where(Job.state == "started", or_(_TOLD[0].is_not(None), _TOLD[2].is_not(None)))
    .where(Attempt.job_id == Job.id, Attempt.dispatch_no == Job.dispatch_no)
    .correlate(Job)
)
_TAKEN_BY = select(Worker.name).where(Worker.id == Job.reserved_by).correlate(Job)
_ROW: tuple[Any, ...] = (
    Job.id,
    Job.state,
    Job.task,
    Job.queue,
    Job.attempt,
    Job.max_attempts,
    Job.dispatch_no,
    Job.created_at,
    Job.due_at,
    Job.dispatched_at,
    Job.started_at,
    Job.ended_at,
    Job.ended_by,
    Job.ended_reason,
    Job.error,
    Job.origin,
    _PROGRESS.scalar_subquery(),
    _TAKEN_BY.scalar_subquery(),
)


def page_of_jobs(
    session: Session,
    wanted: JobFilter,
    now: Now,
    *,
    before: int | None = None,
    after: int | None = None,
) -> JobPage:
    """The newest jobs that fit; `before` an id, only older jobs; `after` an id, the next newer jobs."""
    found = range_of(session, wanted, now).narrowed(before, after)
    statement = scan_index(select(*_ROW), wanted, found, newest_first=after is None)
    rows = [JobRow(*row) for row in session.execute(statement.limit(wanted.limit + 1))]
    has_more = len(rows) > wanted.limit
    rows = rows[: wanted.limit]
    if after is None:
        return JobPage(rows, before is not None, has_more)
    if not has_more:  # fewer newer jobs than a page holds: show the full first page
        return page_of_jobs(session, wanted, now)
    return JobPage(rows[::-1], True, True)


def list_rows(session: Session, ids: Sequence[int] | ColumnElement[Any]) -> Sequence[JobRow]:
    """The jobs with these ids, in their order; an id without a job is left out.

    In any order, when `ids` are what finds them.
    """
    if not isinstance(ids, ColumnElement) and not ids:
        return []
    found = session.execute(select(*_ROW).where(is_one_of(Job.id, ids)))
    rows = {row.id: JobRow(*row) for row in found}
    if isinstance(ids, ColumnElement):
        return list(rows.values())
    return [rows[job_id] for job_id in ids if job_id in rows]


def list_states(session: Session, ids: Sequence[int]) -> Mapping[int, str]:
    """The states of those of these jobs that are stored, by id."""
    found = session.execute(select(Job.id, Job.state).where(Job.id.in_(ids))) if ids else ()
    return {row.id: row.state for row in found}


def count_jobs_by_state(session: Session, wanted: JobFilter, now: Now) -> dict[str, Count]:
    """How many jobs each state has. Ignores the state of the filter; the result contains every state.

    Without another condition, each state is counted up to `CAP`; above that, final states get the planner's
    estimate if there is one. With another condition, only the newest `CAP` jobs of the scanned index are
    counted.
    """
    wanted = wanted.but(state=None)
    if not wanted.terms:
        return _count_all(session)
    # One condition chooses the index; the others filter the rows that were read, so that the scan is bounded.
    found = range_of(session, wanted, now)
    columns = (Job.state, Job.task, Job.queue, Job.origin)
    some = scan_index(select(*columns), indexed_part(wanted), found).limit(CAP + 1).subquery()
    numbers = (func.count().filter(*conditions_of(wanted, some.c)), func.count())
    rows = session.execute(select(some.c.state, *numbers).group_by(some.c.state)).all()
    kind = "exact" if sum(seen for _, _, seen in rows) <= CAP else "at_least"
    counted = {state: number for state, number, _ in rows}
    return {state: Count(counted.get(state, 0), kind) for state in STATES}


def _count_all(session: Session) -> dict[str, Count]:
    parameters = {"states": list(STATES), "most": CAP + 1}
    rows = session.connection().exec_driver_sql(sql.load("count_states"), parameters)
    counts = {}
    for state, number, estimate in rows:
        is_about = state in FINAL and estimate is not None and estimate > CAP
        counts[state] = Count(estimate, "about") if is_about else Count.capped(number)
    return counts


def list_task_names(session: Session) -> list[str]:
    """The names of tasks that occur in jobs, at most 200, in order."""
    rows = session.connection().exec_driver_sql(sql.load("list_task_names"), {"limit": _NAMES})
    return list(rows.scalars())


def list_recent_tags(session: Session) -> set[str]:
    """The tags of the newest 500 jobs."""
    newest = select(Job.tags).order_by(Job.id.desc()).limit(_NEWEST)
    return {tag for tags in session.scalars(newest) for tag in tags}


def find_qualifier(
    session: Session, name: str, qualifiers: Sequence[str] = ("task", "queue")
) -> str | None:
    """Whether jobs have this name as their `task` or as their `queue`; None when none has."""
    for qualifier in qualifiers:
        bears = scan_index(select(Job.id), JobFilter().but(**{qualifier: name}), Range()).limit(1)
        if session.scalars(bears).first() is not None:
            return qualifier
    return None


def find_oldest_of_queue(session: Session, queue: str) -> datetime | None:
    """When the oldest job of the queue that is stored was created; None when none is stored."""
    return _find_oldest(session, JobFilter().but(queue=queue))


def find_oldest_of_task(session: Session, task: str) -> datetime | None:
    """When the oldest job of the task that is stored was created; None when none is stored."""
    return _find_oldest(session, JobFilter().but(task=task))


def _find_oldest(session: Session, wanted: JobFilter) -> datetime | None:
    oldest = scan_index(select(Job.created_at), wanted, Range(), newest_first=False)
    return session.scalars(oldest.limit(1)).first()


def range_of(session: Session, wanted: JobFilter, now: Now) -> Range:
    """The range of ids that can fit the filter's times, with the exact condition on `created_at`.

    A job was enqueued before it was started and before it ended. Postgres finds the ids in the round trip of
    the statements that follow.
    """
    created = [] if wanted.created is None else [Condition("created", wanted.created)]
    alone = (clause[0] for clause in wanted.further if len(clause) == 1)
    later = (one for one in alone if one.name in ("created", "started", "ended"))
    times = (*created, *(one for one in later if not one.is_not))
    lows = [one.value.since for one in times if one.name == "created" and one.value.since]
    highs = [one.value.until for one in times if one.value.until and not one.value.until.is_to_come]
    exact = Terms(wanted, now)
    return Range(
        _keep_id_at(session, lows, now, wanted.tzinfo) if lows else None,
        _keep_id_at(session, highs, now, wanted.tzinfo, is_end=True) if highs else None,
        tuple(exact.find(one) for one in created),
    )


def _keep_id_at(
    session: Session, points: Sequence[TimePoint], now: Now, zone: tzinfo, *, is_end: bool = False
) -> ColumnElement[int]:
    """Let Postgres find the first id that can be of these times or, as an end, the first after them.

    Returns what statements compare with.
    """
    moments: list[datetime | None] = []
    spans: list[timedelta | None] = []
    margin = _CLOCKS_DIFFER if is_end else -_CLOCKS_DIFFER
    for point in points:
        if point.span is None or isinstance(now, datetime):
            find = point.find_end if is_end else point.find_begin
            moments.append(find(now, zone) + margin)
            spans.append(None)
        else:
            moments.append(None)
            spans.append(point.span + margin)
    first_id = KeptValue(session, LARGEST_ID if is_end else 0)
    params = {"setting": first_id.setting, "is_end": is_end, "moments": moments, "spans": spans}
    statement = sql.load("keep_id_at")
    start_reading(session, lambda session: session.connection().exec_driver_sql(statement, params))
    return first_id.read()


def find_job(session: Session, job_id: int) -> JobInFull | None:
    """The job with this id, or None."""
    columns = [getattr(Job, name) for name in list(JobInFull.__annotations__)[:-3]]
    texts = (Job.unique_key.is_not(None), cast(Job.args, Text), cast(Job.meta, Text))
    wanted: Any = select(*columns, *texts).where(Job.id == job_id)
    row = session.execute(wanted).one_or_none()
    return None if row is None else JobInFull(*row)


def holder_of(job_id: int) -> ScalarSelect[int | None]:
    """What finds the id of the worker that runs the job, or has taken it."""
    holder = case((Job.state == "started", Job.worker_id), else_=Job.reserved_by)
    return select(holder).where(Job.id == job_id).scalar_subquery()


def has_newer_job(session: Session, job_id: int) -> bool:
    """Whether a job with a greater id is stored: then this id was given out once."""
    newer = select(Job.id).where(Job.id > job_id).order_by(Job.id.desc()).limit(1)
    return session.scalars(newer).first() is not None


def list_attempts(session: Session, job_id: int) -> Sequence[AttemptRow]:
    """The job's last 50 attempts, the last first, without their logs and tracebacks."""
    columns: tuple[Any, ...] = (
        Attempt.dispatch_no,
        Attempt.attempt,
        Attempt.worker_id,
        Attempt.worker,
        Attempt.pid,
        Attempt.started_at,
        Attempt.ended_at,
        Attempt.outcome,
        Attempt.error,
        Attempt.cause_of_death,
        Attempt.death,
        Attempt.death_facts,
        Attempt.max_rss_kb,
        Attempt.progress_done,
        Attempt.progress_total,
        Attempt.progress_note,
        Attempt.execution_id,
        Attempt.log_tail.is_not(None),
    )
    mine = select(*columns).where(Attempt.job_id == job_id)
    rows = session.execute(mine.order_by(Attempt.dispatch_no.desc()).limit(_ATTEMPTS))
    return [AttemptRow(*row) for row in rows]


def find_traceback(session: Session, job_id: int, dispatch_no: int) -> str | None:
    """The traceback of the attempt; None when it has none, or there is no such attempt."""
    return session.scalars(_of_attempt(Attempt.traceback, job_id, dispatch_no)).one_or_none()


def find_log(session: Session, job_id: int, dispatch_no: int) -> str | None:
    """The last lines that the attempt logged; None when none are stored, or there is no such attempt."""
    return session.scalars(_of_attempt(Attempt.log_tail, job_id, dispatch_no)).one_or_none()


def _of_attempt(column: Any, job_id: int, dispatch_no: int) -> Any:
    return select(column).where(Attempt.job_id == job_id, Attempt.dispatch_no == dispatch_no)


def find_output(session: Session, job_id: int) -> OutputRow | None:
    """The value that the job returned; None when it was not recorded, or is deleted already."""
    columns = (cast(Output.value, Text), Output.size_bytes, Output.omitted)
    row = session.execute(select(*columns).where(Output.job_id == job_id)).one_or_none()
    return None if row is None else OutputRow(*row)


_MOST = 20


def find_relations(session: Session, job: JobInFull) -> Relations:
    """The job it was run again from, at most 20 it was run again as, and the holder of its unique lock."""
    origin = select(Job.state).where(Job.id == job.run_again_from)
    # Sorted below: with an ORDER BY the planner might scan all jobs in that order. There are few copies.
    again = select(Job.id, Job.state).where(Job.run_again_from == job.id).limit(_MOST)
    before = start_reading(session, Session.scalars, origin) if job.run_again_from else None
    lock = start_reading(session, _find_unique_lock, job.id) if job.is_unique else None
    copies: list[tuple[int, str]] = [(row[0], row[1]) for row in session.execute(again)]
    return Relations(
        before.value.one_or_none() if before else None,
        sorted(copies, reverse=True),
        lock.value if lock else None,
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

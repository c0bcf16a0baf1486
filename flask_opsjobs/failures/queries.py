"""Reads failures for pages: a list, one with its sample, its trend, its deploys and its jobs, and deaths.

Every query walks one index and stops early, as those of `jobs/queries.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import MAXYEAR, MINYEAR, UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    LargeBinary,
    Select,
    Text,
    and_,
    case,
    cast,
    func,
    literal,
    select,
    tuple_,
)
from sqlalchemy.orm import Session

from ..core import sql
from ..core.db import LARGEST_ID
from ..core.round_trips import start_reading, values_of
from ..jobs.models import Attempt, Job
from ..jobs.rows import Count
from ..jobs.search.filter import JobFilter
from ..jobs.search.index_scan import Range, scan_index
from .deploys import Marker
from .lifecycle import STATES
from .models import Deploy, Failure, FailureDeploy, FailureHour, FailureMinute, TaskDeath, TaskEnd

MOST_FAILURES = 50
MOST_OTHERS = 10
# The jobs of a failure are read from so many of its newest attempts.
MOST_ATTEMPTS = 200
MOST_JOBS = 100
# The jobs that finished are looked for among so many of the task.
MOST_LOOKED_AT = 500
# Longer arguments are not compared.
_LONGEST_ARGS = 8_192
MOST_DEPLOYS = 8
# The deploys of a month are looked for among so many newest ones.
_NEWEST_DEPLOYS = 100
_MOST_COUNTED = 1_000
_ALL_TIMES = (datetime(MINYEAR, 1, 2, tzinfo=UTC), datetime(MAXYEAR, 12, 30, tzinfo=UTC))
QUARTER = timedelta(minutes=15)
DAY = timedelta(days=1)
MONTH = timedelta(days=30)


@dataclass(frozen=True)
class FailureRow:
    """A failure as it is stored."""

    id: int
    key: bytes
    task: str
    type: str | None
    title: str
    raised_in: str | None
    sample_job_id: int
    sample_dispatch_no: int
    created_at: datetime
    number: int
    jobs: int
    first_at: datetime
    last_at: datetime
    first_deploy: int | None
    last_deploy: int | None
    state: str
    decided_at: datetime | None
    decided_by: str | None
    decided_reason: str | None
    resolved_in: int | None
    resolved_after: int | None
    ignored_until: datetime | None
    ignored_until_number: int | None
    ignored_rate: int | None
    regressed_at: datetime | None
    regressed_in: int | None

    @property
    def deploys(self) -> set[int]:
        """The ids of all deploys that it names."""
        named = (self.first_deploy, self.last_deploy, self.resolved_in, self.regressed_in)
        return {deploy for deploy in named if deploy}

    @property
    def is_regressed(self) -> bool:
        """Whether it is open because it failed again after it was resolved."""
        return self.state == "open" and self.regressed_at is not None


@dataclass(frozen=True)
class FailurePage:
    """A page of failures. `older` is where the next page begins; None at the end."""

    rows: Sequence[FailureRow]
    older: tuple[datetime, int] | None


@dataclass(frozen=True)
class SampleRow:
    """An attempt that failed so, with its error. `older_job` is the next older job that has one."""

    job_id: int
    dispatch_no: int
    number: int
    max_attempts: int
    ended_at: datetime | None
    error: str | None
    traceback: str | None
    death: str | None
    death_facts: Mapping[str, Any] | None
    max_rss_kb: int | None
    older_job: int | None = None


@dataclass(frozen=True)
class FailedJob:
    """A job of which an attempt failed so: its newest such attempt.

    `args` is a JSON text; None when it is too long to be compared.
    """

    id: int
    state: str
    origin: str
    number: int
    failed_at: datetime | None
    max_attempts: int
    args: str | None


@dataclass(frozen=True)
class DeployRow:
    """A deploy, and how many attempts failed so on its workers.

    `finished` is how many jobs of the task finished at least, until the next deploy; None when that was too
    long ago to be known.
    """

    id: int
    version: str
    at: datetime
    failed: int
    finished: int | None
    is_newest: bool


@dataclass(frozen=True)
class AttemptThatFailed:
    """An attempt that failed so."""

    job_id: int
    dispatch_no: int
    number: int
    worker: str
    started_at: datetime
    ended_at: datetime
    outcome: str
    cause_of_death: str | None


@dataclass(frozen=True)
class FailureInDeploy:
    """A failure, how many attempts failed so on the workers of a deploy, and when the first and the last."""

    failure: FailureRow
    number: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True)
class DeployMark:
    """A deploy as a chart marks it."""

    id: int
    version: str
    at: datetime


@dataclass(frozen=True)
class DeathRow:
    """How often attempts of a task died of one cause, the most memory that one used, and its limit."""

    death: str
    number: int
    peak_kb: int | None
    limit_kb: int | None
    last_day: datetime


@dataclass(frozen=True)
class Ends:
    """How many jobs of a task ended in a quarter of an hour."""

    finished: int
    failed: int


_ROW: tuple[Any, ...] = tuple(getattr(Failure, each.name) for each in fields(FailureRow))
_MARKER: tuple[Any, ...] = tuple(getattr(Deploy, each.name) for each in fields(Marker))


def page_of_failures(
    session: Session,
    state: str,
    *,
    task: str | None = None,
    older_than: tuple[datetime, int] | None = None,
    limit: int = MOST_FAILURES,
) -> FailurePage:
    """The failures of a state, those that failed last first; of one task those that are new first.

    `older_than` is the `older` of the page before.
    """
    lead, value, at = (
        (Failure.state, state, Failure.last_at)
        if task is None
        else (Failure.task, task, Failure.created_at)
    )
    newest = _newest_of(select(*_ROW), lead, value, at, older_than)
    if task is not None:
        newest = newest.where(Failure.state == state)
    newest = newest.order_by(Failure.id.desc()).limit(limit + 1)
    rows = [FailureRow(*row) for row in session.execute(newest)]
    has_more = len(rows) > limit
    rows = rows[:limit]
    last = rows[-1] if has_more else None
    older = None if last is None else (last.last_at if task is None else last.created_at, last.id)
    return FailurePage(rows, older)


def _newest_of(
    chosen: Any, lead: Any, value: str, at: Any, older_than: tuple[datetime, int] | None = None
) -> Any:
    """Walks the index of `lead` and `at` from its newest row of a value down.

    The value is a range of one value, as in `scan_index`: else the planner might walk another index for the
    order, past all other rows.
    """
    until = _ALL_TIMES[1] if older_than is None else older_than[0]
    low, high = (
        tuple_(literal(value, Text), literal(bound, at.type)) for bound in (_ALL_TIMES[0], until)
    )
    chosen = chosen.where(tuple_(lead, at) >= low, tuple_(lead, at) <= high)
    if older_than is not None:
        chosen = chosen.where(tuple_(at, Failure.id) < tuple_(*older_than))
    return chosen.order_by(lead.desc(), at.desc())


def count_failures_by_state(session: Session) -> Mapping[str, Count]:
    """How many failures each state has, each number up to a limit."""
    counts = {
        state: start_reading(session, _count, select(Failure.id).where(Failure.state == state))
        for state in STATES
    }
    return values_of(counts)


def _count(session: Session, chosen: Select[Any]) -> Count:
    some = chosen.limit(_MOST_COUNTED + 1).subquery()
    number = session.execute(select(func.count()).select_from(some)).scalar_one()
    return Count(min(number, _MOST_COUNTED), "at_least" if number > _MOST_COUNTED else "exact")


def find_failure(session: Session, failure_id: int) -> FailureRow | None:
    """The failure with this id; None when there is none, or no more."""
    row = session.execute(select(*_ROW).where(Failure.id == failure_id)).one_or_none()
    return None if row is None else FailureRow(*row)


def list_failures_of_job(session: Session, job_id: int) -> Sequence[FailureRow]:
    """The failures as which attempts of the job were counted, those that failed last first, at most 10."""
    newest = (
        select(Attempt.failure_key)
        .where(Attempt.job_id == job_id)
        .order_by(Attempt.dispatch_no.desc())
        .limit(MOST_FAILURES)
        .subquery()
    )
    mine = select(*_ROW).where(Failure.key.in_(select(newest.c.failure_key)))
    rows = session.execute(mine.order_by(Failure.last_at.desc()).limit(MOST_OTHERS))
    return [FailureRow(*row) for row in rows]


def list_other_failures(session: Session, failure: FailureRow) -> Sequence[FailureRow]:
    """The newest other failures of the same task, at most 10."""
    newest = _newest_of(select(*_ROW), Failure.task, failure.task, Failure.created_at)
    rows = [FailureRow(*row) for row in session.execute(newest.limit(MOST_OTHERS + 1))]
    return [row for row in rows if row.id != failure.id][:MOST_OTHERS]


# --- its attempts and jobs


def _attempts_of(key: bytes, before: int) -> tuple[list[ColumnElement[bool]], list[Any]]:
    """The conditions and the order that walk `attempts_by_failure` from the job below `before` down.

    The key is a range of one value, as in `scan_index`: else the planner might walk the primary key.
    """
    columns = tuple_(Attempt.failure_key, Attempt.job_id)
    low, high = (
        tuple_(literal(key, LargeBinary), literal(bound, BigInteger)) for bound in (0, before)
    )
    within = [Attempt.failure_key.is_not(None), columns >= low, columns < high]
    return within, [Attempt.failure_key.desc(), Attempt.job_id.desc()]


def find_sample(
    session: Session, failure: FailureRow, job_id: int | None = None
) -> SampleRow | None:
    """The newest attempt that failed so, of this job or an older one; None when all were removed."""
    high = LARGEST_ID if job_id is None else job_id + 1
    within, order = _attempts_of(failure.key, high)
    columns: tuple[Any, ...] = (
        Attempt.job_id,
        Attempt.dispatch_no,
        Attempt.attempt,
        Job.max_attempts,
        Attempt.ended_at,
        Attempt.error,
        Attempt.traceback,
        Attempt.death,
        Attempt.death_facts,
        Attempt.max_rss_kb,
    )
    newest = select(*columns).join(Job, Job.id == Attempt.job_id).where(*within)
    row = session.execute(newest.order_by(*order).limit(1)).one_or_none()
    if row is None:
        return None
    within, order = _attempts_of(failure.key, row.job_id)
    older = select(Attempt.job_id).where(*within).order_by(*order).limit(1)
    return replace(SampleRow(*row), older_job=session.scalars(older).first())


def list_failed_attempts(
    session: Session, failure: FailureRow, limit: int, *, is_oldest_first: bool = False
) -> Sequence[AttemptThatFailed]:
    """The attempts that failed so, of the newest jobs or of the oldest ones."""
    within, newest_first = _attempts_of(failure.key, LARGEST_ID)
    oldest_first = [Attempt.failure_key, Attempt.job_id]
    order = oldest_first if is_oldest_first else newest_first
    columns = [
        getattr(Attempt, name) for name in AttemptThatFailed.__annotations__ if name != "number"
    ]
    columns.insert(2, Attempt.attempt)
    rows = session.execute(select(*columns).where(*within).order_by(*order).limit(limit))
    return [AttemptThatFailed(*row) for row in rows]


def list_failed_jobs(session: Session, failure: FailureRow) -> Sequence[FailedJob]:
    """The newest jobs of which an attempt failed so, at most 100."""
    within, order = _attempts_of(failure.key, LARGEST_ID)
    newest = select(Attempt.job_id, Attempt.attempt, Attempt.ended_at).where(*within)
    attempts = newest.order_by(*order).limit(MOST_ATTEMPTS).subquery().c
    last = (
        select(attempts.job_id, func.max(attempts.attempt), func.max(attempts.ended_at))
        .group_by(attempts.job_id)
        .order_by(attempts.job_id.desc())
        .limit(MOST_JOBS)
        .subquery()
    )
    job_id, number, ended_at = last.c
    columns = (Job.id, Job.state, Job.origin, number, ended_at, Job.max_attempts, _args())
    chosen = select(*columns).join(Job, Job.id == job_id).order_by(Job.id.desc())
    return [FailedJob(*row) for row in session.execute(chosen)]


def _args() -> ColumnElement[str | None]:
    return case((func.pg_column_size(Job.args) <= _LONGEST_ARGS, cast(Job.args, Text)))


def list_finished_args(session: Session, failure: FailureRow, before: int) -> Sequence[str | None]:
    """The arguments of jobs of the same task that finished at once, at most 100, since the failure began.

    They are looked for among the newest 500 jobs of the task with ids up to `before`.
    """
    columns = (Job.state, Job.attempt, Job.ended_at, Job.args)
    newest = scan_index(
        select(*columns), JobFilter(task=failure.task), Range().narrowed(before + 1, None)
    )
    seen = newest.limit(MOST_LOOKED_AT).subquery().c
    args = case((func.pg_column_size(seen.args) <= _LONGEST_ARGS, cast(seen.args, Text)))
    finished = select(args).where(
        seen.state == "finished", seen.attempt == 1, seen.ended_at >= failure.first_at
    )
    return list(session.scalars(finished.limit(MOST_JOBS)))


# --- its trend and its deploys


def count_quarters(
    session: Session, failure: FailureRow, since: datetime
) -> Mapping[datetime, int]:
    """How many attempts failed so in each quarter of an hour since then."""
    minutes = select(FailureMinute.minute, FailureMinute.number).where(
        FailureMinute.failure_id == failure.id, FailureMinute.minute >= since
    )
    found: Counter[datetime] = Counter()
    for minute, number in session.execute(minutes):
        found[floor(minute, QUARTER)] += number
    return found


def count_days(session: Session, failure: FailureRow, since: datetime) -> Mapping[datetime, int]:
    """How many attempts failed so on each day of UTC since then."""
    hours = select(FailureHour.hour, FailureHour.number).where(
        FailureHour.failure_id == failure.id, FailureHour.hour >= since
    )
    found: Counter[datetime] = Counter()
    for hour, number in session.execute(hours):
        found[floor(hour, DAY)] += number
    return found


def list_ends(session: Session, task: str, since: datetime) -> Mapping[datetime, Ends]:
    """How many managed jobs of the task ended in each quarter of an hour since then."""
    quarters = select(TaskEnd.quarter, TaskEnd.finished, TaskEnd.failed).where(
        TaskEnd.task == task, TaskEnd.quarter >= since
    )
    rows = session.execute(quarters)
    return {quarter.astimezone(UTC): Ends(finished, failed) for quarter, finished, failed in rows}


def list_marks(session: Session, since: datetime) -> Sequence[DeployMark]:
    """The deploys since then, the newest first, found among the newest 100."""
    newest = select(Deploy.id, Deploy.version, Deploy.at).order_by(Deploy.id.desc())
    rows = session.execute(newest.limit(_NEWEST_DEPLOYS))
    return [mark for row in rows if (mark := DeployMark(*row)).at >= since]


def list_recent_versions(session: Session) -> Sequence[str]:
    """The versions of the newest deploys, the newest first, each once."""
    newest = select(Deploy.version).order_by(Deploy.id.desc()).limit(_NEWEST_DEPLOYS)
    return list(dict.fromkeys(session.scalars(newest)))


def find_versions(session: Session, ids: Collection[int]) -> Mapping[int, str]:
    """The versions of deploys by their ids."""
    if not ids:
        return {}
    rows = session.execute(select(Deploy.id, Deploy.version).where(Deploy.id.in_(ids)))
    return dict(iter(rows.all()))


def list_deploys(session: Session, failure: FailureRow, since: datetime) -> Sequence[DeployRow]:
    """The newest deploys, the newest first: from the one before it first failed, at most 8.

    How many jobs finished is counted for those since `since`.
    """
    params = {
        "failure_id": failure.id,
        "task": failure.task,
        "since": since,
        "most": MOST_DEPLOYS,
    }
    found = session.connection().exec_driver_sql(sql.load("list_deploys_of_failure"), params)
    rows = [DeployRow(*row) for row in found]
    first = failure.first_deploy or 0
    before = next((at for at, row in enumerate(rows) if row.id < first), len(rows))
    return rows[: before + 1]


def find_deploy(session: Session, deploy_id: int) -> Marker | None:
    """The deploy with this id; None when there is none, or no more."""
    row = session.execute(select(*_MARKER).where(Deploy.id == deploy_id)).one_or_none()
    return None if row is None else Marker(*row)


def find_deploy_after(session: Session, deploy_id: int) -> Marker | None:
    """The deploy that was marked next; None when there is none."""
    next_one = select(*_MARKER).where(Deploy.id > deploy_id).order_by(Deploy.id).limit(1)
    row = session.execute(next_one).one_or_none()
    return None if row is None else Marker(*row)


def list_failures_in(
    session: Session, deploy: Marker, examined: int
) -> tuple[Sequence[FailureInDeploy], bool]:
    """The failures of which an attempt failed on workers of this deploy, those that failed last first.

    They are looked for among so many failures that happened last, since the deploy; the second value says
    whether there are more of these.
    """
    counted = (FailureDeploy.number, FailureDeploy.first_at, FailureDeploy.last_at)
    in_it = and_(FailureDeploy.failure_id == Failure.id, FailureDeploy.deploy_id == deploy.id)
    newest = (
        select(*counted, *_ROW)
        .outerjoin(FailureDeploy, in_it)
        .where(Failure.last_at >= deploy.at)
        .order_by(Failure.last_at.desc())
        .limit(examined + 1)
    )
    rows = session.execute(newest).all()
    found = [FailureInDeploy(FailureRow(*row[3:]), *row[:3]) for row in rows if row[0] is not None]
    return found, len(rows) > examined


def list_deaths(session: Session, task: str, since: datetime) -> Sequence[DeathRow]:
    """How attempts of a task died since then, the most frequent cause first."""
    days = (
        select(
            TaskDeath.death,
            cast(func.sum(TaskDeath.number), BigInteger),
            func.max(TaskDeath.peak_kb),
            func.max(TaskDeath.limit_kb),
            func.max(TaskDeath.day),
        )
        .where(TaskDeath.task == task, TaskDeath.day >= since)
        .group_by(TaskDeath.death)
    )
    rows = [DeathRow(*row) for row in session.execute(days)]
    return sorted((row for row in rows if row.number > 0), key=lambda row: -row.number)


def floor(moment: datetime, step: timedelta) -> datetime:
    """The begin of the step in which the moment lies, in UTC."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return epoch + (moment - epoch) // step * step

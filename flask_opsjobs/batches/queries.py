"""Reads batches for pages: a list, one batch, its members, failures and callbacks.

Counts come from the table of counted ends. Only running members are counted by their rows, up to a bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, Text, case, cast, func, literal, select, tuple_, union_all
from sqlalchemy.orm import Session

from ..core import sql
from ..core.db import LARGEST_ID
from ..core.round_trips import start_reading
from ..core.words import without_variables
from ..jobs.lifecycle import FINAL as FINAL_OF_JOB
from ..jobs.lifecycle import UNSUCCESSFUL
from ..jobs.models import Callback, Job
from ..jobs.rows import Count
from .lifecycle import FINAL
from .models import BatchEnds, BatchRecord

# The most rows on a page of the list, on a page of members, and in the list of other batches.
MOST_BATCHES = 50
MOST_MEMBERS = 25
MOST_OTHERS = 5
# Running members are counted up to MOST_RUNNING. The MOST_FAILURES newest failed ones are grouped by error,
# and the MOST_GROUPS largest groups are shown.
MOST_RUNNING = 1_000
MOST_FAILURES = 1_000
MOST_GROUPS = 6
# The states of members in the order in which they interest an operator.
MEMBER_STATES = (
    "failed",
    "started",
    "retryable",
    "queued",
    "available",
    "scheduled",
    "deferred",
    "canceled",
    "finished",
)


_NEWEST = 500


@dataclass(frozen=True)
class BatchRow:
    """A batch with its counted ends by state. The counts may be a second old."""

    id: int
    name: str
    state: str
    enqueued: int
    created_at: datetime
    closed_at: datetime | None
    ended_at: datetime | None
    end_no: int
    lost: int
    first_failed_at: datetime | None
    on_end: Mapping[str, Any] | None
    on_failure: Mapping[str, Any] | None
    meta: Mapping[str, Any]
    cancel_requested_at: datetime | None
    cancel_requested_by: str | None
    cancel_reason: str | None
    trouble: str | None
    ends: Mapping[str, int]

    @property
    def ended(self) -> int:
        """How many members have ended."""
        return sum(self.ends.values())

    @property
    def left(self) -> int:
        """How many members have not ended, those that were lost not counted."""
        return max(0, self.enqueued - self.ended - self.lost)

    @property
    def is_final(self) -> bool:
        """Whether the batch has ended."""
        return self.state in FINAL


@dataclass(frozen=True)
class MemberRow:
    """A member of a batch. `args` is JSON text; None when it is too long for a table."""

    id: int
    state: str
    task: str
    args: str | None
    attempt: int
    max_attempts: int
    error: str | None
    ended_at: datetime | None


@dataclass(frozen=True)
class FailureKind:
    """Failed members whose errors differ in numbers and quoted texts only; `error` is the newest one's."""

    error: str | None
    ended_by: str
    job_id: int
    number: int


@dataclass(frozen=True)
class FailureKinds:
    """The largest groups of failures among the `examined` newest failed members."""

    groups: Sequence[FailureKind]
    examined: int


@dataclass(frozen=True)
class CallbackOfBatch:
    """A job that reports about a batch. `state` is None when the job was deleted."""

    event: str
    end_no: int
    job_id: int
    task: str | None
    state: str | None
    created_at: datetime | None
    error: str | None

    @property
    def has_failed(self) -> bool:
        """Whether it failed or was canceled: the application was not told, and nothing tries again."""
        return self.state in UNSUCCESSFUL


_LONGEST_ARGS = 2_000
_ARGS = cast(Job.args, Text)
_MEMBER: tuple[Any, ...] = (
    Job.id,
    Job.state,
    Job.task,
    case((func.length(_ARGS) <= _LONGEST_ARGS, _ARGS)),
    Job.attempt,
    Job.max_attempts,
    Job.error,
    Job.ended_at,
)


_CALLBACK: tuple[Any, ...] = (
    Callback.event,
    Callback.end_no,
    Callback.job_id,
    Job.task,
    Job.state,
    Job.created_at,
    Job.error,
)
_ERROR_LENGTH = 300
_MOST_CALLBACKS = 500


def page_of_batches(
    session: Session,
    *,
    state: str | None = None,
    before: int | None = None,
    limit: int = MOST_BATCHES,
) -> tuple[Sequence[BatchRow], bool]:
    """The newest batches, in a state or in any, and whether there are older ones."""
    wanted = select(BatchRecord).order_by(BatchRecord.id.desc()).limit(limit + 1)
    if state is not None:
        wanted = wanted.where(BatchRecord.state == state)
    if before is not None:
        wanted = wanted.where(BatchRecord.id < before)
    records = session.scalars(wanted).all()
    return _rows(session, records[:limit]), len(records) > limit


def list_other_batches(session: Session, id: int) -> Sequence[BatchRow]:
    """The newest few batches except this one."""
    wanted = select(BatchRecord).where(BatchRecord.id != id)
    return _rows(
        session, session.scalars(wanted.order_by(BatchRecord.id.desc()).limit(MOST_OTHERS)).all()
    )


def find_batch(session: Session, id: int) -> BatchRow | None:
    """One batch; None when there is none with this id."""
    ends = start_reading(session, _count_ends, [id])
    record = session.get(BatchRecord, id)
    return None if record is None else _row(record, ends.value)


def list_members(
    session: Session, id: int, *, state: str | None = None, before: int | None = None
) -> tuple[Sequence[MemberRow], bool]:
    """The newest members in a state, and whether there are older ones. Without a state, the failed first."""
    most = MOST_MEMBERS + 1
    of_states = (
        select(
            _in_state((Job.id, literal(place).label("place")), id, one, before)
            .limit(most)
            .subquery()
        )
        for place, one in enumerate(MEMBER_STATES if state is None else (state,))
    )
    every = union_all(*of_states).subquery()
    # Only so many rows of jobs are read: the ids are in the index.
    newest = select(every).order_by(every.c.place, every.c.id.desc()).limit(most).subquery()
    wanted = select(*_MEMBER).join(newest, newest.c.id == Job.id)
    rows = session.execute(wanted.order_by(newest.c.place, newest.c.id.desc()))
    found = [MemberRow(*row) for row in rows]
    return found[:MOST_MEMBERS], len(found) > MOST_MEMBERS


def list_newest_members(session: Session, id: int, state: str, limit: int) -> Sequence[MemberRow]:
    """The newest members in a state."""
    wanted = _in_state(_MEMBER, id, state).limit(limit)
    return [MemberRow(*row) for row in session.execute(wanted)]


def count_running_members(session: Session, id: int) -> Count:
    """How many members are being run now, counted up to 1,000."""
    rows = _in_state((Job.id,), id, "started").limit(MOST_RUNNING + 1).subquery()
    number = session.scalar(select(func.count()).select_from(rows)) or 0
    return Count(MOST_RUNNING, "at_least") if number > MOST_RUNNING else Count(number)


def list_oldest_open_members(session: Session, id: int, columns: Sequence[Any]) -> Sequence[Any]:
    """These columns of the oldest member in each state that is not final."""
    states = [state for state in MEMBER_STATES if state not in FINAL_OF_JOB]
    firsts = (_in_state(columns, id, one, is_oldest_first=True).limit(1) for one in states)
    return session.execute(union_all(*(select(first.subquery()) for first in firsts))).all()


def find_last_added(session: Session, id: int) -> datetime | None:
    """When the newest member was added; None when there is none."""
    firsts = (_in_state((Job.id, Job.created_at), id, one).limit(1) for one in MEMBER_STATES)
    newest = union_all(*(select(first.subquery()) for first in firsts)).subquery()
    found: datetime | None = session.scalar(
        select(newest.c.created_at).order_by(newest.c.id.desc()).limit(1)
    )
    return found


def group_failures(session: Session, id: int) -> FailureKinds:
    """The newest failed members, grouped by how they ended and by their error without its variable parts."""
    error = func.left(func.split_part(Job.error, "\n", 1), _ERROR_LENGTH)
    wanted = _in_state((Job.id, Job.ended_by, error), id, "failed").limit(MOST_FAILURES)
    numbers = Counter[tuple[str, str]]()
    newest: dict[tuple[str, str], tuple[str | None, str, int]] = {}
    for job_id, ended_by, text in session.execute(wanted):
        key = (ended_by, without_variables(text or ""))
        numbers[key] += 1
        newest.setdefault(key, (text, ended_by, job_id))
    groups = [FailureKind(*newest[key], number) for key, number in numbers.most_common(MOST_GROUPS)]
    return FailureKinds(groups, numbers.total())


def list_callbacks_of_batch(session: Session, id: int) -> Sequence[CallbackOfBatch]:
    """The jobs that report about a batch, the newest first, at most 20."""
    wanted = (
        select(*_CALLBACK)
        .outerjoin(Job, Job.id == Callback.job_id)
        .where(Callback.of == "batch", Callback.of_id == id)
        .order_by(Callback.end_no.desc(), Callback.event)
        .limit(20)
    )
    return [CallbackOfBatch(*row) for row in session.execute(wanted)]


def find_batches_with_failed_callback(session: Session, ids: Collection[int]) -> Collection[int]:
    """Those of these batches of which one of the newest callbacks failed or was canceled."""
    wanted = (
        select(Callback.of_id, Job.state)
        # An outer join begins with the few callbacks, not with all jobs that failed.
        .outerjoin(Job, Job.id == Callback.job_id)
        .where(Callback.of == "batch", Callback.of_id.in_(ids))
        .order_by(Callback.of_id.desc(), Callback.end_no.desc())
        .limit(_MOST_CALLBACKS)
    )
    return {id for id, state in session.execute(wanted) if state in UNSUCCESSFUL}


def find_batches_with_running_member(session: Session, ids: Collection[int]) -> Collection[int]:
    """Those of these batches of which a member is being run now."""
    statement = sql.load("list_batches_with_running_member")
    return {id for (id,) in session.connection().exec_driver_sql(statement, {"ids": list(ids)})}


def _in_state(
    columns: Sequence[Any],
    id: int,
    state: str,
    before: int | None = None,
    *,
    is_oldest_first: bool = False,
) -> Select[Any]:
    """The members in a state, the newest first.

    Both the bounds and the order name the whole key, so that Postgres uses this index: no other one has
    the rows in this order.
    """
    key = (Job.batch_id, Job.state, Job.id)
    newest = LARGEST_ID if before is None else before - 1
    return (
        select(*columns)
        .where(tuple_(*key) >= tuple_(id, state, 0), tuple_(*key) <= tuple_(id, state, newest))
        # The index holds only members. This tells Postgres that batch_id is not null.
        .where(Job.batch_id.between(id, id))
        .order_by(*(column.asc() if is_oldest_first else column.desc() for column in key))
    )


def _count_ends(session: Session, ids: Sequence[int]) -> Mapping[tuple[int, str], int]:
    """How many members of these batches have ended, by the batch and the state."""
    wanted = (
        select(BatchEnds.batch_id, BatchEnds.state, func.sum(BatchEnds.number))
        .where(BatchEnds.batch_id.in_(ids))
        .group_by(BatchEnds.batch_id, BatchEnds.state)
    )
    return {(id, state): int(number) for id, state, number in session.execute(wanted)}


def _rows(session: Session, records: Sequence[BatchRecord]) -> Sequence[BatchRow]:
    ends = _count_ends(session, [record.id for record in records])
    return [_row(record, ends) for record in records]


def _row(record: BatchRecord, ends: Mapping[tuple[int, str], int]) -> BatchRow:
    columns = [name for name in BatchRow.__dataclass_fields__ if name != "ends"]
    return BatchRow(
        **{name: getattr(record, name) for name in columns},
        ends={state: ends.get((record.id, state), 0) for state in FINAL_OF_JOB},
    )


def list_recent_batches(session: Session) -> set[str]:
    """The names of the newest 500 batches."""
    newest = select(BatchRecord.name).order_by(BatchRecord.id.desc()).limit(_NEWEST)
    return set(session.scalars(newest))

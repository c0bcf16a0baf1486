"""Reads batches for pages: a list, one batch, its members and its callbacks. Counts are the kept numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from ..core.db import LARGEST_ID
from ..jobs.lifecycle import FINAL as FINAL_OF_JOB
from ..jobs.models import Callback, Job
from .lifecycle import FINAL
from .models import BatchEnds, BatchRecord

# Of a page of the list, and of a page of members.
MOST_BATCHES = 50
MOST_MEMBERS = 25
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
    """A member of a batch."""

    id: int
    state: str
    task: str
    attempt: int
    max_attempts: int
    error: str | None
    ended_at: datetime | None


@dataclass(frozen=True)
class CallbackOfBatch:
    """A job that reports about a batch. `state` is None when the job was deleted."""

    event: str
    end_no: int
    job_id: int
    task: str | None
    state: str | None


_MEMBER: tuple[Any, ...] = (
    Job.id,
    Job.state,
    Job.task,
    Job.attempt,
    Job.max_attempts,
    Job.error,
    Job.ended_at,
)


def page_of_batches(
    session: Session, *, state: str | None = None, before: int | None = None
) -> tuple[Sequence[BatchRow], bool]:
    """The newest batches, in a state or in any, and whether there are older ones."""
    wanted = select(BatchRecord).order_by(BatchRecord.id.desc()).limit(MOST_BATCHES + 1)
    if state is not None:
        wanted = wanted.where(BatchRecord.state == state)
    if before is not None:
        wanted = wanted.where(BatchRecord.id < before)
    records = session.scalars(wanted).all()
    return _rows(session, records[:MOST_BATCHES]), len(records) > MOST_BATCHES


def find_batch(session: Session, id: int) -> BatchRow | None:
    """One batch; None when there is none with this id."""
    record = session.get(BatchRecord, id)
    return None if record is None else _rows(session, [record])[0]


def list_members(
    session: Session, id: int, *, state: str | None = None, before: int | None = None
) -> tuple[Sequence[MemberRow], bool]:
    """The newest members in a state and whether there are older ones; of all states, the failed first."""
    found: list[MemberRow] = []
    # Bounds of the whole key and its whole order: so that no other index has these rows in their order.
    key = (Job.batch_id, Job.state, Job.id)
    newest = LARGEST_ID if before is None else before - 1
    for one in MEMBER_STATES if state is None else (state,):
        wanted = (
            select(*_MEMBER)
            .where(tuple_(*key) >= tuple_(id, one, 0), tuple_(*key) <= tuple_(id, one, newest))
            .where(
                Job.batch_id.between(id, id)
            )  # which says that it is not null, as the index does
            .order_by(*(column.desc() for column in key))
            .limit(MOST_MEMBERS + 1 - len(found))
        )
        found += [MemberRow(*row) for row in session.execute(wanted)]
        if len(found) > MOST_MEMBERS:
            break
    return found[:MOST_MEMBERS], len(found) > MOST_MEMBERS


def list_callbacks_of_batch(session: Session, id: int) -> Sequence[CallbackOfBatch]:
    """The jobs that report about a batch, the newest first, at most 20."""
    wanted = (
        select(Callback.event, Callback.end_no, Callback.job_id, Job.task, Job.state)
        .outerjoin(Job, Job.id == Callback.job_id)
        .where(Callback.of == "batch", Callback.of_id == id)
        .order_by(Callback.end_no.desc(), Callback.event)
        .limit(20)
    )
    return [CallbackOfBatch(*row) for row in session.execute(wanted)]


def _rows(session: Session, records: Sequence[BatchRecord]) -> Sequence[BatchRow]:
    wanted = (
        select(BatchEnds.batch_id, BatchEnds.state, func.sum(BatchEnds.number))
        .where(BatchEnds.batch_id.in_([record.id for record in records]))
        .group_by(BatchEnds.batch_id, BatchEnds.state)
    )
    counted = {(id, state): int(number) for id, state, number in session.execute(wanted)}
    columns = [name for name in BatchRow.__dataclass_fields__ if name != "ends"]
    return [
        BatchRow(
            **{name: getattr(record, name) for name in columns},
            ends={state: counted.get((record.id, state), 0) for state in FINAL_OF_JOB},
        )
        for record in records
    ]


def list_recent_batches(session: Session) -> set[str]:
    """The names of the newest 500 batches."""
    newest = select(BatchRecord.name).order_by(BatchRecord.id.desc()).limit(_NEWEST)
    return set(session.scalars(newest))

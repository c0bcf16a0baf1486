"""Reads operations for pages and commands: a list, one of them, its receipts, and those of a job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from ..jobs.models import Job
from . import stages
from .lifecycle import OPEN, RESULTS, TABS, WITHOUT_PROOF
from .models import Operation, OperationRow

MOST_OPERATIONS = 50
MOST_RECEIPTS = 100
_MOST_OPEN = 100
MOST_CODES = 20
# Of the skipped rows so many are counted by their reasons, the last ones.
MOST_SKIPPED = 100_000
# The pace is that of the rows handled within the last minutes, at most so many.
_MOST_PACED = 2_000
_PACED_SPAN = timedelta(minutes=5)
# An operation with fewer jobs says nothing about the pace of others.
_FEWEST_PACED = 100


@dataclass(frozen=True)
class ListedOperation:
    """An operation as it is shown. The counts are those of its rows by result.

    `frozen` lists origin, state and number of its jobs as they were frozen, the most first.
    """

    id: int
    state: str
    action: str
    actor: str
    query: Mapping[str, Any] | None
    undo_of: int | None
    rate: int | None
    reason: str | None
    targets: int
    stage: int
    begun_after: int
    done: int
    skipped: int
    asked: int
    proven: int
    failed_same_error: int
    failed_other_error: int
    unproven: int
    drifted: int
    created_at: datetime
    expires_at: datetime
    started_at: datetime | None
    handled_at: datetime | None
    paused_at: datetime | None
    ended_at: datetime | None
    code: str | None
    says: str | None
    frozen: Sequence[tuple[str, str, int]] | None

    @property
    def counts(self) -> dict[str, int]:
        """How many of its rows have each result, those whose turn has not come first."""
        handled = {name: getattr(self, name) for name in RESULTS if name != "pending"}
        return {"pending": self.targets - sum(handled.values()), **handled}

    @property
    def handled(self) -> int:
        """How many rows are done or skipped."""
        return self.targets - self.counts["pending"]

    @property
    def is_open(self) -> bool:
        """Whether it runs or is paused."""
        return self.state in OPEN

    @property
    def makes_due(self) -> bool:
        """Whether its jobs become due, so that their next attempts prove it."""
        return self.action in stages.MAKES_DUE

    @property
    def waits_for_proof(self) -> bool:
        """Whether rows that are done wait for the ends of their next attempts."""
        return self.makes_due and self.is_open

    @property
    def without_proof(self) -> str | None:
        """Why rows that are done are not proven, after its end; None while they may be, or need no proof."""
        return WITHOUT_PROOF.get(self.state) if self.makes_due else None

    def meaning_of(self, result: str) -> str:
        """What it means that one of its rows has this result."""
        return (self.without_proof if result == "done" else None) or RESULTS[result]


@dataclass(frozen=True)
class OpenOperations:
    """The running and paused operations in short: how many there are, at most 100, and the newest of them.

    One that is paused is named before those that run.
    """

    number: int
    id: int
    state: str


@dataclass(frozen=True)
class ReceiptRow:
    """What became of one job of an operation, and why."""

    number: int
    job_id: int
    result: str
    code: str | None
    says: str | None
    new_job_id: int | None
    at: datetime | None
    proven_at: datetime | None


@dataclass(frozen=True)
class ReceiptOfJob:
    """What became of a job in one operation, and why. `at` is None while its turn has not come."""

    operation_id: int
    action: str
    result: str
    code: str | None
    says: str | None
    new_job_id: int | None
    at: datetime | None


_COLUMNS: tuple[Any, ...] = tuple(
    getattr(Operation, field.name) for field in fields(ListedOperation)
)
_RECEIPT: tuple[Any, ...] = tuple(getattr(OperationRow, field.name) for field in fields(ReceiptRow))


def page_of_tab(
    session: Session,
    tab: str,
    place: tuple[datetime, int] | None = None,
    limit: int = MOST_OPERATIONS,
) -> Sequence[ListedOperation]:
    """The operations of one of the `TABS`; with the time and the id of its last one those after it."""
    before = place and place[1]
    if tab == "all":
        return page_of_operations(session, before=before, limit=limit)
    if tab == "open":
        return page_of_open_operations(session, TABS[tab], before=before, limit=limit)
    (state,) = TABS[tab]
    return page_of_ended_operations(session, state, older_than=place, limit=limit)


def page_of_operations(
    session: Session, *, before: int | None = None, limit: int = MOST_OPERATIONS
) -> Sequence[ListedOperation]:
    """The newest operations, drafts too; with `before` those with smaller ids."""
    wanted = select(*_COLUMNS).order_by(Operation.id.desc()).limit(limit)
    if before is not None:
        wanted = wanted.where(Operation.id < before)
    return _operations(session, wanted)


def page_of_open_operations(
    session: Session,
    states: Collection[str] = OPEN,
    *,
    before: int | None = None,
    limit: int = MOST_OPERATIONS,
) -> Sequence[ListedOperation]:
    """The newest operations that run or are paused, or drafts; with `before` those with smaller ids."""
    wanted = select(*_COLUMNS).where(Operation.state.in_(states))
    wanted = wanted.order_by(Operation.id.desc()).limit(limit)
    if before is not None:
        wanted = wanted.where(Operation.id < before)
    return _operations(session, wanted)


def page_of_ended_operations(
    session: Session,
    state: str,
    *,
    older_than: tuple[datetime, int] | None = None,
    limit: int = MOST_OPERATIONS,
) -> Sequence[ListedOperation]:
    """The operations that ended last in this state; with `older_than` those that ended before it."""
    place = (Operation.ended_at, Operation.id)
    wanted = select(*_COLUMNS).where(Operation.state == state, Operation.ended_at.is_not(None))
    wanted = wanted.order_by(*(column.desc() for column in place)).limit(limit)
    if older_than is not None:
        wanted = wanted.where(
            Operation.ended_at <= older_than[0], tuple_(*place) < tuple_(*older_than)
        )
    return _operations(session, wanted)


def find_open_operations(session: Session) -> OpenOperations | None:
    """The running and paused operations in short; None when there is none."""
    wanted = (
        select(Operation.id, Operation.state)
        .where(Operation.state.in_(OPEN))
        .order_by(Operation.id.desc())
        .limit(_MOST_OPEN)
    )
    rows = session.execute(wanted).all()
    if not rows:
        return None
    id_, state = next((row for row in rows if row.state == "paused"), rows[0])
    return OpenOperations(len(rows), id_, state)


def _operations(session: Session, wanted: Any) -> Sequence[ListedOperation]:
    return [ListedOperation(*row) for row in session.execute(wanted)]


def find_operation(session: Session, operation: int) -> ListedOperation | None:
    """The operation with this id; None when there is none."""
    row = session.execute(select(*_COLUMNS).where(Operation.id == operation)).one_or_none()
    return None if row is None else ListedOperation(*row)


def find_last_finished(session: Session, action: str) -> ListedOperation | None:
    """The last finished operation of an action that changed at least 100 jobs, among the last 50 finished."""
    last = (
        select(Operation.id)
        .where(Operation.state == "finished", Operation.ended_at.is_not(None))
        .order_by(Operation.ended_at.desc())
        .limit(MOST_OPERATIONS)
    )
    wanted = (
        select(*_COLUMNS)
        .where(Operation.id.in_(last), Operation.action == action, Operation.done >= _FEWEST_PACED)
        .order_by(Operation.ended_at.desc())
        .limit(1)
    )
    row = session.execute(wanted).one_or_none()
    return None if row is None else ListedOperation(*row)


def find_undo_of(session: Session, operation: int) -> int | None:
    """The last operation that undoes this one; None when there is none."""
    wanted = (
        select(Operation.id)
        .where(Operation.id > operation, Operation.undo_of == operation)
        .order_by(Operation.id.desc())
        .limit(1)
    )
    return session.scalar(wanted)


def page_of_receipts(
    session: Session,
    operation: ListedOperation,
    *,
    before: int | None = None,
    result: str | None = None,
    code: str | None = None,
    limit: int = MOST_RECEIPTS,
) -> Sequence[ReceiptRow]:
    """The last receipts of an operation, the newest first; with `before` those with smaller numbers.

    With `result` those of one result, with `code` the rows skipped for this reason.
    """
    newest = operation.handled if before is None else min(before - 1, operation.handled)
    wanted = (
        select(*_RECEIPT)
        .where(OperationRow.operation_id == operation.id, OperationRow.number <= newest)
        .order_by(OperationRow.number.desc())
        .limit(limit)
    )
    if result is not None:
        wanted = wanted.where(OperationRow.result == result)
    if code is not None:
        wanted = wanted.where(OperationRow.code == code)
    return [ReceiptRow(*row) for row in session.execute(wanted)]


def has_first_row(session: Session, operation: int) -> bool:
    """Whether the first row of an operation is still stored: retention removes them in order."""
    first = select(OperationRow.number).where(
        OperationRow.operation_id == operation, OperationRow.number == 1
    )
    return session.scalars(first).one_or_none() is not None


@dataclass(frozen=True)
class StageRow:
    """A stage: its number, how many rows it has, and how many of them had their turn.

    `counts` says what became of these; it is empty for the rest, which may be long.
    """

    number: int
    rows: int
    handled: int
    counts: Mapping[str, int]


def list_stages(session: Session, operation: ListedOperation) -> Sequence[StageRow]:
    """The stages since the operation was begun or resumed after a stop."""
    begun_after, most = operation.begun_after, sum(stages.SIZES)
    wanted = select(OperationRow.number, OperationRow.result).where(
        OperationRow.operation_id == operation.id,
        OperationRow.number > begun_after,
        OperationRow.number <= min(operation.handled, begun_after + most),
    )
    results = session.execute(wanted).all()
    found = []
    for number in range(1, len(stages.SIZES) + 2):
        low, high = stages.bounds_of_stage(number, begun_after, operation.targets)
        counts = Counter(result for row, result in results if low < row <= high)
        if high > low:
            handled = max(0, min(operation.handled, high) - low)
            found.append(StageRow(number, high - low, handled, counts))
    return found


@dataclass(frozen=True)
class RecentPace:
    """How many rows had their turn within the last minutes in which any had, and in how many seconds."""

    rows: int
    seconds: float


def find_recent_pace(session: Session, operation: ListedOperation) -> RecentPace | None:
    """How fast an operation was lately; None when that cannot be said yet."""
    if operation.handled_at is None:
        return None
    last = (
        select(OperationRow.at)
        .where(
            OperationRow.operation_id == operation.id,
            OperationRow.number <= operation.handled,
            OperationRow.number > max(operation.begun_after, operation.handled - _MOST_PACED),
        )
        .subquery()
    )
    lately = select(last.c.at).where(last.c.at >= operation.handled_at - _PACED_SPAN).subquery()
    first = select(func.min(lately.c.at)).scalar_subquery()
    # The rows of the first moment were changed before it.
    rows, begin, end = session.execute(
        select(
            func.count().filter(lately.c.at > first), func.min(lately.c.at), func.max(lately.c.at)
        )
    ).one()
    seconds = 0.0 if begin is None else (end - begin).total_seconds()
    return RecentPace(rows, seconds) if seconds >= 1 else None


def find_recent_failures(session: Session, operation: ListedOperation) -> tuple[int, int]:
    """Of the last attempts that proved something, at most 200: how many failed as before, and of how many."""
    recent = (
        select(OperationRow.result)
        .where(
            OperationRow.operation_id == operation.id,
            OperationRow.proven_at.is_not(None),
            OperationRow.number > operation.begun_after,
        )
        .order_by(OperationRow.proven_at.desc(), OperationRow.number.desc())
        .limit(stages.MOST_RECENT)
        .subquery()
    )
    same = func.count().filter(recent.c.result == "failed_same_error")
    found = session.execute(select(same, func.count()).select_from(recent)).one()
    return found[0], found[1]


def list_handled_jobs(
    session: Session, operation: int, low: int, high: int
) -> Mapping[int, str | None]:
    """The jobs that an operation changed in its rows `low` to `high`; where it made a new job, that one.

    By id, with the state of each, None when it is deleted. The caller bounds the number of rows.
    """
    changed = func.coalesce(OperationRow.new_job_id, OperationRow.job_id)
    wanted = (
        select(changed, Job.state)
        .outerjoin(Job, Job.id == changed)
        .where(
            OperationRow.operation_id == operation,
            OperationRow.number.between(low, high),
            OperationRow.result.not_in(("pending", "skipped")),
        )
        .order_by(OperationRow.number)
        .limit(high - low + 1)
    )
    return dict(iter(session.execute(wanted).all()))


def list_receipts_of_job(session: Session, job: int) -> Sequence[ReceiptOfJob]:
    """The receipts of a job, also of a deleted one, those of the newest operations first."""
    receipt = OperationRow
    columns = (receipt.result, receipt.code, receipt.says, receipt.new_job_id, receipt.at)
    wanted = (
        select(receipt.operation_id, Operation.action, *columns)
        .join(Operation, Operation.id == receipt.operation_id)
        .where(receipt.job_id == job)
        .order_by(receipt.operation_id.desc())
        .limit(MOST_OPERATIONS)
    )
    return [ReceiptOfJob(*row) for row in session.execute(wanted)]


def count_skipped_by_code(session: Session, operation: int) -> dict[str, int]:
    """How many of the last skipped rows were skipped for each reason, the most first."""
    last = (
        select(OperationRow.code)
        .where(OperationRow.operation_id == operation, OperationRow.result == "skipped")
        .order_by(OperationRow.number.desc())
        .limit(MOST_SKIPPED)
        .subquery()
    )
    number = func.count()
    wanted = (
        select(last.c.code, number)
        .group_by(last.c.code)
        .order_by(number.desc(), last.c.code)
        .limit(MOST_CODES)
    )
    return {str(code): count for code, count in session.execute(wanted)}

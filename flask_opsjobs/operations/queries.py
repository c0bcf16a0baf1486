"""Reads operations for pages and commands: a list, one of them, its receipts, and those of a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from .lifecycle import OPEN, RESULTS
from .models import Operation, OperationRow

MOST_OPERATIONS = 50
MOST_RECEIPTS = 100
MOST_CODES = 20


@dataclass(frozen=True)
class ListedOperation:
    """An operation as it is shown. The counts are those of its rows by result."""

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


def page_of_operations(
    session: Session, *, before: int | None = None, limit: int = MOST_OPERATIONS
) -> Sequence[ListedOperation]:
    """The newest operations, drafts too; with `before` those with smaller ids."""
    wanted = select(*_COLUMNS).order_by(Operation.id.desc()).limit(limit)
    if before is not None:
        wanted = wanted.where(Operation.id < before)
    return [ListedOperation(*row) for row in session.execute(wanted)]


def find_operation(session: Session, operation: int) -> ListedOperation | None:
    """The operation with this id; None when there is none."""
    row = session.execute(select(*_COLUMNS).where(Operation.id == operation)).one_or_none()
    return None if row is None else ListedOperation(*row)


def page_of_receipts(
    session: Session, operation: ListedOperation, *, before: int | None = None
) -> Sequence[ReceiptRow]:
    """The last receipts of an operation, the newest first; with `before` those with smaller numbers."""
    newest = operation.handled if before is None else min(before - 1, operation.handled)
    wanted = (
        select(*_RECEIPT)
        .where(OperationRow.operation_id == operation.id, OperationRow.number <= newest)
        .order_by(OperationRow.number.desc())
        .limit(MOST_RECEIPTS)
    )
    return [ReceiptRow(*row) for row in session.execute(wanted)]


def has_first_row(session: Session, operation: int) -> bool:
    """Whether the first row of an operation is still stored: retention removes them in order."""
    first = select(OperationRow.number).where(
        OperationRow.operation_id == operation, OperationRow.number == 1
    )
    return session.scalars(first).one_or_none() is not None


def list_operations_of_job(session: Session, job: int) -> Sequence[tuple[int, str]]:
    """The newest operations that a job was a target of, each with what became of the job."""
    wanted = (
        select(OperationRow.operation_id, OperationRow.result)
        .where(OperationRow.job_id == job)
        .order_by(OperationRow.operation_id.desc())
        .limit(MOST_OPERATIONS)
    )
    return [(id, result) for id, result in session.execute(wanted)]


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
    """How many rows were skipped for each reason, the most first."""
    number = func.count()
    wanted = (
        select(OperationRow.code, number)
        .where(
            OperationRow.operation_id == operation,
            OperationRow.result == "skipped",
            OperationRow.code.is_not(None),
        )
        .group_by(OperationRow.code)
        .order_by(number.desc(), OperationRow.code)
        .limit(MOST_CODES)
    )
    return {str(code): count for code, count in session.execute(wanted)}

"""Maps the tables of operations: one row for each operation, and one for each of its jobs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from ..audit.models import VIA
from ..core.db import Base, one_of
from .lifecycle import FINAL, RESULTS, STATES

MOMENT = DateTime(timezone=True)


class Operation(Base):
    """One action on many jobs. `query` is the filter that chose them, `undo_of` the operation that it undoes.

    The rows up to number `begun_after` were handled before it was last started or resumed after a stop: the
    stages count from there. The counts are those of its rows by result; `drifted` are rows that were skipped
    because their job had changed. `frozen` lists origin, state and number of its jobs as they were frozen;
    None for one that undoes another. `code` and `says` tell why it is paused or how it ended.
    """

    __tablename__ = "operations"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=False), primary_key=True)
    state: Mapped[str] = mapped_column(Text)
    action: Mapped[str] = mapped_column(Text)
    actor: Mapped[str] = mapped_column(Text)
    via: Mapped[str] = mapped_column(Text)
    # Started where no access policy is asked, such as in a shell: its rows do not ask it either.
    is_trusted: Mapped[bool] = mapped_column(Boolean)
    query: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    undo_of: Mapped[int | None] = mapped_column(BigInteger)
    # So many rows a second at most.
    rate: Mapped[int | None] = mapped_column(Integer)
    reason: Mapped[str | None] = mapped_column(Text)
    targets: Mapped[int] = mapped_column(Integer)
    stage: Mapped[int] = mapped_column(SmallInteger, server_default="1")
    begun_after: Mapped[int] = mapped_column(Integer, server_default="0")
    # An operator resumed it although its stage is not proven.
    is_proof_waived: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    done: Mapped[int] = mapped_column(Integer, server_default="0")
    skipped: Mapped[int] = mapped_column(Integer, server_default="0")
    asked: Mapped[int] = mapped_column(Integer, server_default="0")
    proven: Mapped[int] = mapped_column(Integer, server_default="0")
    failed_same_error: Mapped[int] = mapped_column(Integer, server_default="0")
    failed_other_error: Mapped[int] = mapped_column(Integer, server_default="0")
    unproven: Mapped[int] = mapped_column(Integer, server_default="0")
    drifted: Mapped[int] = mapped_column(Integer, server_default="0")
    created_at: Mapped[datetime] = mapped_column(MOMENT)
    expires_at: Mapped[datetime] = mapped_column(MOMENT)
    started_at: Mapped[datetime | None] = mapped_column(MOMENT)
    # When the last row was handled, and up to when the rate has given turns.
    handled_at: Mapped[datetime | None] = mapped_column(MOMENT)
    paced_at: Mapped[datetime | None] = mapped_column(MOMENT)
    paused_at: Mapped[datetime | None] = mapped_column(MOMENT)
    ended_at: Mapped[datetime | None] = mapped_column(MOMENT)
    code: Mapped[str | None] = mapped_column(Text)
    says: Mapped[str | None] = mapped_column(Text)
    frozen: Mapped[list[Any] | None] = mapped_column(JSONB)

    __table_args__ = (
        CheckConstraint(one_of("state", STATES), name="state_check"),
        CheckConstraint(one_of("via", VIA), name="via_check"),
        CheckConstraint("stage BETWEEN 1 AND 4", name="stage_check"),
        CheckConstraint("rate >= 1", name="rate_check"),
        CheckConstraint("(state = 'paused') = (paused_at IS NOT NULL)", name="paused_check"),
        CheckConstraint(f"({one_of('state', FINAL)}) = (ended_at IS NOT NULL)", name="ended_check"),
        CheckConstraint(
            "(state IN ('draft', 'expired')) = (started_at IS NULL)"
            " AND (started_at IS NULL) = (reason IS NULL)",
            name="started_check",
        ),
        CheckConstraint(
            "least(targets, begun_after, done, skipped, asked, proven, failed_same_error,"
            " failed_other_error, unproven, drifted) >= 0"
            " AND done + skipped + asked + proven + failed_same_error + failed_other_error + unproven"
            " <= targets",
            name="numbers_check",
        ),
        Index(
            "operations_open",
            "id",
            postgresql_where=text(one_of("state", ("draft", "running", "paused"))),
        ),
        Index(
            "operations_ended",
            "state",
            "ended_at",
            postgresql_where=text("ended_at IS NOT NULL"),
        ),
    )


class OperationRow(Base):
    """One job of an operation as it was frozen, and its receipt: what became of it, and why.

    Rows are handled in the order of their numbers, so those up to the sum of the operation's counts are.
    `failure_key` is that of its last attempt. `at` is when its turn came, `proven_at` when its next attempt
    had ended. `new_job_id` is the job as which it runs again.
    """

    __tablename__ = "operation_rows"

    operation_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey(Operation.id), primary_key=True, autoincrement=False
    )
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    # No foreign key: a deleted job keeps its receipt.
    job_id: Mapped[int] = mapped_column(BigInteger)
    queue: Mapped[str] = mapped_column(Text)
    origin: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    dispatch_no: Mapped[int] = mapped_column(BigInteger)
    attempt: Mapped[int] = mapped_column(Integer)
    failure_key: Mapped[bytes | None] = mapped_column(LargeBinary)
    result: Mapped[str] = mapped_column(Text, server_default="pending")
    code: Mapped[str | None] = mapped_column(Text)
    says: Mapped[str | None] = mapped_column(Text)
    new_job_id: Mapped[int | None] = mapped_column(BigInteger)
    at: Mapped[datetime | None] = mapped_column(MOMENT)
    proven_at: Mapped[datetime | None] = mapped_column(MOMENT)

    __table_args__ = (
        CheckConstraint(one_of("result", tuple(RESULTS)), name="result_check"),
        CheckConstraint("(result = 'pending') = (at IS NULL)", name="handled_check"),
        CheckConstraint("(result = 'skipped') = (code IS NOT NULL)", name="skipped_check"),
        Index(
            "operation_rows_done",
            "operation_id",
            "number",
            postgresql_where=text("result = 'done'"),
        ),
        Index(
            "operation_rows_proven",
            "operation_id",
            "proven_at",
            "number",
            postgresql_where=text("proven_at IS NOT NULL"),
        ),
        Index(
            "operation_rows_by_result",
            "operation_id",
            "result",
            "number",
            postgresql_include=["code"],
            postgresql_where=text("result NOT IN ('pending', 'done')"),
        ),
        Index("operation_rows_of_job", "job_id", "operation_id"),
    )

"""Maps the tables of batches: batches, their counted ends, and the counts that nobody folded yet."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from ..core.db import Base, one_of
from .lifecycle import FINAL, STATES

MOMENT = DateTime(timezone=True)


class BatchRecord(Base):
    """Many jobs with one outcome. `enqueued` counts the members that were folded so far.

    `lost` is the number of members that are missing although none is open: their rows were deleted.
    `first_failed_at` is when the first member failed, or when some were found to be lost.
    """

    __tablename__ = "batches"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=False), primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    enqueued: Mapped[int] = mapped_column(BigInteger, server_default="0")
    created_at: Mapped[datetime] = mapped_column(MOMENT)
    closed_at: Mapped[datetime | None] = mapped_column(MOMENT)
    ended_at: Mapped[datetime | None] = mapped_column(MOMENT)
    end_no: Mapped[int] = mapped_column(Integer, server_default="0")
    lost: Mapped[int] = mapped_column(BigInteger, server_default="0")
    first_failed_at: Mapped[datetime | None] = mapped_column(MOMENT)
    on_end: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    on_failure: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    meta: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    cancel_requested_at: Mapped[datetime | None] = mapped_column(MOMENT)
    cancel_requested_by: Mapped[str | None] = mapped_column(Text)
    cancel_reason: Mapped[str | None] = mapped_column(Text)
    trouble: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        CheckConstraint(one_of("state", STATES), name="state_check"),
        CheckConstraint("(state = 'open') = (closed_at IS NULL)", name="closed_check"),
        CheckConstraint(
            f"({one_of('state', FINAL)}) = (ended_at IS NOT NULL)", name="final_has_end_check"
        ),
        CheckConstraint("enqueued >= 0 AND end_no >= 0 AND lost >= 0", name="numbers_check"),
        CheckConstraint(
            "(cancel_requested_at IS NULL) = (cancel_requested_by IS NULL)"
            " AND (cancel_requested_at IS NULL) = (cancel_reason IS NULL)",
            name="cancel_request_is_whole_check",
        ),
        Index("batches_by_state", "state", "id"),
        Index("batches_by_name", "name", "id"),
        Index(
            "batches_to_retain", "state", "ended_at", postgresql_where=text("ended_at IS NOT NULL")
        ),
    )


class BatchEnds(Base):
    """How many members of a batch ended in one way."""

    __tablename__ = "batch_ends"

    batch_id: Mapped[int] = mapped_column(
        BigInteger,
        ForeignKey(BatchRecord.id, ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    )
    state: Mapped[str] = mapped_column(Text, primary_key=True)
    ended_by: Mapped[str] = mapped_column(Text, primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (
        CheckConstraint(one_of("state", FINAL), name="state_check"),
        CheckConstraint("number >= 0", name="number_check"),
    )


class BatchEndEvent(Base):
    """How many members one statement added or ended. Appended; folding adds the rows up and deletes them.

    `kind` is `enqueued`, or the final state in which members ended. A retry takes an end back with a negative
    number.
    """

    __tablename__ = "batch_end_events"

    batch_id: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(Text)
    ended_by: Mapped[str] = mapped_column(Text, server_default="")
    number: Mapped[int] = mapped_column(BigInteger)

    # The ORM demands a key; the table has none.
    __mapper_args__ = {"primary_key": [batch_id, kind, ended_by, number]}  # noqa: RUF012
    __table_args__ = (
        CheckConstraint(one_of("kind", ("enqueued", *FINAL)), name="kind_check"),
        Index("batch_end_events_by_batch", "batch_id"),
    )

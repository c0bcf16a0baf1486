"""Declares the tables of numbers per minute and of totals. The roll_up loop fills them, so no page counts."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    DateTime,
    Double,
    Integer,
    SmallInteger,
    Text,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from ..core.db import Base

MOMENT = DateTime(timezone=True)


class Rollup(Base):
    """How many jobs of a queue ended in a minute. The queue '' means all queues. An empty minute has no row.

    `waits` (due to start) and `runs` (start to end) are histograms with the bounds of `pace_queries.py`,
    without empty last buckets.
    """

    __tablename__ = "rollups"

    minute: Mapped[datetime] = mapped_column(MOMENT, primary_key=True)
    queue: Mapped[str] = mapped_column(Text, primary_key=True)
    finished: Mapped[int] = mapped_column(BigInteger, server_default="0")
    failed: Mapped[int] = mapped_column(BigInteger, server_default="0")
    canceled: Mapped[int] = mapped_column(BigInteger, server_default="0")
    waits: Mapped[list[int]] = mapped_column(ARRAY(Integer), server_default=text("'{}'::integer[]"))
    runs: Mapped[list[int]] = mapped_column(ARRAY(Integer), server_default=text("'{}'::integer[]"))

    __table_args__ = (
        CheckConstraint("finished >= 0 AND failed >= 0 AND canceled >= 0", name="positive_check"),
    )


class Depth(Base):
    """How many jobs a queue had in a minute: waiting for a time or another job, due, and started.

    `is_capped`: counting stopped early, so these are lower bounds. In a minute without rows no loop was
    running.
    """

    __tablename__ = "depths"

    minute: Mapped[datetime] = mapped_column(MOMENT, primary_key=True)
    queue: Mapped[str] = mapped_column(Text, primary_key=True)
    waiting: Mapped[int] = mapped_column(BigInteger, server_default="0")
    due: Mapped[int] = mapped_column(BigInteger, server_default="0")
    started: Mapped[int] = mapped_column(BigInteger, server_default="0")
    is_capped: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))

    __table_args__ = (
        CheckConstraint("waiting >= 0 AND due >= 0 AND started >= 0", name="positive_check"),
    )


class RollupPosition(Base):
    """The single row that says which minutes are counted: from `counted_from` to before `counted_until`.

    Decisions of the audit are counted up to `audit_sequence`.
    """

    __tablename__ = "rollup_position"

    id: Mapped[int] = mapped_column(
        SmallInteger, primary_key=True, autoincrement=False, server_default="1"
    )
    counted_from: Mapped[datetime | None] = mapped_column(MOMENT)
    counted_until: Mapped[datetime | None] = mapped_column(MOMENT)
    audit_sequence: Mapped[int] = mapped_column(BigInteger, server_default="0")

    __table_args__ = (
        CheckConstraint("id = 1", name="one_check"),
        CheckConstraint(
            "(counted_from IS NULL) = (counted_until IS NULL) AND counted_until >= counted_from",
            name="order_check",
        ),
    )


# So many queues, the first ones, have a row of totals each. All others have one together, under this name.
MOST_QUEUE_TOTALS = 200
OTHER_QUEUES = ""


class QueueTotal(Base):
    """How many jobs of a queue were enqueued and ended since the schema has this table. Never pruned.

    `waits` and `runs` are histograms as in `Rollup`, `wait_seconds` and `run_seconds` the sums of their
    durations.
    """

    __tablename__ = "queue_totals"

    queue: Mapped[str] = mapped_column(Text, primary_key=True)
    enqueued: Mapped[int] = mapped_column(BigInteger, server_default="0")
    finished: Mapped[int] = mapped_column(BigInteger, server_default="0")
    failed: Mapped[int] = mapped_column(BigInteger, server_default="0")
    canceled: Mapped[int] = mapped_column(BigInteger, server_default="0")
    waits: Mapped[list[int]] = mapped_column(
        ARRAY(BigInteger), server_default=text("'{}'::bigint[]")
    )
    runs: Mapped[list[int]] = mapped_column(
        ARRAY(BigInteger), server_default=text("'{}'::bigint[]")
    )
    wait_seconds: Mapped[float] = mapped_column(Double, server_default="0")
    run_seconds: Mapped[float] = mapped_column(Double, server_default="0")

    __table_args__ = (
        CheckConstraint(
            "enqueued >= 0 AND finished >= 0 AND failed >= 0 AND canceled >= 0"
            " AND wait_seconds >= 0 AND run_seconds >= 0",
            name="positive_check",
        ),
    )


class SlotTotal(Base):
    """How many slots of cron entries had a result. Never pruned."""

    __tablename__ = "slot_totals"

    result: Mapped[str] = mapped_column(Text, primary_key=True)
    slots: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (CheckConstraint("slots >= 0", name="positive_check"),)


class ActionTotal(Base):
    """How many decisions of the audit were about an action, by their outcome. Never pruned."""

    __tablename__ = "action_totals"

    action: Mapped[str] = mapped_column(Text, primary_key=True)
    outcome: Mapped[str] = mapped_column(Text, primary_key=True)
    decisions: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (CheckConstraint("decisions >= 0", name="positive_check"),)

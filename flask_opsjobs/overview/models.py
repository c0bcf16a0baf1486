"""Declares the tables of numbers per minute. The roll_up loop fills them, so that no page counts jobs."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    DateTime,
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
    """The single row that says which minutes are counted: from `counted_from` to before `counted_until`."""

    __tablename__ = "rollup_position"

    id: Mapped[int] = mapped_column(
        SmallInteger, primary_key=True, autoincrement=False, server_default="1"
    )
    counted_from: Mapped[datetime | None] = mapped_column(MOMENT)
    counted_until: Mapped[datetime | None] = mapped_column(MOMENT)

    __table_args__ = (
        CheckConstraint("id = 1", name="one_check"),
        CheckConstraint(
            "(counted_from IS NULL) = (counted_until IS NULL) AND counted_until >= counted_from",
            name="order_check",
        ),
    )

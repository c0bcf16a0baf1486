"""Maps the tables of tasks: numbers, which statements append and `roll_up` folds, and operators' pauses."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    ARRAY,
    REAL,
    BigInteger,
    CheckConstraint,
    DateTime,
    Double,
    Index,
    Text,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from ..core.db import Base

MOMENT = DateTime(timezone=True)
_POSITIVE = (
    "enqueued >= 0 AND finished >= 0 AND failed >= 0 AND canceled >= 0"
    " AND wait_seconds >= 0 AND run_seconds >= 0"
)


class TaskEndDelta(Base):
    """How jobs of a task ended by one statement, in one minute and state. Appended; `roll_up` adds them up.

    `waits` (due to start) and `runs` (start to end), in seconds, are of those whose function returned or
    failed for good.
    """

    __tablename__ = "task_end_deltas"

    task: Mapped[str] = mapped_column(Text)
    minute: Mapped[datetime] = mapped_column(MOMENT)
    state: Mapped[str] = mapped_column(Text)
    number: Mapped[int] = mapped_column(BigInteger)
    waits: Mapped[list[float] | None] = mapped_column(ARRAY(REAL))
    runs: Mapped[list[float] | None] = mapped_column(ARRAY(REAL))
    peak_kb: Mapped[int | None] = mapped_column(BigInteger)

    # The ORM demands a key; the table has none.
    __mapper_args__ = {"primary_key": [task, minute, state]}  # noqa: RUF012
    __table_args__ = (CheckConstraint("number >= 0", name="positive_check"),)


class _Counts:
    """The columns of both tables of sums.

    `waits` and `runs` are histograms with the bounds of `overview/pace_queries.py`, `wait_seconds` and
    `run_seconds` the sums of these durations. `peak_kb` is the most memory that a process had, of the jobs
    that raised it or died with it.
    """

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
    longest_wait: Mapped[float | None] = mapped_column(Double)
    longest_run: Mapped[float | None] = mapped_column(Double)
    peak_kb: Mapped[int | None] = mapped_column(BigInteger)


class TaskMinute(_Counts, Base):
    """The jobs of a task that were enqueued, and that ended, in a minute. Kept for three days."""

    __tablename__ = "task_minutes"

    task: Mapped[str] = mapped_column(Text, primary_key=True)
    minute: Mapped[datetime] = mapped_column(MOMENT, primary_key=True)

    __table_args__ = (
        CheckConstraint(_POSITIVE, name="positive_check"),
        Index("task_minutes_to_retain", "minute"),
    )


class TaskHour(_Counts, Base):
    """The same per hour. Retention adds old hours to the one row of their task for 1970-01-01 00:00."""

    __tablename__ = "task_hours"

    task: Mapped[str] = mapped_column(Text, primary_key=True)
    hour: Mapped[datetime] = mapped_column(MOMENT, primary_key=True)

    __table_args__ = (
        CheckConstraint(_POSITIVE, name="positive_check"),
        Index("task_hours_by_hour", "hour"),
    )


class TaskPause(Base):
    """A task that an operator paused. A task without a row is open."""

    __tablename__ = "task_pauses"

    task: Mapped[str] = mapped_column(Text, primary_key=True)
    paused_at: Mapped[datetime] = mapped_column(MOMENT)
    paused_by: Mapped[str] = mapped_column(Text)
    paused_reason: Mapped[str] = mapped_column(Text)

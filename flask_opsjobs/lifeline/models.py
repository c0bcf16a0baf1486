"""Defines the tables `loop_runs`, when each loop ran, and `integrity_checks`, what was compared."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Double,
    Identity,
    Index,
    Text,
)
from sqlalchemy.orm import Mapped, mapped_column

from ..core.db import Base

MOMENT = DateTime(timezone=True)


class LoopRun(Base):
    """A stretch of time in which a loop ran; a new row begins after a gap."""

    __tablename__ = "loop_runs"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=False), primary_key=True)
    loop: Mapped[str] = mapped_column(Text)
    process: Mapped[str] = mapped_column(Text)
    started_at: Mapped[datetime] = mapped_column(MOMENT)
    last_at: Mapped[datetime] = mapped_column(MOMENT)
    every_seconds: Mapped[float] = mapped_column(Double)
    passes: Mapped[int] = mapped_column(BigInteger, server_default="1")
    took_seconds: Mapped[float] = mapped_column(Double, server_default="0")
    report: Mapped[str | None] = mapped_column(Text)
    error: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        CheckConstraint(
            "every_seconds > 0 AND passes >= 1 AND took_seconds >= 0", name="numbers_check"
        ),
        Index("loop_runs_latest", "loop", "last_at"),
    )


class IntegrityCheck(Base):
    """The integrity check of a queue: its jobs enqueued, deleted and stored, and its differences.

    The rows were counted at `counted_at` in one snapshot; Redis and the heartbeats were compared with them at
    `compared_at`.
    """

    __tablename__ = "integrity_checks"

    queue: Mapped[str] = mapped_column(Text, primary_key=True)
    counted_at: Mapped[datetime] = mapped_column(MOMENT)
    took_seconds: Mapped[float] = mapped_column(Double)
    enqueued: Mapped[int] = mapped_column(BigInteger)
    deleted: Mapped[int] = mapped_column(BigInteger)
    stored: Mapped[int] = mapped_column(BigInteger)
    waiting: Mapped[int] = mapped_column(BigInteger)
    queued: Mapped[int] = mapped_column(BigInteger)
    started: Mapped[int] = mapped_column(BigInteger)
    compared_at: Mapped[datetime | None] = mapped_column(MOMENT)
    queued_nowhere: Mapped[int] = mapped_column(BigInteger, server_default="0")
    started_unreserved: Mapped[int] = mapped_column(BigInteger, server_default="0")
    orphan_deliveries: Mapped[int] = mapped_column(BigInteger, server_default="0")

    __table_args__ = (
        CheckConstraint(
            "took_seconds >= 0 AND stored >= 0 AND waiting >= 0 AND queued >= 0 AND started >= 0"
            " AND queued_nowhere >= 0 AND started_unreserved >= 0 AND orphan_deliveries >= 0",
            name="numbers_check",
        ),
    )

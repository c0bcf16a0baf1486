"""Maps the table of queues, which holds the decisions of operators about each queue."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, DateTime, Integer, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from ..core.db import Base


class Queue(Base):
    """One queue. A queue without a row is open and has an automatic prefetch."""

    __tablename__ = "queues"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    is_paused: Mapped[bool] = mapped_column(server_default=text("false"))
    prefetch: Mapped[int | None] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    # A draining queue is paused too, but its queued jobs may still run. Without draining they are recalled.
    is_draining: Mapped[bool] = mapped_column(server_default=text("false"))
    paused_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    paused_by: Mapped[str | None] = mapped_column(Text)
    paused_reason: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        CheckConstraint("prefetch > 0", name="prefetch_check"),
        CheckConstraint("is_paused OR NOT is_draining", name="draining_check"),
        CheckConstraint(
            "is_paused = (paused_at IS NOT NULL) AND is_paused = (paused_by IS NOT NULL)"
            " AND is_paused = (paused_reason IS NOT NULL)",
            name="paused_check",
        ),
    )

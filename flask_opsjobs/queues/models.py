"""Maps the table of queues: what an operator has decided about each."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, DateTime, Integer, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from ..core.db import Base


class Queue(Base):
    """One queue. A queue without a row is neither paused nor bound to a prefetch."""

    __tablename__ = "queues"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    is_paused: Mapped[bool] = mapped_column(server_default=text("false"))
    prefetch: Mapped[int | None] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    # Paused, and what is queued already may still run; otherwise it is recalled.
    is_draining: Mapped[bool] = mapped_column(server_default=text("false"))
    paused_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    paused_by: Mapped[str | None] = mapped_column(Text)
    paused_reason: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        CheckConstraint("prefetch > 0", name="prefetch_check"),
        CheckConstraint("is_paused OR NOT is_draining", name="draining_check"),
    )

"""The table of queues: what an operator has decided about each."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, DateTime, Integer, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from ..db import Base


class Queue(Base):
    """One queue. A queue without a row is neither paused nor bound to a window."""

    __tablename__ = "queues"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    is_paused: Mapped[bool] = mapped_column(server_default=text("false"))
    window_size: Mapped[int | None] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))

    __table_args__ = (CheckConstraint("window_size > 0", name="window_check"),)

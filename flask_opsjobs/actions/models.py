"""Declares the table of previews: plans that were shown and may be executed once within 15 minutes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, BigInteger, CheckConstraint, DateTime, Identity, Index, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from ..audit.models import OUTCOMES, VIA
from ..core.db import Base, one_of

MOMENT = DateTime(timezone=True)


class PreviewRow(Base):
    """A plan as it was shown. `spent_at` and `outcome` are set when it is executed or refused.

    `reused_at` is when somebody first tried to execute it a second time.
    """

    __tablename__ = "previews"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=False), primary_key=True)
    actor: Mapped[str] = mapped_column(Text)
    via: Mapped[str] = mapped_column(Text)
    action: Mapped[str] = mapped_column(Text)
    targets: Mapped[list[str]] = mapped_column(ARRAY(Text))
    params: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    plan: Mapped[dict[str, Any]] = mapped_column(JSONB)
    fingerprint: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(MOMENT)
    expires_at: Mapped[datetime] = mapped_column(MOMENT)
    spent_at: Mapped[datetime | None] = mapped_column(MOMENT)
    outcome: Mapped[str | None] = mapped_column(Text)
    receipt: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    reused_at: Mapped[datetime | None] = mapped_column(MOMENT)

    __table_args__ = (
        CheckConstraint(one_of("via", VIA), name="via_check"),
        CheckConstraint(one_of("outcome", OUTCOMES), name="outcome_check"),
        CheckConstraint(
            "(spent_at IS NULL) = (outcome IS NULL) AND (spent_at IS NULL) = (receipt IS NULL)",
            name="spent_check",
        ),
        CheckConstraint("reused_at IS NULL OR spent_at IS NOT NULL", name="reused_check"),
        CheckConstraint("expires_at > created_at", name="expiry_check"),
        Index("previews_to_retain", "created_at"),
    )

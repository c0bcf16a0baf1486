"""Defines the table `escalations`."""

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
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from ..core.db import Base, one_of
from ..lifeline.models import IncidentRecord
from .lifecycle import EVENTS, STATES

MOMENT = DateTime(timezone=True)


class EscalationRecord(Base):
    """One event of an episode of an incident, of which the escalation policy is told once.

    `reference` is what the policy returned, `why` how its last attempt failed. `repair` is the action that
    repaired the incident, with its `actor`.
    """

    __tablename__ = "escalations"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=False), primary_key=True)
    incident_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey(IncidentRecord.id, ondelete="CASCADE")
    )
    episode: Mapped[int] = mapped_column(Integer)
    event: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    # No foreign key: a job that was deleted leaves what came of it.
    job_id: Mapped[int | None] = mapped_column(BigInteger)
    decided_at: Mapped[datetime] = mapped_column(MOMENT)
    ended_at: Mapped[datetime | None] = mapped_column(MOMENT)
    reference: Mapped[str | None] = mapped_column(Text)
    why: Mapped[str | None] = mapped_column(Text)
    repair: Mapped[dict[str, Any] | None] = mapped_column(JSONB)

    __table_args__ = (
        UniqueConstraint("incident_id", "episode", "event", name="escalations_event_key"),
        CheckConstraint(one_of("event", list(EVENTS)), name="event_check"),
        CheckConstraint(one_of("state", STATES), name="state_check"),
        CheckConstraint("(state = 'pending') = (ended_at IS NULL)", name="end_check"),
        CheckConstraint("(state = 'unconfigured') = (job_id IS NULL)", name="job_check"),
        CheckConstraint("reference IS NULL OR state = 'invoked'", name="reference_check"),
        CheckConstraint("state <> 'failed' OR why IS NOT NULL", name="why_check"),
        CheckConstraint(
            "episode >= 1 AND length(reference) <= 500 AND length(why) <= 1000",
            name="numbers_check",
        ),
        Index("escalations_pending", "incident_id", postgresql_where=text("state = 'pending'")),
        Index(
            "escalations_ended",
            "ended_at",
            postgresql_where=text("ended_at IS NOT NULL"),
        ),
    )

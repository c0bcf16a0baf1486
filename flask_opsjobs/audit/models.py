"""Declares the tables of the audit: its events, the head of their chain, and decisions to be appended."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Identity,
    Index,
    LargeBinary,
    SmallInteger,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from ..core.db import Base, one_of

MOMENT = DateTime(timezone=True)
VIA = ("page", "cli", "python", "system")
OUTCOMES = ("done", "refused")


class AuditEvent(Base):
    """One decision, done or refused. The database refuses to change or remove it.

    `targets` are what was decided about; then what the decision made, such as a new job or operation, and the
    incidents that it answers.
    """

    __tablename__ = "audit_events"

    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(MOMENT)
    actor: Mapped[str] = mapped_column(Text)
    via: Mapped[str] = mapped_column(Text)
    action: Mapped[str] = mapped_column(Text)
    subject: Mapped[str] = mapped_column(Text)
    targets: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'::text[]"))
    permission: Mapped[str | None] = mapped_column(Text)
    reason: Mapped[str | None] = mapped_column(Text)
    outcome: Mapped[str] = mapped_column(Text)
    code: Mapped[str | None] = mapped_column(Text)
    request_id: Mapped[str | None] = mapped_column(Text)
    preview_id: Mapped[int | None] = mapped_column(BigInteger)
    previewed_at: Mapped[datetime | None] = mapped_column(MOMENT)
    before: Mapped[Any | None] = mapped_column(JSONB)
    after: Mapped[Any | None] = mapped_column(JSONB)
    canonical: Mapped[str] = mapped_column(Text)
    key_id: Mapped[str] = mapped_column(Text)
    previous_hash: Mapped[bytes] = mapped_column(LargeBinary)
    hash: Mapped[bytes] = mapped_column(LargeBinary)

    __table_args__ = (
        CheckConstraint("sequence > 0", name="sequence_check"),
        CheckConstraint(one_of("via", VIA), name="via_check"),
        CheckConstraint(one_of("outcome", OUTCOMES), name="outcome_check"),
        CheckConstraint("(outcome = 'refused') = (code IS NOT NULL)", name="refusal_check"),
        Index("audit_by_actor", "actor", "sequence"),
        Index("audit_by_action", "action", "sequence"),
        Index("audit_by_outcome", "outcome", "sequence"),
        Index("audit_by_target", "targets", postgresql_using="gin"),
        Index("audit_by_time", "at", "sequence"),
        Index("audit_by_request", "request_id", "sequence"),
        Index(
            "audit_notes",
            text("(targets[1])"),
            "sequence",
            postgresql_where=text("action = 'note.add' AND outcome = 'done'"),
        ),
    )


class AuditHead(Base):
    """The single row with the sequence, hash and time (`at`) of the last event, for the next event.

    A transaction locks it last, after all other rows.
    """

    __tablename__ = "audit_head"

    id: Mapped[int] = mapped_column(
        SmallInteger, primary_key=True, autoincrement=False, server_default="1"
    )
    sequence: Mapped[int] = mapped_column(BigInteger, server_default="0")
    hash: Mapped[bytes] = mapped_column(LargeBinary, server_default=text(r"'\x'::bytea"))
    at: Mapped[datetime | None] = mapped_column(MOMENT)

    __table_args__ = (CheckConstraint("id = 1", name="one_check"),)


class AuditPending(Base):
    """A decision that was executed while the audit could not be written. Kept until it is appended."""

    __tablename__ = "audit_pending"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=False), primary_key=True)
    decided_at: Mapped[datetime] = mapped_column(MOMENT)
    decision: Mapped[dict[str, Any]] = mapped_column(JSONB)

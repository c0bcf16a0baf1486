"""Defines the tables of Lifeline: `loop_runs`, `integrity_checks`, `incidents` and their `evidence`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from ..core.db import Base, one_of
from .lifecycle import RESOLVED_BY, SEVERITIES, STATES

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
    failed_in_a_row: Mapped[int] = mapped_column(BigInteger, server_default="0")

    __table_args__ = (
        CheckConstraint(
            "every_seconds > 0 AND passes >= 1 AND took_seconds >= 0", name="numbers_check"
        ),
        CheckConstraint("failed_in_a_row >= 0", name="failed_check"),
        Index("loop_runs_latest", "loop", "last_at"),
    )


class IntegrityCheck(Base):
    """The integrity check of a queue: its jobs enqueued, deleted and stored, and its differences.

    The rows were counted at `counted_at` in one snapshot; Redis and the heartbeats were compared with them at
    `compared_at`. `states` is how many jobs have each state, plain RQ jobs too, without those of 0.
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
    states: Mapped[dict[str, int]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))

    __table_args__ = (
        CheckConstraint(
            "took_seconds >= 0 AND stored >= 0 AND waiting >= 0 AND queued >= 0 AND started >= 0"
            " AND queued_nowhere >= 0 AND started_unreserved >= 0 AND orphan_deliveries >= 0",
            name="numbers_check",
        ),
    )


class IncidentRecord(Base):
    """Something that is wrong, or was. One row for a class and a subject; each `episode` begins it again.

    `first_at` is when its first episode began, `opened_at` when this one did. `seen_at` is when a detector
    last found it, `missed_passes` how many complete passes have not found it since. `facts` are what its
    words are made of when it is shown. `because_of` is the incident that it follows from.
    """

    __tablename__ = "incidents"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=False), primary_key=True)
    class_: Mapped[str] = mapped_column("class", Text)
    subject: Mapped[str] = mapped_column(Text)
    fingerprint: Mapped[str] = mapped_column(Text, unique=True)
    severity: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    episode: Mapped[int] = mapped_column(Integer, server_default="1")
    first_at: Mapped[datetime] = mapped_column(MOMENT)
    opened_at: Mapped[datetime] = mapped_column(MOMENT)
    seen_at: Mapped[datetime] = mapped_column(MOMENT)
    seen_count: Mapped[int] = mapped_column(BigInteger, server_default="1")
    missed_passes: Mapped[int] = mapped_column(Integer, server_default="0")
    affected: Mapped[int] = mapped_column(BigInteger, server_default="0")
    facts: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    acknowledged_by: Mapped[str | None] = mapped_column(Text)
    acknowledged_at: Mapped[datetime | None] = mapped_column(MOMENT)
    acknowledged_until: Mapped[datetime | None] = mapped_column(MOMENT)
    acknowledged_reason: Mapped[str | None] = mapped_column(Text)
    acknowledged_severity: Mapped[str | None] = mapped_column(Text)
    acknowledged_affected: Mapped[int | None] = mapped_column(BigInteger)
    resolved_at: Mapped[datetime | None] = mapped_column(MOMENT)
    resolved_by: Mapped[str | None] = mapped_column(Text)
    because_of: Mapped[int | None] = mapped_column(BigInteger)
    deploy_id: Mapped[int | None] = mapped_column(BigInteger)

    __table_args__ = (
        CheckConstraint(one_of("state", STATES), name="state_check"),
        CheckConstraint(one_of("severity", SEVERITIES), name="severity_check"),
        CheckConstraint(one_of("resolved_by", RESOLVED_BY), name="resolved_by_check"),
        CheckConstraint(
            "(state = 'resolved') = (resolved_at IS NOT NULL)"
            " AND (resolved_at IS NULL) = (resolved_by IS NULL)",
            name="resolved_check",
        ),
        CheckConstraint(
            "(state = 'acknowledged') = (acknowledged_at IS NOT NULL)"
            " AND (acknowledged_at IS NULL) = (acknowledged_by IS NULL)"
            " AND (acknowledged_at IS NULL) = (acknowledged_until IS NULL)"
            " AND (acknowledged_at IS NULL) = (acknowledged_reason IS NULL)"
            " AND (acknowledged_at IS NULL) = (acknowledged_severity IS NULL)"
            " AND (acknowledged_at IS NULL) = (acknowledged_affected IS NULL)",
            name="acknowledged_check",
        ),
        CheckConstraint("first_at <= opened_at AND opened_at <= resolved_at", name="times_check"),
        CheckConstraint(
            "episode >= 1 AND seen_count >= 1 AND missed_passes >= 0 AND affected >= 0",
            name="numbers_check",
        ),
        Index(
            "incidents_active",
            "class",
            "fingerprint",
            postgresql_where=text("state <> 'resolved'"),
        ),
        Index("incidents_by_opening", "opened_at", "id"),
        Index("incidents_by_class", "class", "opened_at", "id"),
        Index("incidents_by_severity", "severity", "opened_at", "id"),
        Index(
            "incidents_to_retain", "resolved_at", postgresql_where=text("resolved_at IS NOT NULL")
        ),
    )


class EvidenceRecord(Base):
    """What was seen of an incident in one episode, by whom, and how often in a row."""

    __tablename__ = "evidence"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=False), primary_key=True)
    incident_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey(IncidentRecord.id, ondelete="CASCADE")
    )
    episode: Mapped[int] = mapped_column(Integer)
    kind: Mapped[str] = mapped_column(Text)
    first_at: Mapped[datetime] = mapped_column(MOMENT)
    last_at: Mapped[datetime] = mapped_column(MOMENT)
    count: Mapped[int] = mapped_column(BigInteger, server_default="1")
    source: Mapped[str] = mapped_column(Text)
    facts: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    audit_sequence: Mapped[int | None] = mapped_column(BigInteger)

    __table_args__ = (
        CheckConstraint("episode >= 1 AND count >= 1", name="numbers_check"),
        CheckConstraint("first_at <= last_at", name="times_check"),
        Index("evidence_of_incident", "incident_id", "episode", "id"),
        Index("evidence_to_retain", "last_at"),
    )


class PendingFinding(Base):
    """What a detector found that is no incident yet, because it has not been so for long enough."""

    __tablename__ = "pending_findings"

    fingerprint: Mapped[str] = mapped_column(Text, primary_key=True)
    class_: Mapped[str] = mapped_column("class", Text)
    first_at: Mapped[datetime] = mapped_column(MOMENT)
    seen_at: Mapped[datetime] = mapped_column(MOMENT)

    __table_args__ = (CheckConstraint("first_at <= seen_at", name="times_check"),)

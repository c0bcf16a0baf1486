"""Defines the table `workers`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    DateTime,
    Double,
    Identity,
    Index,
    Integer,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from ..core.db import Base, one_of
from .lifecycle import ENDED, STATES

MOMENT = DateTime(timezone=True)


class Worker(Base):
    """A process that performs jobs: one of ours or a plain `rq worker`. A restarted process is a new row."""

    __tablename__ = "workers"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=False), primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True)
    kind: Mapped[str] = mapped_column(Text)
    host: Mapped[str] = mapped_column(Text)
    # 0 when RQ does not tell it.
    pid: Mapped[int] = mapped_column(Integer)
    # Of flask_opsjobs.
    version: Mapped[str | None] = mapped_column(Text)
    queues: Mapped[list[str]] = mapped_column(ARRAY(Text))
    state: Mapped[str] = mapped_column(Text)
    started_at: Mapped[datetime] = mapped_column(MOMENT)
    heartbeat_no: Mapped[int] = mapped_column(BigInteger, server_default="0")
    heartbeat_at: Mapped[datetime] = mapped_column(MOMENT)
    reserved: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'::text[]"))
    # Only workers of earlier versions write it.
    run_seconds: Mapped[float | None] = mapped_column(Double)
    rss_kb: Mapped[int | None] = mapped_column(BigInteger)
    counts: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    watched_heartbeat_no: Mapped[int] = mapped_column(BigInteger, server_default="-1")
    silent_seconds: Mapped[float] = mapped_column(Double, server_default="0")
    ended_at: Mapped[datetime | None] = mapped_column(MOMENT)
    # How many children perform jobs at once.
    processes: Mapped[int] = mapped_column(Integer, server_default="1")
    # Why children left on the day of the last heartbeat, as `engine/worker/left_children.py` counts them.
    left_children: Mapped[list[dict[str, Any]]] = mapped_column(
        JSONB, server_default=text("'[]'::jsonb")
    )
    # What it told of its children with its last heartbeat.
    pool: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    # With the pid they name one process: its machine's boot, its namespace, and its start in clock ticks
    # since the boot. None where the system does not tell them.
    boot_id: Mapped[str | None] = mapped_column(Text)
    pid_namespace: Mapped[str | None] = mapped_column(Text)
    pid_started_at: Mapped[int | None] = mapped_column(BigInteger)
    # Of the host's application, as OPSJOBS_VERSION says it.
    deploy_version: Mapped[str | None] = mapped_column(Text)
    # Somebody asked it to leave: it takes nothing new, ends what it runs, and stops.
    drain_requested_at: Mapped[datetime | None] = mapped_column(MOMENT)
    drain_requested_by: Mapped[str | None] = mapped_column(Text)
    # No page shows it any more. A heartbeat shows it again.
    forgotten_at: Mapped[datetime | None] = mapped_column(MOMENT)
    # The deploy that it runs; None when none was known when it started.
    deploy_id: Mapped[int | None] = mapped_column(BigInteger)
    # The managed jobs that ended in it since it started, and how long they took, as of its last heartbeat.
    # Of a plain RQ worker, what RQ counts.
    jobs_finished: Mapped[int] = mapped_column(BigInteger, server_default="0")
    jobs_failed: Mapped[int] = mapped_column(BigInteger, server_default="0")
    work_seconds: Mapped[float] = mapped_column(Double, server_default="0")

    __table_args__ = (
        CheckConstraint("kind IN ('pool', 'plain', 'loops')", name="kind_check"),
        CheckConstraint(one_of("state", STATES), name="state_check"),
        CheckConstraint(f"({one_of('state', ENDED)}) = (ended_at IS NOT NULL)", name="end_check"),
        CheckConstraint(
            "pid >= 0 AND heartbeat_no >= 0 AND run_seconds >= 0 AND rss_kb >= 0 AND silent_seconds >= 0"
            " AND processes >= 1",
            name="numbers_check",
        ),
        CheckConstraint(
            "(drain_requested_at IS NULL) = (drain_requested_by IS NULL)", name="drain_check"
        ),
        CheckConstraint("forgotten_at IS NULL OR ended_at IS NOT NULL", name="forgotten_check"),
        Index("workers_alive", "heartbeat_at", postgresql_where=text("ended_at IS NULL")),
        Index("workers_by_start", "started_at"),
    )

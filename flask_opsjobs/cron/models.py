"""Declares the tables of cron: the entries, and the run history of their slots."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, DateTime, Identity, Index, Integer, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from ..core.db import Base, one_of
from ..jobs.lifecycle import MANAGED_FINAL
from .lifecycle import CATCH_UPS, ORIGINS, OVERLAPS, RESULTS

MOMENT = DateTime(timezone=True)


class CronEntry(Base):
    """One entry. Every slot up to `checked_until` has its result in the run history.

    `args` are stored as those of a job, without redacted arguments. `catch_up_limit` is set when `catch_up`
    is `all`.
    """

    __tablename__ = "cron_entries"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    origin: Mapped[str] = mapped_column(Text)
    task: Mapped[str] = mapped_column(Text)
    expression: Mapped[str] = mapped_column(Text)
    zone: Mapped[str] = mapped_column(Text)
    overlap: Mapped[str] = mapped_column(Text)
    catch_up: Mapped[str] = mapped_column(Text)
    catch_up_limit: Mapped[int | None] = mapped_column(Integer)
    args: Mapped[dict[str, Any]] = mapped_column(JSONB)
    checked_until: Mapped[datetime] = mapped_column(MOMENT)
    created_at: Mapped[datetime] = mapped_column(MOMENT)
    created_by: Mapped[str] = mapped_column(Text)
    changed_at: Mapped[datetime | None] = mapped_column(MOMENT)
    retired_at: Mapped[datetime | None] = mapped_column(MOMENT)
    is_paused: Mapped[bool] = mapped_column(server_default=text("false"))
    paused_at: Mapped[datetime | None] = mapped_column(MOMENT)
    paused_by: Mapped[str | None] = mapped_column(Text)
    paused_reason: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        CheckConstraint(one_of("origin", ORIGINS), name="origin_check"),
        CheckConstraint(one_of("overlap", tuple(OVERLAPS)), name="overlap_check"),
        CheckConstraint(one_of("catch_up", tuple(CATCH_UPS)), name="catch_up_check"),
        CheckConstraint(
            "(catch_up = 'all') = (catch_up_limit IS NOT NULL)", name="catch_up_limit_check"
        ),
        CheckConstraint("catch_up_limit >= 1", name="catch_up_number_check"),
        CheckConstraint(
            "is_paused = (paused_at IS NOT NULL) AND is_paused = (paused_by IS NOT NULL)"
            " AND is_paused = (paused_reason IS NOT NULL)",
            name="paused_check",
        ),
    )


class CronSlot(Base):
    """The result of one slot, or the same result of `slots` slots from `slot_at` to `until_at`.

    A `manual` row is kept in addition to the slot's own row: `slot_at` is the missed slot, or the time when
    somebody ran the entry, and `decided_by` is that person. There are no foreign keys, since the run history
    outlives entries and jobs. `job_state` is the final state of its job.
    """

    __tablename__ = "cron_slots"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=False), primary_key=True)
    entry: Mapped[str] = mapped_column(Text)
    slot_at: Mapped[datetime] = mapped_column(MOMENT)
    until_at: Mapped[datetime] = mapped_column(MOMENT)
    slots: Mapped[int] = mapped_column(Integer, server_default="1")
    result: Mapped[str] = mapped_column(Text)
    why: Mapped[str | None] = mapped_column(Text)
    expression: Mapped[str] = mapped_column(Text)
    zone: Mapped[str] = mapped_column(Text)
    decided_at: Mapped[datetime] = mapped_column(MOMENT)
    decided_by: Mapped[str | None] = mapped_column(Text)
    job_id: Mapped[int | None] = mapped_column(BigInteger)
    job_state: Mapped[str | None] = mapped_column(Text)
    ended_at: Mapped[datetime | None] = mapped_column(MOMENT)

    __table_args__ = (
        CheckConstraint(one_of("result", tuple(RESULTS)), name="result_check"),
        CheckConstraint("slots >= 1 AND until_at >= slot_at", name="run_check"),
        CheckConstraint(one_of("job_state", MANAGED_FINAL), name="job_state_check"),
        CheckConstraint(
            "(job_state IS NULL) = (ended_at IS NULL) AND (job_state IS NULL OR job_id IS NOT NULL)",
            name="job_end_check",
        ),
        CheckConstraint("job_id IS NULL OR slots = 1", name="job_check"),
        CheckConstraint("(result = 'manual') = (decided_by IS NOT NULL)", name="manual_check"),
        # The run history has exactly one result per slot.
        Index(
            "cron_slots_once",
            "entry",
            "slot_at",
            unique=True,
            postgresql_where=text("result <> 'manual'"),
        ),
        Index("cron_slots_by_entry", "entry", text("slot_at DESC"), text("id DESC")),
        Index("cron_slots_by_job", "job_id", postgresql_where=text("job_id IS NOT NULL")),
        Index("cron_slots_missed", "slot_at", postgresql_where=text("result = 'missed'")),
        Index("cron_slots_to_retain", "decided_at"),
    )

"""Reads for pages: the entries with their newest slots, one entry, and the slot that a job runs for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ..core import sql
from .entry_row import CronEntryRow
from .models import CronEntry, CronSlot

MOST_ENTRIES = 500
STRIP = 20
# Of one entry: eight weeks of half hours. A busier one shows its newest.
MOST_SLOTS = 3_000
_WEEKS = timedelta(weeks=8)


@dataclass(frozen=True)
class SlotRow:
    """A row of the run history: one slot, or a run of `slots` of them up to `until_at`."""

    id: int
    entry: str
    slot_at: datetime
    until_at: datetime
    slots: int
    result: str
    why: str | None
    decided_at: datetime
    decided_by: str | None
    job_id: int | None
    job_state: str | None
    ended_at: datetime | None

    @property
    def took_seconds(self) -> float | None:
        """From the record of its job to the end; None before that."""
        return None if self.ended_at is None else (self.ended_at - self.decided_at).total_seconds()


@dataclass(frozen=True)
class Missed:
    """How many slots of an entry were missed at the last, and when the last of them was."""

    slots: int
    last_at: datetime


def list_entries(session: Session) -> list[CronEntryRow]:
    """Every entry, those in use first, by name; at most 500."""
    chosen = select(*_columns()).order_by(CronEntry.retired_at.is_not(None), CronEntry.name)
    return [CronEntryRow(*row) for row in session.execute(chosen.limit(MOST_ENTRIES))]


def find_entry(session: Session, name: str) -> CronEntryRow | None:
    """One entry; None when there is none of that name."""
    row = session.execute(select(*_columns()).where(CronEntry.name == name)).one_or_none()
    return None if row is None else CronEntryRow(*row)


def list_strips(session: Session, names: Sequence[str]) -> dict[str, list[SlotRow]]:
    """The last 20 rows of the run history of each of these entries, the newest first."""
    asked = {"names": list(names), "most": STRIP}
    found: dict[str, list[SlotRow]] = {name: [] for name in names}
    for row in session.connection().exec_driver_sql(sql.load("list_cron_strips"), asked):
        found[row.entry].append(SlotRow(*row))
    return found


def list_missed_lately(session: Session, now: datetime) -> dict[str, Missed]:
    """By entry, the slots that were missed in runs that end within a day; they may begin long before."""
    asked = {"since": now - timedelta(days=1)}
    found = session.connection().exec_driver_sql(sql.load("count_cron_missed"), asked)
    return {row.entry: Missed(int(row.slots), row.last_at) for row in found}


def list_slots(session: Session, name: str, now: datetime) -> list[SlotRow]:
    """The run history of an entry in the last eight weeks, the newest first, at most 3,000 rows.

    A run of slots that reaches into them is there whole: an outage may be longer than eight weeks.
    """
    columns = [getattr(CronSlot, column) for column in SlotRow.__annotations__]
    since = now - _WEEKS
    before = select(CronSlot.slot_at).where(
        CronSlot.entry == name, CronSlot.result != "manual", CronSlot.slot_at <= since
    )
    last_before = before.order_by(CronSlot.slot_at.desc()).limit(1).scalar_subquery()
    mine = select(*columns).where(
        CronSlot.entry == name,
        CronSlot.slot_at >= func.coalesce(last_before, since),
        CronSlot.until_at > since,
    )
    newest = mine.order_by(CronSlot.slot_at.desc(), CronSlot.id.desc()).limit(MOST_SLOTS)
    return [SlotRow(*row) for row in session.execute(newest)]


def find_slot_of(session: Session, job_id: int) -> SlotRow | None:
    """The slot that a job runs for; None for a job of no entry."""
    columns = [getattr(CronSlot, column) for column in SlotRow.__annotations__]
    row = session.execute(select(*columns).where(CronSlot.job_id == job_id).limit(1)).first()
    return None if row is None else SlotRow(*row)


def _columns() -> list[Any]:
    return [getattr(CronEntry, column) for column in CronEntryRow.__annotations__]

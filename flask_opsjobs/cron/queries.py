"""Reads cron entries, their run history, and the slot of a job, for pages and for decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfoNotFoundError

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ..core import sql
from ..core.db import Connection
from .expression import Schedule
from .lifecycle import state_of
from .models import CronEntry, CronSlot


@dataclass(frozen=True)
class CronEntryRow:
    """A stored entry. Every slot up to `checked_until` has its result. `args` are as stored."""

    name: str
    origin: str
    task: str
    expression: str
    zone: str
    overlap: str
    catch_up: str
    catch_up_limit: int | None
    args: Mapping[str, Any]
    checked_until: datetime
    created_at: datetime
    created_by: str
    changed_at: datetime | None
    retired_at: datetime | None
    is_paused: bool
    paused_at: datetime | None
    paused_by: str | None
    paused_reason: str | None
    # The same of its task, which only the cron loop and actions read.
    task_paused_at: datetime | None = None
    task_paused_by: str | None = None
    task_paused_reason: str | None = None

    @property
    def state(self) -> str:
        """`active`, `paused` or `retired`."""
        return state_of(self.is_paused, self.retired_at is not None)

    @property
    def schedule(self) -> Schedule:
        """The entry's expression in its zone."""
        return Schedule(self.expression, self.zone)


MOST_ENTRIES = 500
STRIP_ROWS = 20
# The most rows that the page of an entry shows, the newest first. A slot each half hour makes about this many
# rows in eight weeks.
MOST_HISTORY_ROWS = 3_000
_WEEKS = timedelta(weeks=8)


@dataclass(frozen=True)
class SlotRow:
    """A row of the run history: one slot, or `slots` neighbouring slots up to `until_at`."""

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
        """Seconds from enqueuing its job to the job's end; None before the end."""
        return None if self.ended_at is None else (self.ended_at - self.decided_at).total_seconds()


@dataclass(frozen=True)
class MissedSlots:
    """How many slots of an entry were missed recently, and when the last of them was due."""

    slots: int
    last_at: datetime


def list_entries(session: Session) -> list[CronEntryRow]:
    """The entries, those in use first, by name; at most 500."""
    chosen = select(*_columns()).order_by(CronEntry.retired_at.is_not(None), CronEntry.name)
    return [CronEntryRow(*row) for row in session.execute(chosen.limit(MOST_ENTRIES))]


def find_entry(session: Session, name: str) -> CronEntryRow | None:
    """The entry of this name, or None."""
    row = session.execute(select(*_columns()).where(CronEntry.name == name)).one_or_none()
    return None if row is None else CronEntryRow(*row)


def list_strips(session: Session, names: Sequence[str]) -> dict[str, list[SlotRow]]:
    """The last 20 rows of the run history of each of these entries, newest first."""
    params = {"names": list(names), "most": STRIP_ROWS}
    found: dict[str, list[SlotRow]] = {name: [] for name in names}
    for row in session.connection().exec_driver_sql(sql.load("list_cron_strips"), params):
        found[row.entry].append(SlotRow(*row))
    return found


def list_missed_lately(session: Session, now: datetime) -> dict[str, MissedSlots]:
    """By entry, the missed slots of outages that ended within the last day, even if they began earlier."""
    params = {"since": now - timedelta(days=1)}
    found = session.connection().exec_driver_sql(sql.load("count_cron_missed"), params)
    return {row.entry: MissedSlots(int(row.slots), row.last_at) for row in found}


def list_slots(session: Session, name: str, now: datetime) -> list[SlotRow]:
    """The run history of an entry in the last eight weeks, newest first, at most 3,000 rows.

    A row that stands for many slots is included when its last slot is in these eight weeks. Its first slot
    may be older.
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
    newest = mine.order_by(CronSlot.slot_at.desc(), CronSlot.id.desc()).limit(MOST_HISTORY_ROWS)
    return [SlotRow(*row) for row in session.execute(newest)]


def list_newest_slots(session: Session, name: str, limit: int) -> list[SlotRow]:
    """The last rows of the run history of an entry, newest first, also of a deleted one."""
    columns = [getattr(CronSlot, column) for column in SlotRow.__annotations__]
    newest = select(*columns).where(CronSlot.entry == name)
    newest = newest.order_by(CronSlot.slot_at.desc(), CronSlot.id.desc())
    return [SlotRow(*row) for row in session.execute(newest.limit(limit))]


def find_slot_of(session: Session, job_id: int) -> SlotRow | None:
    """The slot for which a job was enqueued; None when no cron entry enqueued it."""
    columns = [getattr(CronSlot, column) for column in SlotRow.__annotations__]
    row = session.execute(select(*columns).where(CronSlot.job_id == job_id).limit(1)).first()
    return None if row is None else SlotRow(*row)


def _columns() -> list[Any]:
    names = CronEntryRow.__annotations__
    return [getattr(CronEntry, name) for name in names if not name.startswith("task_")]


# The most rows of the run history that are read. One row may stand for many slots.
_MOST_ROWS = 200


def list_missed(connection: Connection, name: str, most: int) -> list[datetime]:
    """The last `most` missed slots for which no job was enqueued later (by Catch up), oldest first.

    Locks nothing. When a row stands for many slots, they are computed from the expression and zone stored in
    that row.
    """
    params = {"entry": name, "most": _MOST_ROWS}
    found: list[datetime] = []
    for row in connection.execute(sql.load("list_cron_missed"), params):
        first, last, number, expression, zone, done = row
        caught_up = set(done)
        slots = [first]
        if number > 1:
            schedule = Schedule(expression, zone)
            try:
                slots = schedule.slots_between(first - timedelta(seconds=1), last, number)
            except ZoneInfoNotFoundError:
                continue  # this machine no longer knows the zone, so the slots cannot be computed
        found += [slot for slot in reversed(slots) if slot not in caught_up]
        if len(found) >= most:
            break
    return sorted(found[:most])

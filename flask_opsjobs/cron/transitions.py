"""Writes to the tables of cron: takes entries over from code, locks them, and records the results of slots.

Every function is part of the caller's transaction. Lock order: the jobs of an entry, then the entry; entries by name.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Rollback
from psycopg.rows import class_row

from ..core import sql
from ..core.db import Connection
from .declaration import EntryDeclaration
from .entry_row import CronEntryRow


@dataclass(frozen=True)
class Unfinished:
    """A job of an entry that has not ended."""

    id: int
    state: str
    queue: str
    dispatch_no: int
    worker: str | None


@dataclass(frozen=True)
class Slot:
    """A row of the run history as it is written; `until_at` and `slots` differ from one slot's for a run of them."""

    slot_at: datetime
    result: str
    why: str | None = None
    job_id: int | None = None
    until_at: datetime | None = None
    slots: int = 1
    decided_by: str | None = None


def list_entries(connection: Connection) -> list[CronEntryRow]:
    """Every entry that is not retired, by name. Locks nothing."""
    return _rows(connection, "list_cron_entries", {"names": None})


def look(connection: Connection, names: Collection[str]) -> dict[str, CronEntryRow]:
    """These entries, retired ones too, by name. Locks nothing."""
    found = _rows(connection, "list_cron_entries", {"names": list(names)})
    return {entry.name: entry for entry in found}


def lock(connection: Connection, names: Collection[str]) -> dict[str, CronEntryRow]:
    """Lock these entries by name, and how they stand then."""
    connection.execute(sql.load("lock_cron_entries"), {"names": sorted(names)})
    return look(connection, names)


def lock_to_decide(connection: Connection, names: Collection[str]) -> dict[str, CronEntryRow]:
    """Lock these entries, and before them the jobs that a decision may have to stop; how the entries stand then.

    Between the two an entry may come to stop jobs, or get another job: whose end would hold it and wait for the entry,
    while we wait for it. Then all is let go, and locked in order once more.
    """
    while True:
        with connection.transaction() as savepoint:
            held = {
                job_id
                for entry in look(connection, names).values()
                if entry.overlap == "cancel_previous"
                for job_id in _lock_jobs(connection, entry.name)
            }
            found = lock(connection, names)
            if all(held.issuperset(_to_stop(connection, entry)) for entry in found.values()):
                return found
            raise Rollback(savepoint)


def _lock_jobs(connection: Connection, name: str) -> list[int]:
    """Lock the jobs of an entry that have not ended, in id order."""
    return [id for (id,) in connection.execute(sql.load("lock_jobs_of_cron"), {"name": name})]


def _to_stop(connection: Connection, entry: CronEntryRow) -> list[int]:
    if entry.overlap != "cancel_previous":
        return []
    return [job.id for job in list_unfinished(connection, entry.name)]


def list_unfinished(connection: Connection, name: str) -> list[Unfinished]:
    """The jobs of an entry that have not ended, the oldest first. Locks nothing."""
    with connection.cursor(row_factory=class_row(Unfinished)) as cursor:
        return cursor.execute(sql.load("list_unfinished_of_cron"), {"name": name}).fetchall()


def create(
    connection: Connection, entry: EntryDeclaration, origin: str, by: str, now: datetime
) -> bool:
    """Enter an entry; its first slot is the next without a result. False when another process entered it meanwhile."""
    asked = {"name": entry.name, "origin": origin, "by": by, "now": now, **_columns(entry)}
    return connection.execute(sql.load("create_cron_entry"), asked).rowcount == 1


def change(connection: Connection, entry: EntryDeclaration, origin: str, now: datetime) -> None:
    """Let a locked entry say something else from now on, in use again if it was retired; its run history stays."""
    asked = {"name": entry.name, "origin": origin, "now": now, **_columns(entry)}
    connection.execute(sql.load("change_cron_entry"), asked)


def retire(connection: Connection, name: str, now: datetime) -> None:
    """Let a locked entry have no more slots."""
    connection.execute(sql.load("retire_cron_entry"), {"name": name, "now": now})


def delete(connection: Connection, names: Collection[str]) -> None:
    """Remove locked entries; their run history stays."""
    connection.execute(sql.load("delete_cron_entries"), {"names": list(names)})


def pause(connection: Connection, name: str, actor: str, reason: str, now: datetime) -> None:
    """Keep the slots of a locked entry as paused from now on."""
    asked = {"name": name, "actor": actor, "reason": reason, "now": now}
    connection.execute(sql.load("pause_cron_entry"), asked)


def resume(connection: Connection, name: str) -> None:
    """Run the slots of a locked entry again."""
    connection.execute(sql.load("resume_cron_entry"), {"name": name})


def write_result(connection: Connection, entry: CronEntryRow, slot: Slot, now: datetime) -> None:
    """Write the result of a slot, or of a run of them, of a locked entry."""
    row = {
        "entry": entry.name,
        "expression": entry.expression,
        "zone": entry.zone,
        "now": now,
        **vars(slot),
        "until_at": slot.until_at or slot.slot_at,
    }
    connection.execute(sql.load("insert_cron_slot"), row)


def move_on(connection: Connection, name: str, until: datetime) -> None:
    """Say that every slot of a locked entry up to `until` has its result."""
    connection.execute(sql.load("move_cron_entry_on"), {"name": name, "until": until})


def note_job_ends(connection: Connection, states: Mapping[int, str], now: datetime) -> None:
    """Tell the slots of jobs that ended, given by id with their final states."""
    asked = {"ids": list(states), "states": list(states.values()), "now": now}
    connection.execute(sql.load("note_cron_job_ends"), asked)


def forget_job_ends(connection: Connection, ids: Collection[int]) -> None:
    """Take back from slots how their jobs ended, as these are tried once more.

    Locks the entries: whoever holds one has locked its jobs that have not ended, and must not meet another.
    """
    connection.execute(sql.load("lock_cron_entries_of_jobs"), {"ids": list(ids)})
    connection.execute(sql.load("forget_cron_job_ends"), {"ids": list(ids)})


def release(
    connection: Connection, names: Collection[str], now: datetime
) -> Sequence[tuple[str, str]]:
    """Make the jobs that wait behind others of these entries available when none is left; their (lane, queue).

    Locks the entries first and looks in a statement of its own: of two that end at once, the second sees the first.
    """
    connection.execute(sql.load("lock_cron_entries"), {"names": sorted(names)})
    asked = {"names": list(names), "now": now}
    return connection.execute(sql.load("release_cron_jobs"), asked).fetchall()


def find_gap(connection: Connection, slot_at: datetime) -> tuple[datetime | None, datetime | None]:
    """When the cron loop was last awake of a stretch that began before a slot, and first awake again after it.

    The first is after the slot when a scheduler was awake at it; each is None when no pass is known.
    """
    row = connection.execute(sql.load("find_cron_gap"), {"slot_at": slot_at}).fetchone()
    return (row[0], row[1]) if row else (None, None)


def list_waiting_behind(connection: Connection) -> list[str]:
    """The entries that have a job waiting behind, by name. Locks nothing."""
    return [name for (name,) in connection.execute(sql.load("list_cron_waiting_behind"))]


def _columns(entry: EntryDeclaration) -> dict[str, Any]:
    return {**entry.columns, "args": json.dumps(entry.columns["args"])}


def _rows(connection: Connection, statement: str, asked: Mapping[str, Any]) -> list[CronEntryRow]:
    with connection.cursor(row_factory=class_row(CronEntryRow)) as cursor:
        return cursor.execute(sql.load(statement), asked).fetchall()

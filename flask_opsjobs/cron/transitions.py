"""Writes to the tables of cron: creates, changes and locks entries, and records the results of slots.

Every function runs in the caller's transaction. Lock order: the jobs of an entry, then the entry; entries by
name.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Rollback
from psycopg.rows import class_row

from .. import signals
from ..core import sql
from ..core.db import Connection
from .declaration import EntryDeclaration
from .queries import CronEntryRow


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
    """A row of the run history to be written.

    `until_at` and `slots` are set when it stands for several slots.
    """

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


def read(connection: Connection, names: Collection[str]) -> dict[str, CronEntryRow]:
    """These entries by name, including retired ones. Locks nothing."""
    found = _rows(connection, "list_cron_entries", {"names": list(names)})
    return {entry.name: entry for entry in found}


def lock(connection: Connection, names: Collection[str]) -> dict[str, CronEntryRow]:
    """Lock these entries in the order of their names, and return them as they are then."""
    connection.execute(sql.load("lock_cron_entries"), {"names": sorted(names)})
    return read(connection, names)


def lock_to_decide(connection: Connection, names: Collection[str]) -> dict[str, CronEntryRow]:
    """Lock the jobs that a decision may have to stop, then these entries. Returns the entries.

    Between the two steps a new job may be enqueued for an entry. The end of that job would lock the job and
    wait for the entry, while we hold the entry and wait for the job: a deadlock. If there is such a job,
    the function releases all locks and begins again.
    """
    while True:
        with connection.transaction() as savepoint:
            held = {
                job_id
                for entry in read(connection, names).values()
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
    """The jobs of an entry that have not ended, oldest first. Locks nothing."""
    with connection.cursor(row_factory=class_row(Unfinished)) as cursor:
        return cursor.execute(sql.load("list_unfinished_of_cron"), {"name": name}).fetchall()


def create(
    connection: Connection, entry: EntryDeclaration, origin: str, by: str, now: datetime
) -> bool:
    """Create an entry. Its first slot is the next one without a result.

    False when another process created it first.
    """
    params = {"name": entry.name, "origin": origin, "by": by, "now": now, **_columns(entry)}
    return connection.execute(sql.load("create_cron_entry"), params).rowcount == 1


def change(connection: Connection, entry: EntryDeclaration, origin: str, now: datetime) -> None:
    """Change a locked entry from now on, and take it back into use if it was retired.

    Its run history stays.
    """
    params = {"name": entry.name, "origin": origin, "now": now, **_columns(entry)}
    connection.execute(sql.load("change_cron_entry"), params)


def retire(connection: Connection, name: str, now: datetime) -> None:
    """Retire a locked entry: it has no more slots."""
    connection.execute(sql.load("retire_cron_entry"), {"name": name, "now": now})


def delete(connection: Connection, names: Collection[str]) -> None:
    """Delete locked entries. Their run history stays."""
    connection.execute(sql.load("delete_cron_entries"), {"names": list(names)})


def pause(connection: Connection, name: str, actor: str, reason: str, now: datetime) -> None:
    """Pause a locked entry: from now on its slots get the result `paused`."""
    params = {"name": name, "actor": actor, "reason": reason, "now": now}
    connection.execute(sql.load("pause_cron_entry"), params)


def resume(connection: Connection, name: str) -> None:
    """Resume a locked entry: its next slots run again."""
    connection.execute(sql.load("resume_cron_entry"), {"name": name})


def write_result(connection: Connection, entry: CronEntryRow, slot: Slot, now: datetime) -> None:
    """Write the result of one slot of a locked entry, or of several neighbouring slots."""
    row = {
        "entry": entry.name,
        "expression": entry.expression,
        "zone": entry.zone,
        "now": now,
        **vars(slot),
        "until_at": slot.until_at or slot.slot_at,
    }
    connection.execute(sql.load("insert_cron_slot"), row)
    signals.send(
        signals.cron_slot_decided,
        entry=entry.name,
        slot_at=slot.slot_at,
        result=slot.result,
        slots=slot.slots,
        job_id=slot.job_id,
    )


def move_on(connection: Connection, name: str, until: datetime) -> None:
    """Record that every slot of a locked entry up to `until` has its result."""
    connection.execute(sql.load("move_cron_entry_on"), {"name": name, "until": until})


def note_job_ends(connection: Connection, states: Mapping[int, str], now: datetime) -> None:
    """Record in the run history how jobs ended, given their final states by id."""
    params = {"ids": list(states), "states": list(states.values()), "now": now}
    connection.execute(sql.load("note_cron_job_ends"), params)


def forget_job_ends(connection: Connection, ids: Collection[int]) -> None:
    """Clear in the run history how these jobs ended, since they are retried.

    Locks the entries: a transaction that holds an entry relies on having locked all its unfinished jobs.
    """
    connection.execute(sql.load("lock_cron_entries_of_jobs"), {"ids": list(ids)})
    connection.execute(sql.load("forget_cron_job_ends"), {"ids": list(ids)})


def release(
    connection: Connection, names: Collection[str], now: datetime
) -> Sequence[tuple[str, str]]:
    """For each entry whose unfinished jobs are all `deferred`: make the oldest of them available.

    Returns their (lane, queue). Locks the entries first and reads in a second statement. So when two jobs
    end at the same time, the later transaction sees the end of the earlier one.
    """
    connection.execute(sql.load("lock_cron_entries"), {"names": sorted(names)})
    params = {"names": list(names), "now": now}
    return connection.execute(sql.load("release_cron_jobs"), params).fetchall()


def find_gap(connection: Connection, slot_at: datetime) -> tuple[datetime | None, datetime | None]:
    """When cron loops ran around a slot: the last pass of earlier loops, the start of the next loop.

    First time: the last pass of any cron loop that had started by the slot. If a cron loop was running at the
    slot, this time is after it. Second time: the start of the first cron loop after the slot. Each is None
    when it is unknown.
    """
    row = connection.execute(sql.load("find_cron_gap"), {"slot_at": slot_at}).fetchone()
    return (row[0], row[1]) if row else (None, None)


def list_waiting_behind(connection: Connection) -> list[str]:
    """The names of the entries with a job that waits behind another. Locks nothing."""
    return [name for (name,) in connection.execute(sql.load("list_cron_waiting_behind"))]


def _columns(entry: EntryDeclaration) -> dict[str, Any]:
    return {**entry.columns, "args": json.dumps(entry.columns["args"])}


def _rows(connection: Connection, statement: str, params: Mapping[str, Any]) -> list[CronEntryRow]:
    with connection.cursor(row_factory=class_row(CronEntryRow)) as cursor:
        return cursor.execute(sql.load(statement), params).fetchall()

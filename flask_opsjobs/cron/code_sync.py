"""Copies the cron entries that code declares into the database: creates, changes and retires rows.

Entries that were made at runtime lose the values of parameters that code has since declared redacted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..core.db import Connection
from ..jobs.record.declaration import TaskDeclaration
from . import transitions
from .decide_slots import SlotDecider, SlotReport
from .declaration import EntryDeclaration
from .queries import CronEntryRow


def sync_declared(
    decider: SlotDecider, entry: EntryDeclaration, by: str, report: SlotReport
) -> str | None:
    """Create or change the row of one declared entry, in the caller's transaction.

    Returns what was done: `entered`, `changed`, `in use again`, or None for nothing. Due slots of the old
    schedule are decided first, so their results follow the old schedule. While `report.has_more`, only a
    part of them was decided: call it again, in another transaction.
    """
    connection, now = decider.connection, decider.now
    found = transitions.read(connection, [entry.name]).get(entry.name)
    if found is None and transitions.create(connection, entry, "code", by, now):
        return "entered"
    if found is not None and _is_in_use(found, entry):
        return None
    found = decider.decide_to_change(entry.name, report)
    if found is None or report.has_more or _is_in_use(found, entry):
        return None
    transitions.change(connection, entry, "code", now)
    return "changed" if found.state != "retired" else "in use again"


def _is_in_use(found: CronEntryRow, entry: EntryDeclaration) -> bool:
    """Whether the row is what code declares."""
    is_same = all(getattr(found, name) == value for name, value in entry.columns.items())
    return is_same and found.origin == "code" and found.state != "retired"


def retire(decider: SlotDecider, name: str, report: SlotReport) -> None:
    """Retire an entry that code no longer declares, in the caller's transaction, as `sync_declared` does."""
    decider.decide_to_change(name, report)
    if not report.has_more:
        transitions.retire(decider.connection, name, decider.now)


def list_gone(connection: Connection, declared: Mapping[str, EntryDeclaration]) -> list[str]:
    """The entries in use that came from code, which no longer declares them. Locks nothing."""
    entries = transitions.list_entries(connection)
    return [
        entry.name for entry in entries if entry.origin == "code" and entry.name not in declared
    ]


def list_unredacted(connection: Connection, tasks: Mapping[str, TaskDeclaration]) -> list[str]:
    """The entries in use that hold the value of a redacted argument. Locks nothing."""
    return [
        entry.name
        for entry in transitions.list_entries(connection)
        if (task := tasks.get(entry.task)) and not task.redact.isdisjoint(entry.args)
    ]


def redact(decider: SlotDecider, name: str, report: SlotReport) -> None:
    """Drop an entry's values of redacted arguments, in the caller's transaction, as `sync_declared` does.

    Otherwise each decision about the entry would copy them into the audit.
    """
    found = decider.decide_to_change(name, report)
    task = None if found is None else decider.host.tasks.get(found.task)
    # The entry may have been retired since it was listed. A change would take it back into use.
    if found is None or found.state == "retired" or task is None or report.has_more:
        return
    args = {key: value for key, value in found.args.items() if key not in task.redact}
    transitions.change(
        decider.connection, replace(wanted_of(found), args=args), found.origin, decider.now
    )


def wanted_of(entry: CronEntryRow) -> EntryDeclaration:
    """The declaration of an entry, without its state."""
    policies = (entry.overlap, entry.catch_up, entry.catch_up_limit)
    return EntryDeclaration(entry.name, entry.task, entry.schedule, *policies, entry.args)

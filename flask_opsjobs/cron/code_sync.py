"""Takes over the cron entries that code declares: enters new ones, changes changed ones, retires those that are gone.

What was made at runtime loses the values of parameters that code has declared redacted since.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..core.db import Connection
from ..jobs.record.task import Task
from . import transitions
from .decide_slots import SlotDecider, SlotReport
from .declaration import EntryDeclaration
from .entry_row import CronEntryRow


def sync_declared(
    decider: SlotDecider, entry: EntryDeclaration, by: str, report: SlotReport
) -> str | None:
    """Take one declared entry over, in the caller's transaction; what was done to it, None for nothing.

    The slots of its old schedule are decided first, so their results follow the old schedule.
    """
    connection, now = decider.connection, decider.now
    found = decider.decide_all(entry.name, report)
    if found is None:
        if transitions.create(connection, entry, "code", by, now):
            return "entered"
        found = decider.decide_all(entry.name, report)
        assert found is not None
    is_same = all(getattr(found, name) == value for name, value in entry.columns.items())
    if is_same and found.origin == "code" and found.state != "retired":
        return None
    transitions.change(connection, entry, "code", now)
    return "changed" if found.state != "retired" else "in use again"


def retire(decider: SlotDecider, name: str, report: SlotReport) -> None:
    """Retire an entry that code declares no longer, in the caller's transaction."""
    decider.decide_all(name, report)
    transitions.retire(decider.connection, name, decider.now)


def list_gone(connection: Connection, declared: dict[str, EntryDeclaration]) -> list[str]:
    """The entries in use that came from code and are declared no longer. Locks nothing."""
    entries = transitions.list_entries(connection)
    return [
        entry.name for entry in entries if entry.origin == "code" and entry.name not in declared
    ]


def list_unredacted(connection: Connection, tasks: Mapping[str, Task]) -> list[str]:
    """The entries in use that keep a value which must not be stored. Locks nothing."""
    return [
        entry.name
        for entry in transitions.list_entries(connection)
        if (task := tasks.get(entry.task)) and not task.redact.isdisjoint(entry.args)
    ]


def redact(decider: SlotDecider, name: str, report: SlotReport) -> None:
    """Drop what an entry must not keep, in the caller's transaction: each decision would copy it into the audit."""
    found = decider.decide_all(name, report)
    task = None if found is None else decider.host.tasks.get(found.task)
    # One that was retired since it was listed stays so: a change would take it back into use.
    if found is None or found.state == "retired" or task is None:
        return
    args = {key: value for key, value in found.args.items() if key not in task.redact}
    transitions.change(
        decider.connection, replace(wanted_of(found), args=args), found.origin, decider.now
    )


def wanted_of(entry: CronEntryRow) -> EntryDeclaration:
    """What an entry says, without how it stands."""
    policies = (entry.overlap, entry.catch_up, entry.catch_up_limit)
    return EntryDeclaration(entry.name, entry.task, entry.schedule, *policies, entry.args)

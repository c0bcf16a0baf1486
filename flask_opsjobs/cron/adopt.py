"""Taking over what code declares: new entries are entered, changed ones changed, those that are gone retired.

What was made at runtime loses the values of parameters that code has declared redacted since.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..db import Connection
from ..jobs.task import Task
from . import transitions
from .declaration import Entry
from .settle import Settled, Settling
from .standing import Standing


def adopt(settling: Settling, entry: Entry, by: str, into: Settled) -> str | None:
    """Take one declared entry over, in the caller's transaction; what was done to it, None for nothing.

    What it said before is settled first, so that the slots of that time have the fates of that time.
    """
    connection, now = settling.connection, settling.now
    found = settling.settle_all(entry.name, into)
    if found is None:
        if transitions.create(connection, entry, "code", by, now):
            return "entered"
        found = settling.settle_all(entry.name, into)
        assert found is not None
    is_same = all(getattr(found, name) == value for name, value in entry.columns.items())
    if is_same and found.origin == "code" and found.state != "retired":
        return None
    transitions.change(connection, entry, "code", now)
    return "changed" if found.state != "retired" else "in use again"


def retire(settling: Settling, name: str, into: Settled) -> None:
    """Retire an entry that code declares no longer, in the caller's transaction."""
    settling.settle_all(name, into)
    transitions.retire(settling.connection, name, settling.now)


def list_gone(connection: Connection, declared: dict[str, Entry]) -> list[str]:
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


def redact(settling: Settling, name: str, into: Settled) -> None:
    """Drop what an entry must not keep, in the caller's transaction: each decision would copy it into the audit."""
    found = settling.settle_all(name, into)
    task = None if found is None else settling.host.tasks.get(found.task)
    # One that was retired since it was listed stays so: a change would take it back into use.
    if found is None or found.state == "retired" or task is None:
        return
    args = {key: value for key, value in found.args.items() if key not in task.redact}
    transitions.change(
        settling.connection, replace(wanted_of(found), args=args), found.origin, settling.now
    )


def wanted_of(entry: Standing) -> Entry:
    """What an entry says, without how it stands."""
    policies = (entry.overlap, entry.catch_up, entry.catch_up_limit)
    return Entry(entry.name, entry.task, entry.schedule, *policies, entry.args)

"""Taking over what code declares: new entries are entered, changed ones changed, those that are gone retired."""

from __future__ import annotations

from ..db import Connection
from . import transitions
from .declaration import Entry
from .settle import Settled, Settling


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

"""Lists what an action would change in a cron entry, and the facts by which a preview is compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..actions.shapes import Change
from ..actions.target_plan import exact
from .queries import CronEntryRow


def facts_of_entry(entry: CronEntryRow) -> dict[str, Any]:
    """The facts that a plan for the entry depends on.

    Leaves out `checked_until`, which moves with every slot.
    """
    return {
        "state": entry.state,
        "origin": entry.origin,
        "task": entry.task,
        "expression": entry.expression,
        "zone": entry.zone,
        "overlap": entry.overlap,
        "catch_up": entry.catch_up if entry.catch_up_limit is None else entry.catch_up_limit,
        "args": dict(entry.args),
        "paused_at": exact(entry.paused_at),
        "paused_by": entry.paused_by,
    }


def changes_of(entry: CronEntryRow | None, params: Mapping[str, Any]) -> list[Change]:
    """The values in `params` that differ from the entry's; all of them when there is no entry."""
    before = {} if entry is None else facts_of_entry(entry)
    return [
        Change(name, _words(before.get(name)), _words(value))
        for name, value in params.items()
        if entry is None or before[name] != value
    ]


def _words(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) else json.dumps(value)

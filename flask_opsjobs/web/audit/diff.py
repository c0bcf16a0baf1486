"""Compares two JSON values, and returns the lines that differ, each through the display policy."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ...core.display import NO_PAYLOAD
from ..app.display import PageDisplay

_MOST_LINES = 200
_LONGEST = 500

_Path = tuple[str, ...]
# Whether payload of a target, such as `cron/hourly`, may be shown.
_Sees = Callable[[str], bool]


@dataclass(frozen=True)
class DiffLine:
    """One named value before and after; None means that there was no value."""

    name: Markup
    before: Markup | None
    after: Markup | None


@dataclass(frozen=True)
class Diff:
    """The lines that differ, by target; `same` counts equal values, `left_out` the lines beyond the limit."""

    groups: Mapping[str, Sequence[DiffLine]]
    same: int
    left_out: int


def diff(before: Any, after: Any, display: PageDisplay, sees: _Sees) -> Diff:
    """The difference between `before` and `after`. When one is None, all of the other is shown."""
    old, new = (dict(_leaves(side, sees)) for side in (before, after))
    # A deleted target is None on one side and has values on the other: show only the values.
    inner = {path[:depth] for path in (*old, *new) for depth in range(1, len(path))}
    paths = [path for path in dict.fromkeys([*old, *new]) if path not in inner]
    differing = [
        path for path in paths if path not in old or path not in new or old[path] != new[path]
    ]
    groups: dict[str, list[DiffLine]] = {}
    for path in differing[:_MOST_LINES]:
        group, names = (display.clean(path[0]), path[1:]) if len(path) > 1 else ("", path)
        sides = [_shown(side, path, display, sees) for side in (old, new)]
        name = display.label(" · ".join(names) or "value")
        groups.setdefault(group, []).append(DiffLine(name, *sides))
    return Diff(groups, len(paths) - len(differing), max(0, len(differing) - _MOST_LINES))


def without_payload(facts: Any, sees: _Sees) -> Any:
    """The facts of a decision, by target, with a note in place of payload that the actor may not see."""
    if not isinstance(facts, dict):
        return facts
    return {
        target: {
            name: NO_PAYLOAD if _is_hidden((target, name), sees) else value
            for name, value in found.items()
        }
        if isinstance(found, dict)
        else found
        for target, found in facts.items()
    }


def _is_hidden(path: _Path, sees: _Sees) -> bool:
    """Whether the path is the arguments of a cron entry, payload that the actor may not see.

    No other fact of a decision is payload.
    """
    is_payload = len(path) == 2 and path[0].startswith("cron/") and path[1] == "args"
    return is_payload and not sees(path[0])


def _leaves(value: Any, sees: _Sees, path: _Path = ()) -> Iterator[tuple[_Path, Any]]:
    """Every value that is not an object, with the path of keys to it. A top-level None yields nothing.

    Hidden payload counts as one value, because its keys would reveal something too.
    """
    if isinstance(value, dict) and not _is_hidden(path, sees):
        for key, one in value.items():
            yield from _leaves(one, sees, (*path, key))
    elif path or value is not None:
        yield path, value


def _shown(
    side: Mapping[_Path, Any], path: _Path, display: PageDisplay, sees: _Sees
) -> Markup | None:
    value = side.get(path)
    if value is None:
        return None
    if _is_hidden(path, sees):
        return display.label(NO_PAYLOAD)
    hidden = next(filter(None, map(display.hides, path)), None)
    if hidden is not None:
        return display.label(hidden)
    if isinstance(value, str):
        return display.label(display.start(value, _LONGEST))
    return display.label(display.plain(json.dumps(value), most=_LONGEST))

"""Decides and applies the actions on limiters, with the writes of `limits`.

A target is `limiter/api`, the whole limiter, or `limiter/api/42`, its partition 42. A limiter's name has no
slash, so the text of a partition may have some; `limiter/api/` is the partition with an empty name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from ..actions.domain import (
    Action,
    Request,
    exact,
    make_item,
    make_skip,
    moment_in_words,
    read_whole,
    say_target,
)
from ..actions.effects import Effect
from ..actions.shapes import Change, Item, Skip
from ..core.db import Connection
from . import transitions as limit_transitions
from .transitions import Cooldown, Part

_TARGET = re.compile(r"limiter/[A-Za-z0-9_.:\-]{1,200}(/[^\0\ud800-\udfff]{0,200})?", re.DOTALL)
# A year.
LONGEST_MINUTES = 525_600


def make_target(limiter: str, partition: str | None = None) -> str:
    """The target for a limiter, or for one partition of it."""
    return f"limiter/{limiter}" + ("" if partition is None else f"/{partition}")


def split_target(target: str) -> Part:
    """The limiter and the partition of a target; the partition is None for the whole limiter."""
    limiter, bar, partition = target.removeprefix("limiter/").partition("/")
    return limiter, partition if bar else None


def read_target(text: str) -> str | None:
    """The target unchanged; None when the text names no limiter."""
    return text if _TARGET.fullmatch(text) else None


def lock_rows(connection: Connection, _request: Request, targets: Collection[str]) -> None:
    """Lock the limiters of these targets until the commit."""
    limit_transitions.lock_limiters(connection, map(split_target, targets))


def find_rows(
    connection: Connection, _request: Request, targets: Collection[str]
) -> dict[str, Cooldown]:
    """The cooldowns of these targets, without those of limiters that no process has declared."""
    found = limit_transitions.read_cooldowns(connection, map(split_target, targets))
    return {cooldown.target: cooldown for cooldown in found.values()}


def say_unknown(target: str) -> str:
    """The sentence about a limiter that no process has declared."""
    return f"no process has declared the {say_target(target)}"


def forbid(found: Cooldown, request: Request) -> Skip | None:
    """Why the limiter's state forbids the action; None when it allows it."""
    is_cooling = found.is_cooling(request.now)
    # A partition may still cool down after a deploy removed partitions. Its jobs wait, so it can be cleared.
    if found.partition and not found.is_partitioned and not is_cooling:
        return make_skip(found, "not_found", f"limiter {found.limiter} has no partitions")
    if state_of(is_cooling) not in request.action.sources:
        return make_skip(found, "already", f"{say_target(found.target)} has no cooldown")
    return None


def list_facts(found: Cooldown, _now: datetime) -> dict[str, Any]:
    """The values that must not have changed since the preview."""
    return {
        "cooldown_at": exact(found.cooldown_at),
        "cooldown_until": exact(found.cooldown_until),
        "cooldown_by": found.cooldown_by,
    }


def state_of(is_cooling: bool) -> str:
    """The state of a limiter or a partition, as the actions name it."""
    return "cooling" if is_cooling else "open"


def _change_cooldown(found: Cooldown, after: str | None, request: Request, *, note: str) -> Item:
    before = None
    if found.is_cooling(request.now):
        before = f"until {moment_in_words(found.cooldown_until)}, by {found.cooldown_by}"
    return make_item(found, Change("cooldown", before, after), note=note)


# --- cooldown


def _read_minutes(request: Request) -> dict[str, Any]:
    return {"minutes": read_whole(request.params["minutes"], LONGEST_MINUTES, "minutes are {}")}


def _decide_cooldown(found: Cooldown, request: Request) -> Item | Skip:
    minutes = request.params["minutes"]
    note = f"{minutes} min from when the action is executed"
    return _change_cooldown(found, f"until {moment_in_words(_until(request))}", request, note=note)


def _apply_cooldown(
    connection: Connection, request: Request, found: Sequence[Cooldown]
) -> list[Effect | Item]:
    actor, reason = request.actor, request.reason
    parts = [each.part for each in found]
    limit_transitions.cool_down(connection, parts, _until(request), actor, reason, request.now)
    return []


def _until(request: Request) -> datetime:
    return request.now + timedelta(minutes=request.params["minutes"])


# --- clear: the dispatch loop then dispatches the jobs


def _decide_clear(found: Cooldown, request: Request) -> Item | Skip:
    note = "waiting jobs start within about a second, as far as the limiter allows"
    return _change_cooldown(found, None, request, note=note)


def _apply_clear(
    connection: Connection, request: Request, found: Sequence[Cooldown]
) -> list[Effect | Item]:
    limit_transitions.clear_cooldown(connection, [each.part for each in found], request.now)
    return []


# In the order of their buttons.
ACTIONS: tuple[Action[Cooldown], ...] = (
    Action(
        name="limiter.cooldown",
        title="Cool down",
        phrase="cool {} down",
        sources=("open", "cooling"),
        risk="No job of the limiter starts until then, even if its rate and places allow it. "
        "Running jobs continue.",
        params=("minutes",),
        read_params=_read_minutes,
        decide=_decide_cooldown,
        apply=_apply_cooldown,
    ),
    Action(
        name="limiter.clear",
        title="Clear cooldown",
        phrase="clear the cooldown of {}",
        sources=("cooling",),
        risk="Waiting jobs start again, as many at once as the limiter's burst and places allow.",
        decide=_decide_clear,
        apply=_apply_clear,
    ),
)

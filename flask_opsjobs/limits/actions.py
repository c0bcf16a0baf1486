"""Decides and applies the actions on limiters, with the writes of `limits`.

A target is `limiter/api`, the whole limiter, or `limiter/api/42`, its partition 42. A limiter's name has no
slash, so the text of a partition may have some; `limiter/api/` is the partition with an empty name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from ..actions.catalog import Action
from ..actions.numbers import read_whole
from ..actions.shapes import Change
from ..actions.target_plan import (
    Decided,
    TargetPlan,
    Written,
    do,
    exact,
    illegal,
    leave,
    moment_in_words,
)
from ..core.db import Connection
from ..host import Host
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


def read_params(_host: Host, _action: Action, given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters beside the targets, in canonical values. Raises `ValueError` with the allowed values."""
    return {
        name: read_whole(value, LONGEST_MINUTES, "minutes are {}") for name, value in given.items()
    }


def decide(
    connection: Connection,
    _host: Host,
    action: Action,
    targets: Sequence[str],
    decided: Decided,
    *,
    lock: bool,
) -> list[TargetPlan]:
    """What the action would do with each of these limiters and partitions.

    `lock` locks the limiters' rows.
    """
    parts = {target: split_target(target) for target in targets}
    if lock:
        limit_transitions.lock_limiters(connection, parts.values())
    found = limit_transitions.look_at_cooldowns(connection, parts.values())
    return [_decide_one(action, target, found.get(part), decided) for target, part in parts.items()]


def apply(
    connection: Connection,
    _host: Host,
    action: Action,
    target_plans: Sequence[TargetPlan],
    decided: Decided,
) -> Written:
    """Write the action on limiters that the caller has locked. The dispatch loop then dispatches the jobs."""
    parts = [target_plan.row.part for target_plan in target_plans]
    if action.short_name == "cooldown":
        until = _until(decided)
        limit_transitions.cool_down(
            connection, parts, until, decided.actor, decided.reason, decided.now
        )
    else:
        limit_transitions.clear(connection, parts, decided.now)
    after = {
        make_target(*part): _facts(found)
        for part, found in limit_transitions.look_at_cooldowns(connection, parts).items()
    }
    return Written(tuple(v.item for v in target_plans if v.item is not None), after)


def _decide_one(
    action: Action, target: str, found: Cooldown | None, decided: Decided
) -> TargetPlan:
    name = target.partition("/")[2]
    if found is None:
        sentence = f"no process has declared the {target.replace('/', ' ', 1)}"
        return leave(target, None, {}, "not_found", sentence)
    facts = _facts(found)
    # A partition may still cool down after a deploy removed partitions. Its jobs wait, so it can be cleared.
    if found.partition and not found.is_partitioned and not found.is_cooling(decided.now):
        sentence = f"limiter {found.limiter} has no partitions"
        return leave(target, name, facts, "not_found", sentence)
    state = "cooling" if found.is_cooling(decided.now) else "open"
    if state not in action.sources:
        if action.short_name == "clear":
            sentence = f"{target.replace('/', ' ', 1)} has no cooldown"
            return leave(target, name, facts, "already", sentence)
        return illegal(action, target, name, facts, state)
    before = _in_words(found, decided.now)
    if action.short_name == "clear":
        note = "waiting jobs start within about a second, as far as the limiter allows"
        return do(target, name, facts, found, Change("cooldown", before, None), note=note)
    after = f"until {moment_in_words(_until(decided))}"
    note = (
        f"{decided.params['minutes']} min from when the action is executed; running jobs continue"
    )
    return do(target, name, facts, found, Change("cooldown", before, after), note=note)


def _until(decided: Decided) -> datetime:
    return decided.now + timedelta(minutes=decided.params["minutes"])


def _in_words(found: Cooldown, now: datetime) -> str | None:
    if not found.is_cooling(now):
        return None
    return f"until {moment_in_words(found.cooldown_until)}, by {found.cooldown_by}"


def _facts(found: Cooldown) -> dict[str, Any]:
    return {
        "cooldown_at": exact(found.cooldown_at),
        "cooldown_until": exact(found.cooldown_until),
        "cooldown_by": found.cooldown_by,
    }

"""Decides and applies the release of a leaked lease, with the writes of `limits`.

A target is `lease/42-3`: the place of the attempt of job 42 with the dispatch number 3.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from ..actions.domain import (
    Action,
    Request,
    cannot,
    exact,
    make_item,
    moment_in_words,
    name_in,
    say_target,
)
from ..actions.effects import Effect
from ..actions.shapes import Change, Item, Skip
from ..core.db import LARGEST_ID, Connection
from ..jobs import transitions as job_transitions
from ..limits import transitions as limit_transitions
from . import transitions as lease_transitions
from .lifecycle import sources_of
from .transitions import Attempt, LeaseForDecision

_TARGET = re.compile(r"lease/([0-9]{1,19})-([0-9]{1,19})")


def read_target(text: str) -> str | None:
    """The target in its canonical form, such as `lease/42-3`; None when the text names no lease."""
    match = _TARGET.fullmatch(text)
    if match is None or max(int(match[1]), int(match[2])) > LARGEST_ID:
        return None
    return f"lease/{int(match[1])}-{int(match[2])}"


def _attempt_of(target: str) -> Attempt:
    job_id, _, dispatch_no = name_in(target).partition("-")
    return int(job_id), int(dispatch_no)


def lock_rows(connection: Connection, _request: Request, targets: Collection[str]) -> None:
    """Lock the jobs of these leases until the commit, so that none begins or ends, and then the leases."""
    attempts = [_attempt_of(target) for target in targets]
    job_transitions.lock(connection, {job_id for job_id, _ in attempts})
    lease_transitions.lock(connection, attempts)


def find_rows(
    connection: Connection, request: Request, targets: Collection[str]
) -> dict[str, LeaseForDecision]:
    """Those of these leases that exist."""
    attempts = [_attempt_of(target) for target in targets]
    return lease_transitions.read(connection, attempts, request.now)


def say_unknown(target: str) -> str:
    """The sentence about a lease that does not exist, or no longer."""
    return f"there is no {say_target(target)}: its place is free"


def forbid(lease: LeaseForDecision, request: Request) -> Skip | None:
    """Why the lease's state forbids the action; None when it allows it."""
    if lease.state in request.action.sources:
        return None
    if lease.job_state == "started" and lease.job_dispatch_no == lease.dispatch_no:
        return cannot(lease, request, f"job {lease.job_id} runs, and gives it back at its end")
    return cannot(lease, request, "it was taken less than 30 s ago, and may be on its way back")


def list_facts(lease: LeaseForDecision, _now: datetime) -> dict[str, Any]:
    """The values that must not have changed since the preview."""
    return {
        "state": lease.state,
        "limiter": lease.limiter,
        "weight": lease.weight,
        "taken_at": exact(lease.taken_at),
    }


def _decide_release(lease: LeaseForDecision, _request: Request) -> Item | Skip:
    job = f"job {lease.job_id}"
    now = f"{job} is {lease.job_state}" if lease.job_state else f"{job} is deleted"
    since = moment_in_words(lease.taken_at)
    change = Change("place", f"taken by {job} since {since}; {now}", "free")
    note = "waiting jobs start within about a second, as far as the limiter allows"
    return make_item(lease, change, note=note)


def _apply_release(
    connection: Connection, _request: Request, leases: Sequence[LeaseForDecision]
) -> list[Effect | Item]:
    limit_transitions.free(connection, [lease.attempt for lease in leases])
    return []


ACTIONS: tuple[Action[LeaseForDecision], ...] = (
    Action(
        name="lease.release",
        title="Release",
        sources=sources_of("release"),
        risk="The place counts as free, and another job of the limiter takes it. "
        "The tokens that the attempt took stay spent.",
        is_repair=True,
        decide=_decide_release,
        apply=_apply_release,
    ),
)

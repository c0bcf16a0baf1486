"""Decides and applies the actions on failures, with the writes of `failures`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
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
    read_id_target,
    read_whole,
    say_target,
)
from ..actions.effects import Effect
from ..actions.shapes import Change, Item, Skip
from ..actions.until import find_until, read_until
from ..core.db import Connection
from ..core.display import Display
from ..core.words import counted, show_value
from . import transitions
from .count import HELD_FOR
from .deploys import find_newest, is_version
from .lifecycle import NEXT, THIS, sources_of
from .transitions import Decided, FailureForDecision, IgnoredUntil

_MOST = 1_000_000_000
_UNTIL = ("until", "more", "rate")


# --- targets and rows


def read_target(text: str) -> str | None:
    """The target in its canonical form, `failure/7`; None when the text names no failure."""
    return read_id_target("failure", text)


def lock_rows(connection: Connection, _request: Request, targets: Collection[str]) -> None:
    """Lock these failures until the commit, in id order. Nobody counts into them meanwhile."""
    transitions.lock(connection, [int(name_in(target)) for target in targets])


def find_rows(
    connection: Connection, _request: Request, targets: Collection[str]
) -> dict[str, FailureForDecision]:
    """Those of these failures that exist, in id order."""
    found = transitions.look(connection, [int(name_in(target)) for target in targets])
    return {failure.target: failure for failure in found}


def say_unknown(target: str) -> str:
    """The sentence about a failure that does not exist."""
    return f"there is no {say_target(target)}"


def forbid(_failure: FailureForDecision, _request: Request) -> Skip | None:
    """None: each decision may be taken in each state, and replaces the one before."""
    return None


def list_facts(failure: FailureForDecision, _now: datetime) -> dict[str, Any]:
    """The values that must not have changed since the preview. Not its number, which grows all the time."""
    return {
        "state": failure.state,
        "decided_at": exact(failure.decided_at),
        "regressed_at": exact(failure.regressed_at),
        "deploy": None if failure.deploy is None else failure.deploy.id,
    }


# --- resolve


def _read_deploy(request: Request) -> dict[str, Any]:
    value = request.params["deploy"]
    if not isinstance(value, str) or not is_version(value.strip()):
        raise ValueError(
            f"deploy is {THIS}, {NEXT} or the version of a deploy; got {show_value(value)}"
        )
    return {"deploy": value.strip()}


def _read_more_of_resolve(
    connection: Connection, request: Request, failures: dict[str, FailureForDecision]
) -> dict[str, FailureForDecision]:
    asked = request.params["deploy"]
    deploy = find_newest(connection, None if asked in (THIS, NEXT) else asked)
    return {target: replace(failure, deploy=deploy) for target, failure in failures.items()}


def _decide_resolve(failure: FailureForDecision, request: Request) -> Item | Skip:
    asked, deploy = request.params["deploy"], failure.deploy
    if asked == NEXT:
        after = "resolved in the next deploy"
        note = f"without a deploy it is open again after {counted(HELD_FOR.days, 'day')}"
    elif deploy is not None:
        after = f"resolved in deploy {deploy.version}"
        note = "it is open again when it fails in that deploy from now on, or in a later one"
    elif asked == THIS:
        after = "resolved in the workers that start from now on"
        note = "no deploy is marked; it is open again when it fails on such a worker"
    else:
        return cannot(failure, request, f"no deploy of version {asked} is marked", "unknown_deploy")
    return make_item(failure, Change("state", failure.state, after), note=note)


def _apply_resolve(
    connection: Connection, request: Request, failures: Sequence[FailureForDecision]
) -> list[Effect | Item]:
    deploy = failures[0].deploy
    newest = 0 if deploy is None else deploy.id
    is_next = request.params["deploy"] == NEXT
    transitions.resolve(
        connection,
        [failure.id for failure in failures],
        _decided(request),
        resolved_in=None if is_next or not newest else newest,
        resolved_after=newest if is_next else None,
    )
    return []


def _decided(request: Request) -> Decided:
    reason = Display(request.host.display, may_see=True).clean(request.reason)
    return Decided(request.actor, reason, request.now)


# --- ignore


def _read_until(request: Request) -> dict[str, Any]:
    """A span or a time, a number of further attempts, or a number of attempts an hour."""
    said = {name: request.params.get(name) for name in _UNTIL}
    named = [name for name, value in said.items() if value not in (None, "")]
    if len(named) != 1:
        raise ValueError(
            "say one of: until (a span or a time), more (so many further failures), rate (more than so many "
            "an hour)"
        )
    (name,) = named
    if name != "until":
        of = {"more": "further failures", "rate": "failures an hour"}[name]
        value: Any = read_whole(said[name], _MOST, f"{name} is {{}}: the number of {of}")
        return dict.fromkeys(_UNTIL) | {name: value}
    return dict.fromkeys(_UNTIL) | {"until": read_until(said["until"])}


def _until(request: Request) -> IgnoredUntil:
    params = request.params
    until = params["until"]
    moment = None if until is None else find_until(until, request.now)
    return IgnoredUntil(moment, params["more"], params["rate"])


def _decide_ignore(failure: FailureForDecision, request: Request) -> Item | Skip:
    until = _until(request)
    if until.until is not None and until.until <= request.now:
        return cannot(failure, request, "the time has passed", "past")
    if until.until is not None:
        after = f"ignored until {moment_in_words(until.until)}"
    elif until.more is not None:
        after = f"ignored until {counted(until.more, 'more attempt')} failed"
    else:
        after = f"ignored until more than {counted(until.rate or 0, 'attempt')} fail in an hour"
    return make_item(failure, Change("state", failure.state, after))


def _apply_ignore(
    connection: Connection, request: Request, failures: Sequence[FailureForDecision]
) -> list[Effect | Item]:
    ids = [failure.id for failure in failures]
    transitions.ignore(connection, ids, _decided(request), _until(request))
    return []


# In the order of their buttons.
ACTIONS: tuple[Action[FailureForDecision], ...] = (
    Action(
        name="failure.resolve",
        title="Resolve",
        sources=sources_of("resolve"),
        risk="Its jobs stay as they are. It is open again, and an incident, when it fails on a worker that "
        "has the fix.",
        params=("deploy",),
        read_params=_read_deploy,
        read_more=_read_more_of_resolve,
        decide=_decide_resolve,
        apply=_apply_resolve,
    ),
    Action(
        name="failure.ignore",
        title="Ignore",
        sources=sources_of("ignore"),
        risk="Its jobs stay as they are, and fail as before. Nobody is told of it until then.",
        params=_UNTIL,
        read_params=_read_until,
        decide=_decide_ignore,
        apply=_apply_ignore,
    ),
)

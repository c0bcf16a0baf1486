"""Making a plan: what is asked for, what may be done of it, and the fingerprint of the facts it rests on."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..db import Connection
from ..errors import ActionRefused
from ..host import Host
from ..policy import raised
from . import on_cron, on_jobs, on_limiters, on_queues
from .catalog import ACTIONS, MOST_TARGETS, Action
from .shapes import Plan, Receipt, Skip
from .verdict import Decided, Verdict

_log = logging.getLogger("flask_opsjobs")

UNREADABLE = "unreadable"
# Each thing reads its own targets and parameters, judges and writes.
THINGS = {"job": on_jobs, "queue": on_queues, "cron": on_cron, "limiter": on_limiters}


@dataclass(frozen=True)
class Ask:
    """What an actor asks for, once it is known to make sense. `is_trusted`: the access policy is not asked."""

    action: Action
    targets: tuple[str, ...]
    params: Mapping[str, Any]
    actor: str
    via: str
    is_trusted: bool = False


@dataclass(frozen=True)
class Judged:
    """A plan and what it was made from."""

    plan: Plan
    verdicts: tuple[Verdict, ...]

    @property
    def facts(self) -> dict[str, Any]:
        """The facts of every target."""
        return {verdict.target: dict(verdict.facts) for verdict in self.verdicts}

    @property
    def eligible(self) -> tuple[Verdict, ...]:
        """What can be acted on."""
        return tuple(verdict for verdict in self.verdicts if verdict.item is not None)


def make_ask(
    host: Host, action: str, targets: Iterable[str], params: Mapping[str, Any] | None, *, actor: str, via: str,
    is_trusted: bool,
) -> Ask:  # fmt: skip
    """What is asked for, in canonical words. Raises `ActionRefused` for what makes no sense whatever the state is."""
    found = ACTIONS.get(action)
    if found is None:
        raise _unreadable(action, f"there is no action {action!r}")
    if not isinstance(actor, str) or not actor.strip():
        said = f"{action} needs an actor: nobody is signed in"
        raise ActionRefused(Receipt("refused", action, "unauthorized", said, audit_sequence=None))
    asked = [targets] if isinstance(targets, str) else targets
    canonical = tuple(dict.fromkeys(_canonical(found, target) for target in asked))
    if not canonical:
        raise _unreadable(action, f"{action} needs at least one {found.thing}")
    if len(canonical) > MOST_TARGETS:
        said = f"{action} takes at most {MOST_TARGETS} {found.thing}s at once, got {len(canonical)}"
        raise _unreadable(action, said)
    return Ask(found, canonical, _params(host, found, params or {}), actor, via, is_trusted)


def judge(
    connection: Connection, host: Host, ask: Ask, decided: Decided, *, lock: bool = False
) -> Judged:
    """The plan as things stand. With `lock` its targets stay so until the caller commits.

    What the actor may not touch is neither looked at nor locked.
    """
    allowed = [target for target in ask.targets if _may(host, ask, target)]
    thing = THINGS[ask.action.thing]
    found = thing.judge(connection, host, ask.action, allowed, decided, lock=lock)
    by_target = {verdict.target: verdict for verdict in found}
    verdicts = tuple(
        by_target.get(target) or Verdict(target, {}, skip=_denial(ask, target))
        for target in ask.targets
    )
    plan = Plan(
        action=ask.action.name,
        items=tuple(verdict.item for verdict in verdicts if verdict.item is not None),
        skipped=tuple(verdict.skip for verdict in verdicts if verdict.skip is not None),
        risk=ask.action.risk,
        fingerprint=_fingerprint(ask, verdicts),
        params=ask.params,
    )
    return Judged(plan, verdicts)


def may_act(host: Host, ask: Ask) -> bool:
    """Whether the actor may do this to any of the targets. Reads nothing of them."""
    return any(_may(host, ask, target) for target in ask.targets)


def deny(ask: Ask) -> tuple[Skip, ...]:
    """Every target, as one that the actor may not touch."""
    return tuple(_denial(ask, target) for target in ask.targets)


def _may(host: Host, ask: Ask, target: str) -> bool:
    """Whether the policy says yes, and nothing else; one that raises says no."""
    if ask.is_trusted:
        return True
    try:
        return host.access.can(ask.actor, ask.action.permission, target) is True
    except Exception as error:
        permission = ask.action.permission
        _log.error("the access policy raised on %s: denied (%s)", permission, raised(error))
        return False


def _denial(ask: Ask, target: str) -> Skip:
    says = f"cannot {ask.action.on(target.replace('/', ' ', 1))}: it needs {ask.action.permission}"
    return Skip(target, None, "unauthorized", says)


def _fingerprint(ask: Ask, verdicts: Iterable[Verdict]) -> str:
    weighed = [[verdict.target, verdict.weight] for verdict in verdicts]
    text = json.dumps([ask.action.name, dict(ask.params), weighed], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(action: Action, target: object) -> str:
    found: str | None = None
    if isinstance(target, str):
        found = THINGS[action.thing].read_target(target)
    if found is None:
        said = f"{target!r} is not a target of {action.name}: write {action.thing}/…"
        raise _unreadable(action.name, said)
    return found


def _params(host: Host, action: Action, given: Mapping[str, Any]) -> dict[str, Any]:
    if wrong := sorted(set(given) ^ set(action.params)):
        what = "needs" if wrong[0] in action.params else "does not take"
        raise _unreadable(action.name, f"{action.name} {what} the parameter {wrong[0]}")
    try:
        params: dict[str, Any] = THINGS[action.thing].read_params(host, action, given)
    except ValueError as fault:
        raise _unreadable(action.name, str(fault)) from None
    return params


def _unreadable(action: object, says: str) -> ActionRefused:
    """What was asked for makes no sense in any state: nobody has decided anything, so nothing is audited."""
    return ActionRefused(Receipt("refused", str(action), UNREADABLE, says, audit_sequence=None))

"""Makes a plan from a request: asks the access policy, lets the domain decide, computes the fingerprint."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Unpack

from ..core.db import Connection
from ..errors import ActionRefused
from ..host import Host
from ..policy import describe_failure, is_allowed
from .domain import Action, Domain, Request, Row, Who, say_target
from .registry import ACTIONS, DOMAINS
from .shapes import Item, Plan, Receipt, Skip

_log = logging.getLogger("flask_opsjobs")

UNREADABLE = "unreadable"
# The most targets of one plan: a page of a list.
MOST_TARGETS = 100


def make_request(
    host: Host,
    action: str,
    targets: Iterable[str],
    params: Mapping[str, Any] | None,
    **who: Unpack[Who],
) -> Request:
    """Make the request, with canonical targets and parameters. Raises `ActionRefused` when it is invalid."""
    found = ACTIONS.get(action)
    if found is None:
        raise _unreadable(action, f"there is no action {action!r}")
    actor = who["actor"]
    if not isinstance(actor, str) or not actor.strip():
        sentence = f"{action} needs an actor: nobody is signed in"
        raise ActionRefused(
            Receipt("refused", action, "unauthorized", sentence, audit_sequence=None)
        )
    texts = [targets] if isinstance(targets, str) else targets
    canonical = tuple(dict.fromkeys(_canonical(found, target) for target in texts))
    if not canonical:
        raise _unreadable(action, f"{action} needs at least one {found.domain}")
    if len(canonical) > MOST_TARGETS:
        sentence = (
            f"{action} takes at most {MOST_TARGETS} {found.domain}s at once, got {len(canonical)}"
        )
        raise _unreadable(action, sentence)
    values = _canonical_params(host, found, params or {})
    return Request(host, found, canonical, values, **who)


def make_plan(connection: Connection, request: Request) -> Plan:
    """Make the plan as of now. Locks and writes nothing."""
    plan, _ = decide_targets(connection, request, DOMAINS[request.action.domain])
    return plan


def decide_targets(
    connection: Connection, request: Request, domain: Domain[Row], *, lock: bool = False
) -> tuple[Plan, dict[str, Row]]:
    """Make the plan, and return with it the rows from which it was made, by target.

    With `lock` nobody else changes the targets until the caller commits. Targets that the actor may not
    change are neither read nor locked.
    """
    allowed = [target for target in request.targets if _may(request, target)]
    if lock:
        domain.lock_rows(connection, request, allowed)
    rows = domain.find_rows(connection, request, allowed)
    forbidden = {
        target: skip for target, row in rows.items() if (skip := domain.forbid(row, request))
    }
    legal = {target: row for target, row in rows.items() if target not in forbidden}
    rows = {**rows, **request.action.read_more(connection, request, legal)}

    def decide_target(target: str) -> Item | Skip:
        if target not in allowed:
            return _denial(request, target)
        row = rows.get(target)
        if row is None:
            return Skip(target, None, "not_found", domain.say_unknown(target))
        decided = forbidden.get(target) or request.action.decide(row, request)
        return replace(decided, facts=domain.list_facts(row, request.now))

    decisions = [decide_target(target) for target in request.targets]
    plan = Plan(
        action=request.action.name,
        items=tuple(each for each in decisions if isinstance(each, Item)),
        skipped=tuple(each for each in decisions if isinstance(each, Skip)),
        risk=request.action.risk,
        fingerprint=_fingerprint(request, decisions),
        params=request.params,
    )
    return plan, rows


def may_act(request: Request) -> bool:
    """Whether the actor may do this to at least one target. Does not read the targets."""
    return any(_may(request, target) for target in request.targets)


def deny(request: Request) -> tuple[Skip, ...]:
    """A skip for every target: the actor has no permission."""
    return tuple(_denial(request, target) for target in request.targets)


def _may(request: Request, target: str) -> bool:
    """Whether the policy returns exactly True. An exception of the policy means no."""
    if request.is_trusted:
        return True
    permission = request.action.permission
    return is_allowed(request.host.access, request.actor, permission, target, _note_failure)


def _note_failure(permission: str, error: Exception) -> None:
    _log.error("the access policy raised on %s: denied (%s)", permission, describe_failure(error))


def _denial(request: Request, target: str) -> Skip:
    action = request.action
    says = f"cannot {action.on(say_target(target))}: it needs {action.permission}"
    return Skip(target, None, "unauthorized", says)


def _fingerprint(request: Request, decisions: Iterable[Item | Skip]) -> str:
    """A hash of what must not change until the execution: the facts of each item, the code of each skip."""
    weighed = [
        [each.target, dict(each.facts) if isinstance(each, Item) else each.code]
        for each in decisions
    ]
    text = json.dumps([request.action.name, dict(request.params), weighed], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(action: Action[Any], target: object) -> str:
    found: str | None = None
    if isinstance(target, str):
        found = DOMAINS[action.domain].read_target(target)
    if found is None:
        sentence = f"{target!r} is not a target of {action.name}: write {action.domain}/…"
        raise _unreadable(action.name, sentence)
    return found


def _canonical_params(host: Host, action: Action[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    if wrong := sorted(set(given) ^ set(action.params)):
        what = "needs" if wrong[0] in action.params else "does not take"
        raise _unreadable(action.name, f"{action.name} {what} the parameter {wrong[0]}")
    try:
        return action.read_params(host, given)
    except ValueError as fault:
        raise _unreadable(action.name, str(fault)) from None


def _unreadable(action: object, says: str) -> ActionRefused:
    """The refusal of a request that is invalid in any state. It is no decision, so it is not audited."""
    return ActionRefused(Receipt("refused", str(action), UNREADABLE, says, audit_sequence=None))

"""Makes a plan from a request: asks the access policy, lets the domain decide, computes the fingerprint."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..core.db import Connection
from ..cron import actions as on_cron
from ..errors import ActionRefused
from ..host import Host
from ..jobs import actions as on_jobs
from ..limits import actions as on_limiters
from ..policy import is_allowed, raised
from ..queues import actions as on_queues
from .catalog import ACTIONS, MOST_TARGETS, Action
from .shapes import Plan, Receipt, Skip
from .target_plan import Decided, TargetPlan

_log = logging.getLogger("flask_opsjobs")

UNREADABLE = "unreadable"
# Each domain reads its own targets and parameters, decides what is legal, and writes.
DOMAINS = {"job": on_jobs, "queue": on_queues, "cron": on_cron, "limiter": on_limiters}


@dataclass(frozen=True)
class Request:
    """A valid request of an actor. `is_trusted`: the access policy is not asked."""

    action: Action
    targets: tuple[str, ...]
    params: Mapping[str, Any]
    actor: str
    via: str
    is_trusted: bool = False


@dataclass(frozen=True)
class PlanWithFacts:
    """A plan, and the plans of its targets from which it was made."""

    plan: Plan
    target_plans: tuple[TargetPlan, ...]

    @property
    def facts(self) -> dict[str, Any]:
        """The facts of each target."""
        return {target_plan.target: dict(target_plan.facts) for target_plan in self.target_plans}

    @property
    def eligible(self) -> tuple[TargetPlan, ...]:
        """The targets that can be changed."""
        return tuple(
            target_plan for target_plan in self.target_plans if target_plan.item is not None
        )


def make_request(
    host: Host, action: str, targets: Iterable[str], params: Mapping[str, Any] | None, *, actor: str, via: str,
    is_trusted: bool,
) -> Request:  # fmt: skip
    """Make the request, with canonical targets and parameters. Raises `ActionRefused` when it is invalid."""
    found = ACTIONS.get(action)
    if found is None:
        raise _unreadable(action, f"there is no action {action!r}")
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
    return Request(found, canonical, _params(host, found, params or {}), actor, via, is_trusted)


def make_plan(
    connection: Connection, host: Host, request: Request, decided: Decided, *, lock: bool = False
) -> PlanWithFacts:
    """Make the plan as of now. With `lock` nobody else changes the targets until the caller commits.

    Targets that the actor may not change are neither read nor locked.
    """
    allowed = [target for target in request.targets if _may(host, request, target)]
    domain = DOMAINS[request.action.domain]
    found = domain.decide(connection, host, request.action, allowed, decided, lock=lock)
    by_target = {target_plan.target: target_plan for target_plan in found}
    target_plans = tuple(
        by_target.get(target) or TargetPlan(target, {}, skip=_denial(request, target))
        for target in request.targets
    )
    plan = Plan(
        action=request.action.name,
        items=tuple(
            target_plan.item for target_plan in target_plans if target_plan.item is not None
        ),
        skipped=tuple(
            target_plan.skip for target_plan in target_plans if target_plan.skip is not None
        ),
        risk=request.action.risk,
        fingerprint=_fingerprint(request, target_plans),
        params=request.params,
    )
    return PlanWithFacts(plan, target_plans)


def may_act(host: Host, request: Request) -> bool:
    """Whether the actor may do this to at least one target. Does not read the targets."""
    return any(_may(host, request, target) for target in request.targets)


def deny(request: Request) -> tuple[Skip, ...]:
    """A skip for every target: the actor has no permission."""
    return tuple(_denial(request, target) for target in request.targets)


def _may(host: Host, request: Request, target: str) -> bool:
    """Whether the policy returns exactly True. An exception of the policy means no."""
    if request.is_trusted:
        return True
    permission = request.action.permission
    return is_allowed(host.access, request.actor, permission, target, _note_failure)


def _note_failure(permission: str, error: Exception) -> None:
    _log.error("the access policy raised on %s: denied (%s)", permission, raised(error))


def _denial(request: Request, target: str) -> Skip:
    says = f"cannot {request.action.on(target.replace('/', ' ', 1))}: it needs {request.action.permission}"
    return Skip(target, None, "unauthorized", says)


def _fingerprint(request: Request, target_plans: Iterable[TargetPlan]) -> str:
    weighed = [[target_plan.target, target_plan.weight] for target_plan in target_plans]
    text = json.dumps([request.action.name, dict(request.params), weighed], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(action: Action, target: object) -> str:
    found: str | None = None
    if isinstance(target, str):
        found = DOMAINS[action.domain].read_target(target)
    if found is None:
        sentence = f"{target!r} is not a target of {action.name}: write {action.domain}/…"
        raise _unreadable(action.name, sentence)
    return found


def _params(host: Host, action: Action, given: Mapping[str, Any]) -> dict[str, Any]:
    if wrong := sorted(set(given) ^ set(action.params)):
        what = "needs" if wrong[0] in action.params else "does not take"
        raise _unreadable(action.name, f"{action.name} {what} the parameter {wrong[0]}")
    try:
        params: dict[str, Any] = DOMAINS[action.domain].read_params(host, action, given)
    except ValueError as fault:
        raise _unreadable(action.name, str(fault)) from None
    return params


def _unreadable(action: object, says: str) -> ActionRefused:
    """The refusal of a request that is invalid in any state. It is no decision, so it is not audited."""
    return ActionRefused(Receipt("refused", str(action), UNREADABLE, says, audit_sequence=None))

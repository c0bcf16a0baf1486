"""Decides why an execution is refused: a stable code, and whether it spends the token and enters the audit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..core.visible_text import count_seen
from ..host import Host
from .catalog import LONGEST_REASON, PREVIEW_MINUTES, SHORTEST_REASON
from .planning import PlanWithFacts, Request, deny, may_act
from .shapes import Change, Plan, Receipt, Skip
from .tokens import is_token


@dataclass(eq=False)
class Refused(Exception):
    """An execution was refused and changes nothing. `is_spent`: the preview's token is used up.

    `is_audited`: the refusal enters the audit. `is_logged`: the actor had no right to ask, so the refusal
    goes to the log instead of the audit.
    """

    code: str
    says: str
    skipped: tuple[Skip, ...] = ()
    drifted: tuple[Change, ...] = ()
    before: Any = None
    after: Any = None
    is_spent: bool = True
    is_audited: bool = True
    is_logged: bool = False

    def receipt(self, action: str) -> Receipt:
        """The receipt for the actor."""
        return Receipt(
            "refused", action, self.code, self.says, None,
            skipped=self.skipped, drifted=self.drifted,
        )  # fmt: skip


def find_refusal(
    host: Host, request: Request, row: Mapping[str, Any], token: str, now: datetime
) -> Refused | None:
    """Find why the preview's row forbids the execution; None when it does not.

    An attempt by another actor does not spend the owner's token.
    """
    preview_id = row["id"]
    is_theirs = row["actor"] == request.actor and is_token(
        host.secrets, token, preview_id, row["actor"], row["fingerprint"], row["created_at"]
    )
    if not is_theirs:
        says = f"preview {preview_id} is not yours to execute: make one of your own"
        return Refused("foreign", says, is_spent=False, is_audited=False, is_logged=True)
    if denied := require_permission(host, request):
        return denied
    if row["spent_at"] is not None:
        came = "was carried out" if row["outcome"] == "done" else "was refused"
        says = f"preview {preview_id} {came} already: make a new one"
        return Refused("spent", says, is_spent=False, is_audited=row["reused_at"] is None)
    if now >= row["expires_at"]:
        says = f"preview {preview_id} is older than {PREVIEW_MINUTES} minutes: make a new one"
        return Refused("expired", says)
    return None


def require_permission(host: Host, request: Request) -> Refused | None:
    """Refuse an actor who may act on none of the targets, before any is read and without an audit row."""
    if may_act(host, request):
        return None
    skipped = deny(request)
    return Refused(
        "unauthorized", _nothing(request, skipped), skipped, is_spent=False, is_audited=False, is_logged=True,
    )  # fmt: skip


def bound_reason(reason: str) -> Refused | None:
    """Refuse a reason that is too long, before anything else, so that a long text costs nothing."""
    if len(reason) <= LONGEST_REASON:
        return None
    says = f"say why in at most {LONGEST_REASON:,} characters"
    return Refused("reason_too_long", says, is_spent=False, is_audited=False)


def require_reason(request: Request, reason: str) -> Refused | None:
    """Refuse a reason that is too short.

    It may be a typing error, so the token stays valid and nothing is audited.
    """
    if count_seen(reason) < SHORTEST_REASON:
        says = (
            f"say why, in at least {SHORTEST_REASON} characters: {request.action.name} is audited"
        )
        return Refused("reason_too_short", says, is_spent=False, is_audited=False)
    return None


def require_something(request: Request, plan: Plan) -> None:
    """Return when the plan has at least one item; else raise `Refused`."""
    if plan.items:
        return
    codes = {skip.code for skip in plan.skipped}
    code = {"unauthorized": "unauthorized", "not_found": "unknown_target"}.get(
        codes.pop() if len(codes) == 1 else "", "illegal"
    )
    raise Refused(code, _nothing(request, plan.skipped), skipped=plan.skipped)


def _nothing(request: Request, skipped: tuple[Skip, ...]) -> str:
    """The sentence why none of these targets can be changed."""
    says = skipped[0].says
    if len(skipped) == 1:
        return says
    return f"nothing to {request.action.title.lower()}: {says}, and {len(skipped) - 1} more"


def require_unchanged(row: Mapping[str, Any], planned: PlanWithFacts) -> None:
    """Return when the plan is the one that was shown; else raise `Refused` with what has changed since."""
    if planned.plan.fingerprint == row["fingerprint"]:
        return
    shown = row["plan"]
    was_allowed = {item["target"] for item in shown["items"]}
    denied = [
        skip
        for skip in planned.plan.skipped
        if skip.code == "unauthorized" and skip.target in was_allowed
    ]
    if denied:
        raise Refused("unauthorized", denied[0].says, skipped=tuple(denied))
    drifted = tuple(_drift(shown, planned))
    says = f"{_subjects(drifted)} changed since the preview: nothing was done, make a new preview"
    raise Refused("drifted", says, drifted=drifted, before=shown["facts"], after=planned.facts)


def _drift(shown: Mapping[str, Any], planned: PlanWithFacts) -> Iterator[Change]:
    """The facts of each target that differ, and whether it became eligible or ineligible."""
    skips = {skip["target"]: skip for skip in shown["skipped"]}
    for target_plan in planned.target_plans:
        target, was = target_plan.target, shown["facts"].get(target_plan.target, {})
        before = skips.get(target)
        code = None if target_plan.skip is None else target_plan.skip.code
        if (before or {}).get("code") == code and code is not None:
            continue
        for what in dict.fromkeys([*was, *target_plan.facts]):
            old, new = was.get(what), target_plan.facts.get(what)
            if old != new:
                yield Change(f"{target} {what}", _words(old), _words(new))
        if (before is None) != (target_plan.skip is None):
            now = "can be acted on" if target_plan.skip is None else target_plan.skip.says
            yield Change(target, "can be acted on" if before is None else before["says"], now)


def _subjects(drifted: tuple[Change, ...]) -> str:
    targets = list(dict.fromkeys(change.what.partition(" ")[0] for change in drifted))
    if len(targets) == 1:
        return targets[0].replace("/", " ", 1)
    return f"{len(targets)} targets"


def _words(value: Any) -> str | None:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):  # the arguments of a cron entry, which a page recognises as JSON
        return json.dumps(value)
    return None if value is None else str(value)

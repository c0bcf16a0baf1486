"""Executes a plan in one transaction: spends the token, locks the targets, compares, writes and audits.

A refusal changes no target. It may still use up the preview's token and write an audit row: see `Refused`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from .. import signals
from ..audit import transitions as audit_transitions
from ..audit.history import SKIPPED
from ..audit.transitions import Decision
from ..core.db import Connection
from ..core.redis_facts import DeliveryPlace, QueueInRedis
from ..core.visible_text import count_seen
from ..errors import EngineUnavailable
from ..host import Host
from ..lifeline.transitions import find_answered
from . import planning
from .domain import ChangedMeanwhile, NothingWritten, Request, Who, say_target
from .effects import AskRq, Effect
from .planning import PREVIEW_MINUTES
from .registry import ACTIONS, DOMAINS
from .shapes import Change, Item, Plan, Preview, Receipt, Skip

_log = logging.getLogger("flask_opsjobs")
SHORTEST_REASON = 8
LONGEST_REASON = 2_000
# How long an operator waits for a locked row: enough for another operator, but not for a long host
# transaction.
WAIT_SECONDS = 5
# A round is repeated only when another transaction took the same unique lock at the same moment.
_MOST_ROUNDS = 10


@dataclass(eq=False)
class Refused(Exception):
    """An execution was refused and changes no target. `is_spent`: the preview's token is used up.

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
            "refused",
            action,
            self.code,
            self.says,
            None,
            skipped=self.skipped,
            drifted=self.drifted,
        )


@dataclass(frozen=True)
class Execution:
    """Executes one request, and the preview that its actor has seen, if there is one.

    Somebody else may have made the preview. `after_commit` are functions to call after the caller's commit.
    """

    connection: Connection
    request: Request
    preview: Preview | None = None
    after_commit: list[Callable[[], None]] = field(default_factory=list)

    def carry_out(self, token: str = "") -> Receipt:
        """Execute the request, or refuse it and audit the refusal. Runs in the caller's transaction."""
        try:
            self._require_allowed_and_fresh(token)
            require_reason(self.request)
            return self._try_rounds()
        except Refused as refused:
            return self._refuse(refused)

    def tell_commit(self) -> None:
        """Write to the log what is true since the caller's commit."""
        for tell in self.after_commit:
            tell()

    def _require_allowed_and_fresh(self, token: str) -> None:
        if self.preview is not None:
            require_token(self.preview, self.request, token)
        require_permission(self.request)
        if self.preview is not None:
            require_fresh(self.preview, self.request)

    def _try_rounds(self) -> Receipt:
        for _ in range(_MOST_ROUNDS):
            try:
                # A savepoint undoes writes and releases locks when the plan is refused or was changed
                # meanwhile.
                with signals.once_committed(), self.connection.transaction():
                    plan, rows, receipt, after, related = self._write()
            except ChangedMeanwhile:
                continue
            except NothingWritten as met:
                raise Refused("illegal", str(met)) from None
            before = {item.target: dict(item.facts) for item in plan.items}
            receipt = self._audit(receipt, before, after, related)
            assert receipt.audit_sequence is not None
            self.request.action.note(self.connection, self.request, rows, receipt.audit_sequence)
            signals.send(
                signals.action_executed,
                action=receipt.action,
                actor=self.request.actor,
                via=self.request.via,
                targets=len(receipt.done),
                audit=receipt.audit_sequence,
            )
            if self.preview is not None:
                now = self.request.now
                planning.spend_preview(self.connection, self.preview.id, receipt, now)
            return receipt
        raise EngineUnavailable(
            f"{self.request.action.name} kept colliding with other transactions: try again"
        )

    def _write(self) -> tuple[Plan, Sequence[Any], Receipt, dict[str, Any], Sequence[str]]:
        """Lock, find, decide and apply.

        Also returns the rows that it changed, their facts afterwards, and what the audit names besides: what
        was made, and the incidents that it answers.
        """
        connection, request = self.connection, self.request
        domain = DOMAINS[request.action.domain]
        plan, rows = planning.decide_targets(connection, request, domain, lock=True)
        if self.preview is not None:
            require_unchanged(self.preview, plan)
        require_something(request, plan)
        targets = [item.target for item in plan.items]
        chosen = [rows[target] for target in targets]
        # Before the change, which may end an incident.
        answered = find_answered(connection, *request.action.answers(request, chosen))
        results = request.action.apply(connection, request, chosen)
        made = {result.target: result for result in results if isinstance(result, Item)}
        effects = [result for result in results if not isinstance(result, Item)]
        after: dict[str, Any] = dict.fromkeys(targets)
        for target, row in domain.find_rows(connection, request, targets).items():
            facts = made[target].facts if target in made else {}
            after[target] = {**domain.list_facts(row, request.now), **facts}
        # So that the history of a target tells what was not done to it.
        after |= {skip.target: {SKIPPED: skip.code} for skip in plan.skipped}
        receipt = Receipt(
            outcome="done",
            action=request.action.name,
            code=None,
            says=self._say_done(plan, effects),
            audit_sequence=None,
            done=tuple(_as_made(item, made.get(item.target)) for item in plan.items),
            skipped=plan.skipped,
            effects=tuple(dict.fromkeys(effects)),
        )
        return plan, chosen, receipt, after, [*_list_new(made.values()), *answered]

    def _refuse(self, refused: Refused) -> Receipt:
        """Audit or log a refusal, and spend the preview's token, unless the refusal says otherwise."""
        request, preview = self.request, self.preview
        receipt = refused.receipt(request.action.name)
        signals.send(
            signals.action_refused,
            action=receipt.action,
            actor=request.actor,
            via=request.via,
            code=refused.code,
        )
        if refused.is_audited:
            receipt = self._audit(receipt, refused.before, refused.after)
        if refused.is_logged:
            _log.warning("%s was refused %s: %s", request.actor, request.action.name, receipt.says)
        if preview is not None and refused.is_spent:
            planning.spend_preview(self.connection, preview.id, receipt, request.now)
        elif preview is not None and refused.is_audited:
            planning.note_reuse(self.connection, preview.id, request.now)
        return receipt

    def _audit(
        self, receipt: Receipt, before: Any, after: Any, related: Sequence[str] = ()
    ) -> Receipt:
        request, preview = self.request, self.preview
        if preview is not None and self._is_handed_on:
            name = f"preview/{preview.id}"
            before = {**(before or {}), name: {"actor": preview.actor}}
            after = {**(after or {}), name: {"actor": request.actor}}
        decision = Decision(
            at=request.now,
            actor=request.actor,
            via=request.via,
            action=request.action.name,
            subject=request.subject,
            targets=tuple(dict.fromkeys([*request.targets, *related])),
            outcome=receipt.outcome,
            code=receipt.code,
            permission=request.action.permission,
            reason=request.reason,
            request_id=request.request_id,
            preview_id=None if preview is None else preview.id,
            previewed_at=None if preview is None else preview.created_at,
            before=self._list_audited(before),
            after=self._list_audited(after),
        )
        sequence = audit_transitions.append(
            self.connection, request.host.secrets, decision, after_commit=self.after_commit.append
        )
        return replace(receipt, audit_sequence=sequence)

    def _list_audited(self, facts: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """The facts by target, without those that the audit must not keep."""
        left_out = self.request.action.unaudited
        return facts and {
            target: found and {name: of for name, of in found.items() if name not in left_out}
            for target, found in facts.items()
        }

    @property
    def _is_handed_on(self) -> bool:
        """Whether somebody else made the preview."""
        return self.preview is not None and self.preview.actor != self.request.actor

    def _say_done(self, plan: Plan, effects: Sequence[Effect]) -> str:
        action = self.request.action
        # RQ is asked after the commit, and may refuse. What is deleted is gone from here in any case.
        is_asked = bool(effects) and all(
            isinstance(effect, AskRq) and effect.what != "delete" for effect in effects
        )
        done = "asked of RQ" if is_asked else "done"
        if self._is_handed_on:
            done += f" by {self.request.actor}"
        if len(plan.targets) == 1:
            words = action.on(say_target(plan.targets[0]))
            return f"{words[0].upper()}{words[1:]}: {done}"
        skipped = f", {len(plan.skipped)} skipped" if plan.skipped else ""
        return f"{action.title}: {len(plan.items)} {done}{skipped}"


def execute_preview(
    connection: Connection,
    host: Host,
    preview_id: int,
    token: str,
    who: Who,
    now: datetime,
    in_redis: Mapping[str, DeliveryPlace | QueueInRedis],
) -> Receipt:
    """Execute a preview in one transaction, which is committed also when the preview is refused."""
    with signals.sent_by(host), signals.once_committed(), connection.transaction():
        planning.limit_waits(connection, WAIT_SECONDS)
        preview = planning.lock_preview(connection, host.secrets, preview_id, who["actor"])
        if preview is None:
            says = f"there is no preview {preview_id}: it expired and was removed, or never existed"
            _log.warning("%s was refused preview %d: %s", who["actor"], preview_id, says)
            return Receipt("refused", "", "expired", says, None)
        plan = preview.plan
        request = Request(
            host,
            ACTIONS[plan.action],
            preview.targets,
            plan.params,
            **who,
            now=now,
            in_redis=in_redis,
        )
        execution = Execution(connection, request, preview)
        receipt = execution.carry_out(token)
    execution.tell_commit()
    return receipt


def execute_request(connection: Connection, request: Request) -> Receipt:
    """Lock the targets, plan and execute in one transaction, which is committed also when it is refused."""
    with signals.sent_by(request.host), signals.once_committed(), connection.transaction():
        planning.limit_waits(connection, WAIT_SECONDS)
        execution = Execution(connection, request)
        receipt = execution.carry_out()
    execution.tell_commit()
    return receipt


def _as_made(item: Item, made: Item | None) -> Item:
    """The item of the receipt: as planned, or with what was made of it."""
    if made is None:
        return item
    return replace(item, changes=made.changes, note=made.note or item.note)


def _list_new(made: Iterable[Item]) -> Iterator[str]:
    """What an action has made, as targets: new jobs, a new operation."""
    for change in (change for item in made for change in item.changes):
        is_new = change.before is None and change.what.startswith("new ")
        if is_new and change.after and change.after.partition("/")[0] in DOMAINS:
            yield change.after


def find_long_reason(reason: str, asks: str = "say why") -> Refused | None:
    """Refuse a reason that is too long, before anything else, so that a long text costs nothing."""
    if len(reason) <= LONGEST_REASON:
        return None
    says = f"{asks} in at most {LONGEST_REASON:,} characters"
    return Refused("reason_too_long", says, is_spent=False, is_audited=False)


def find_short_reason(action: str, reason: str) -> Refused | None:
    """Refuse a reason that is too short.

    The person may have mistyped, so the token stays valid and nothing is audited.
    """
    if count_seen(reason) >= SHORTEST_REASON:
        return None
    says = f"{ACTIONS[action].asks}, in at least {SHORTEST_REASON} characters: {action} is audited"
    return Refused("reason_too_short", says, is_spent=False, is_audited=False)


# --- what is required: each function returns, or raises `Refused`


def require_token(preview: Preview, request: Request, token: str) -> None:
    """Refuse a token that the actor did not get by opening the preview. It stays good for who did."""
    if planning.is_token_of(preview, request.host.secrets, token, request.actor):
        return
    says = (
        f"the token of preview {preview.id} is wrong, or is somebody else's: open the preview again"
    )
    raise Refused("foreign", says, is_spent=False, is_audited=False, is_logged=True)


def require_permission(request: Request) -> None:
    """Refuse an actor who may act on none of the targets. Reads no target and writes no audit row."""
    if planning.may_act(request):
        return
    skipped = planning.deny(request)
    raise Refused(
        "unauthorized",
        _say_nothing_to_do(request, skipped),
        skipped,
        is_spent=False,
        is_audited=False,
        is_logged=True,
    )


def require_fresh(preview: Preview, request: Request) -> None:
    """Refuse a preview that was executed before, or has expired."""
    if preview.receipt is not None:
        came = "was carried out" if preview.receipt.is_done else "was refused"
        number = preview.receipt.audit_sequence
        seen = f", see audit {number}" if number else ""
        says = f"preview {preview.id} {came} already{seen}: make a new one"
        raise Refused("spent", says, is_spent=False, is_audited=preview.reused_at is None)
    if request.now >= preview.expires_at:
        says = f"preview {preview.id} is older than {PREVIEW_MINUTES} minutes: make a new one"
        raise Refused("expired", says)


def require_reason(request: Request) -> None:
    """Refuse a reason that is too short."""
    if too_short := find_short_reason(request.action.name, request.reason):
        raise too_short


def require_something(request: Request, plan: Plan) -> None:
    """Refuse a plan that would change no target."""
    if plan.items:
        return
    codes = {skip.code for skip in plan.skipped}
    same = {
        "unauthorized": "unauthorized",
        "not_found": "unknown_target",
        "still_true": "still_true",
    }
    code = same.get(codes.pop() if len(codes) == 1 else "", "illegal")
    raise Refused(code, _say_nothing_to_do(request, plan.skipped), skipped=plan.skipped)


def require_unchanged(preview: Preview, plan: Plan) -> None:
    """Refuse a plan that is not the one that was shown, with what has changed since."""
    if plan.fingerprint == preview.plan.fingerprint:
        return
    was_allowed = {item.target for item in preview.plan.items}
    denied = [
        skip for skip in plan.skipped if skip.code == "unauthorized" and skip.target in was_allowed
    ]
    if denied:
        raise Refused("unauthorized", denied[0].says, skipped=tuple(denied))
    drifted = tuple(_list_drift(preview, plan))
    says = (
        f"{_say_drifted(drifted)} changed since the preview: nothing was done, make a new preview"
    )
    raise Refused("drifted", says, drifted=drifted, before=preview.plan.facts, after=plan.facts)


def _say_nothing_to_do(request: Request, skipped: tuple[Skip, ...]) -> str:
    """The sentence why none of these targets can be changed."""
    says = skipped[0].says
    if len(skipped) == 1:
        return says
    return f"nothing to {request.action.title.lower()}: {says}, and {len(skipped) - 1} more"


def _say_drifted(drifted: tuple[Change, ...]) -> str:
    targets = list(dict.fromkeys(change.what.partition(" ")[0] for change in drifted))
    return say_target(targets[0]) if len(targets) == 1 else f"{len(targets)} targets"


def _list_drift(preview: Preview, plan: Plan) -> Iterator[Change]:
    """What has changed since the preview: the facts of each target, and whether it can be acted on."""
    shown = {skip.target: skip for skip in preview.plan.skipped}
    skipped = {skip.target: skip for skip in plan.skipped}
    facts_before, facts_now = preview.plan.facts, plan.facts
    for target in preview.targets:
        before, now = shown.get(target), skipped.get(target)
        if before is not None and now is not None and before.code == now.code:
            continue
        was, facts = facts_before[target], facts_now[target]
        for what in dict.fromkeys([*was, *facts]):
            if was.get(what) != facts.get(what):
                yield Change(f"{target} {what}", _words(was.get(what)), _words(facts.get(what)))
        if (before is None) != (now is None):
            yield Change(target, _say_skip(before), _say_skip(now))


def _say_skip(skip: Skip | None) -> str:
    return "can be acted on" if skip is None else skip.says


def _words(value: Any) -> str | None:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):  # the arguments of a cron entry, which a page recognises as JSON
        return json.dumps(value)
    return None if value is None else str(value)

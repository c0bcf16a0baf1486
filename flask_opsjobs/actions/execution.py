"""Executes a plan in one transaction: spends the token, locks the targets, compares, writes and audits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from ..audit import transitions as audit_transitions
from ..audit.transitions import Decision
from ..core.db import Connection
from ..errors import EngineUnavailable
from ..host import Host
from . import transitions
from .catalog import ACTIONS, Action
from .effects import Effect
from .planning import DOMAINS, PlanWithFacts, Request, make_plan
from .refusals import (
    Refused,
    find_refusal,
    require_permission,
    require_reason,
    require_something,
    require_unchanged,
)
from .shapes import Plan, Receipt
from .target_plan import ChangedMeanwhile, Decided, NothingWritten

_log = logging.getLogger("flask_opsjobs")
# How long an operator waits for a locked row: enough for another operator, but not for a long host
# transaction.
WAIT_SECONDS = 5
# A round is repeated only when another transaction took the same unique lock at the same moment.
_MOST_ROUNDS = 10


@dataclass(frozen=True)
class Executed:
    """The result of an execution, and what follows the commit. `preview_id` is None without a preview."""

    receipt: Receipt
    effects: tuple[Effect, ...] = ()
    preview_id: int | None = None
    after_commit: list[Callable[[], None]] = field(default_factory=list)


@dataclass
class Execution:
    """Executes one request. `shown` is the row of the preview to execute, or None."""

    host: Host
    request: Request
    decided: Decided
    request_id: str | None = None
    shown: Mapping[str, Any] | None = None
    after_commit: list[Callable[[], None]] = field(default_factory=list)

    def make(self, connection: Connection) -> Executed:
        """Execute the request, or refuse it and audit the refusal. Runs in the caller's transaction."""
        try:
            return self._apply(connection)
        except Refused as refused:
            return self.refuse(connection, refused)

    def refuse(self, connection: Connection, refused: Refused) -> Executed:
        """Audit or log a refusal, and spend the preview's token, unless the refusal says otherwise."""
        receipt = refused.receipt(self.request.action.name)
        if refused.is_audited:
            receipt = self._audit(connection, receipt, refused.before, refused.after)
        if refused.is_logged:
            _log.warning(
                "%s was refused %s: %s", self.request.actor, self.request.action.name, receipt.says
            )
        if self.shown is not None:
            if refused.is_spent:
                transitions.spend(connection, self.shown["id"], receipt, self.decided.now)
            elif refused.is_audited:
                transitions.note_reuse(connection, self.shown["id"], self.decided.now)
        return Executed(receipt, after_commit=self.after_commit)

    def _apply(self, connection: Connection) -> Executed:
        for _ in range(_MOST_ROUNDS):
            try:
                # A savepoint undoes writes and releases locks when the plan is refused or was changed
                # meanwhile.
                with connection.transaction():
                    planned = make_plan(
                        connection, self.host, self.request, self.decided, lock=True
                    )
                    self._require(planned)
                    domain, eligible = DOMAINS[self.request.action.domain], planned.eligible
                    written = domain.apply(
                        connection, self.host, self.request.action, eligible, self.decided
                    )
            except ChangedMeanwhile:
                continue
            except NothingWritten as met:
                raise Refused("illegal", str(met)) from None
            skipped = planned.plan.skipped
            says = _done(self.request.action, planned.plan)
            receipt = Receipt(
                "done", self.request.action.name, None, says, None, written.items, skipped
            )
            before = {target_plan.target: dict(target_plan.facts) for target_plan in eligible}
            receipt = self._audit(connection, receipt, before, written.after)
            preview_id = None
            if self.shown is not None:
                preview_id = self.shown["id"]
                transitions.spend(connection, self.shown["id"], receipt, self.decided.now)
            return Executed(receipt, written.effects, preview_id, self.after_commit)
        raise EngineUnavailable(
            f"{self.request.action.name} kept colliding with other transactions: try again"
        )

    def _require(self, planned: PlanWithFacts) -> None:
        if self.shown is not None:
            require_unchanged(self.shown, planned)
        require_something(self.request, planned.plan)

    def _audit(self, connection: Connection, receipt: Receipt, before: Any, after: Any) -> Receipt:
        request, shown = self.request, self.shown
        decision = Decision(
            at=self.decided.now,
            actor=request.actor,
            via=request.via,
            action=request.action.name,
            subject=_subject(request),
            targets=request.targets,
            outcome=receipt.outcome,
            code=receipt.code,
            permission=request.action.permission,
            reason=self.decided.reason,
            request_id=self.request_id,
            preview_id=None if shown is None else shown["id"],
            previewed_at=None if shown is None else shown["created_at"],
            before=before,
            after=after,
        )
        sequence = audit_transitions.append(
            connection, self.host.secrets, decision, after_commit=self.after_commit.append
        )
        return replace(receipt, audit_sequence=sequence)


def execute_preview(
    connection: Connection,
    host: Host,
    preview_id: int,
    token: str,
    *,
    actor: str,
    via: str,
    reason: str,
    request_id: str | None,
    is_trusted: bool,
    now: datetime,
) -> Executed:
    """Execute a preview in one transaction. It is committed also when the preview is refused."""
    with connection.transaction():
        transitions.limit_waits(connection, WAIT_SECONDS)
        row = transitions.lock(connection, preview_id)
        if row is None:
            says = f"there is no preview {preview_id}: it expired and was removed, or never existed"
            _log.warning("%s was refused preview %d: %s", actor, preview_id, says)
            return Executed(Receipt("refused", "", "expired", says, None))
        request = Request(
            ACTIONS[row["action"]], tuple(row["targets"]), row["params"], actor, via, is_trusted
        )
        decided = Decided(actor, reason, now, request.params)
        execution = Execution(host, request, decided, request_id, shown=row)
        refused = find_refusal(host, request, row, token, now) or require_reason(request, reason)
        return (
            execution.make(connection) if refused is None else execution.refuse(connection, refused)
        )


def run(
    connection: Connection, host: Host, request: Request, *, reason: str, request_id: str | None, now: datetime
) -> Executed:  # fmt: skip
    """Lock the targets, plan and execute in one transaction.

    It is committed also when the request is refused.
    """
    with connection.transaction():
        transitions.limit_waits(connection, WAIT_SECONDS)
        execution = Execution(
            host, request, Decided(request.actor, reason, now, request.params), request_id
        )
        refused = require_permission(host, request) or require_reason(request, reason)
        return (
            execution.make(connection) if refused is None else execution.refuse(connection, refused)
        )


def note_effects(connection: Connection, executed: Executed, now: datetime) -> None:
    """Store a receipt again after the commit, when failed effects have been added to it."""
    if executed.preview_id is not None:
        transitions.spend(connection, executed.preview_id, executed.receipt, now)


def _subject(request: Request) -> str:
    if len(request.targets) == 1:
        return request.targets[0]
    return f"{len(request.targets)} {request.action.domain}s"


def _done(action: Action, plan: Plan) -> str:
    if len(plan.targets) == 1:
        words = action.on(plan.targets[0].replace("/", " ", 1))
        return f"{words[0].upper()}{words[1:]}: done"
    skipped = f", {len(plan.skipped)} skipped" if plan.skipped else ""
    return f"{action.title}: {len(plan.items)} done{skipped}"

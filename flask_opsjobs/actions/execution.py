"""Execution: one transaction that spends the token, locks the targets, compares, writes and audits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from ..audit import transitions as audit_transitions
from ..audit.transitions import Decision
from ..db import Connection
from ..errors import EngineUnavailable
from ..host import Host
from . import transitions
from .catalog import ACTIONS, Action
from .effects import Effect
from .planning import THINGS, Ask, Judged, judge
from .refusals import (
    Refused,
    compare,
    find_refusal,
    require_permission,
    require_reason,
    require_something,
)
from .shapes import Plan, Receipt
from .verdict import ChangedMeanwhile, Decided, NothingWritten

_log = logging.getLogger("flask_opsjobs")
# An operator waits for a flush or another operator, never long for a host's transaction.
WAIT_SECONDS = 5
# A round is repeated only when another transaction took a unique lock at the same moment.
_MOST_ROUNDS = 10


@dataclass(frozen=True)
class Executed:
    """What came of it, and what follows the commit. `preview_id` is None when nothing was shown before."""

    receipt: Receipt
    effects: tuple[Effect, ...] = ()
    preview_id: int | None = None
    after_commit: list[Callable[[], None]] = field(default_factory=list)


@dataclass
class Execution:
    """One execution on its way. `shown` is the row of the preview that it carries out."""

    host: Host
    ask: Ask
    decided: Decided
    request_id: str | None = None
    shown: Mapping[str, Any] | None = None
    after_commit: list[Callable[[], None]] = field(default_factory=list)

    def make(self, connection: Connection) -> Executed:
        """Carry it out, or refuse it and audit that; part of the caller's transaction."""
        try:
            return self._carry_out(connection)
        except Refused as refused:
            return self.refuse(connection, refused)

    def refuse(self, connection: Connection, refused: Refused) -> Executed:
        """Audit a refusal or log it, and spend the token unless it stays good."""
        receipt = refused.receipt(self.ask.action.name)
        if refused.is_audited:
            receipt = self._audit(connection, receipt, refused.before, refused.after)
        if refused.is_logged:
            _log.warning(
                "%s was refused %s: %s", self.ask.actor, self.ask.action.name, receipt.says
            )
        if self.shown is not None:
            if refused.is_spent:
                transitions.spend(connection, self.shown["id"], receipt, self.decided.now)
            elif refused.is_audited:
                transitions.note_reuse(connection, self.shown["id"], self.decided.now)
        return Executed(receipt, after_commit=self.after_commit)

    def _carry_out(self, connection: Connection) -> Executed:
        for _ in range(_MOST_ROUNDS):
            try:
                # A savepoint: what was locked and written goes back when it is refused or overtaken.
                with connection.transaction():
                    judged = judge(connection, self.host, self.ask, self.decided, lock=True)
                    self._require(judged)
                    thing, eligible = THINGS[self.ask.action.thing], judged.eligible
                    written = thing.carry_out(
                        connection, self.host, self.ask.action, eligible, self.decided
                    )
            except ChangedMeanwhile:
                continue
            except NothingWritten as met:
                raise Refused("illegal", str(met)) from None
            skipped = judged.plan.skipped
            says = _done(self.ask.action, judged.plan)
            receipt = Receipt(
                "done", self.ask.action.name, None, says, None, written.items, skipped
            )
            before = {verdict.target: dict(verdict.facts) for verdict in eligible}
            receipt = self._audit(connection, receipt, before, written.after)
            preview_id = None
            if self.shown is not None:
                preview_id = self.shown["id"]
                transitions.spend(connection, self.shown["id"], receipt, self.decided.now)
            return Executed(receipt, written.effects, preview_id, self.after_commit)
        raise EngineUnavailable(f"{self.ask.action.name} met others all the time: try again")

    def _require(self, judged: Judged) -> None:
        if self.shown is not None:
            compare(self.ask, self.shown, judged)
        require_something(self.ask, judged.plan)

    def _audit(self, connection: Connection, receipt: Receipt, before: Any, after: Any) -> Receipt:
        ask, shown = self.ask, self.shown
        decision = Decision(
            at=self.decided.now,
            actor=ask.actor,
            via=ask.via,
            action=ask.action.name,
            subject=_subject(ask),
            targets=ask.targets,
            outcome=receipt.outcome,
            code=receipt.code,
            permission=ask.action.permission,
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


def carry_out(
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
    """Carry out what was previewed, in one transaction, which is committed also when it is refused."""
    with connection.transaction():
        transitions.limit_waits(connection, WAIT_SECONDS)
        row = transitions.lock(connection, preview_id)
        if row is None:
            says = f"there is no preview {preview_id}: it expired and was removed, or never was"
            _log.warning("%s was refused preview %d: %s", actor, preview_id, says)
            return Executed(Receipt("refused", "", "expired", says, None))
        ask = Ask(
            ACTIONS[row["action"]], tuple(row["targets"]), row["params"], actor, via, is_trusted
        )
        decided = Decided(actor, reason, now, ask.params)
        execution = Execution(host, ask, decided, request_id, shown=row)
        refused = find_refusal(host, ask, row, token, now) or require_reason(ask, reason)
        return (
            execution.make(connection) if refused is None else execution.refuse(connection, refused)
        )


def run(
    connection: Connection, host: Host, ask: Ask, *, reason: str, request_id: str | None, now: datetime
) -> Executed:  # fmt: skip
    """Plan under the lock and carry out, in one transaction, which is committed also when it is refused."""
    with connection.transaction():
        transitions.limit_waits(connection, WAIT_SECONDS)
        execution = Execution(host, ask, Decided(ask.actor, reason, now, ask.params), request_id)
        refused = require_permission(host, ask) or require_reason(ask, reason)
        return (
            execution.make(connection) if refused is None else execution.refuse(connection, refused)
        )


def note(connection: Connection, executed: Executed, now: datetime) -> None:
    """Keep a receipt that says more than it did at the commit."""
    if executed.preview_id is not None:
        transitions.spend(connection, executed.preview_id, executed.receipt, now)


def _subject(ask: Ask) -> str:
    if len(ask.targets) == 1:
        return ask.targets[0]
    return f"{len(ask.targets)} {ask.action.thing}s"


def _done(action: Action, plan: Plan) -> str:
    if len(plan.targets) == 1:
        words = action.on(plan.targets[0].replace("/", " ", 1))
        return f"{words[0].upper()}{words[1:]}: done"
    skipped = f", {len(plan.skipped)} skipped" if plan.skipped else ""
    return f"{action.title}: {len(plan.items)} done{skipped}"

"""Makes one turn of an operation: proves, stops, pauses, or changes its next jobs, in one transaction.

A crash repeats nothing: a row's receipt is written with the change of its job. It loses nothing but a
question to RQ, which is asked after the commit, and never again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from .. import signals
from ..actions.domain import Request
from ..actions.effects import AskRq, Effect
from ..actions.permission import find_excess, is_permitted
from ..actions.planning import limit_waits
from ..actions.registry import ACTIONS
from ..audit import transitions as audit_transitions
from ..audit.transitions import Decision
from ..core.db import Connection
from ..core.words import counted
from ..engine.dispatch.after_commit import ask_rq_once, is_answering, run_effects
from ..host import Host
from . import stages, transitions
from .change import change_jobs
from .transitions import FrozenJob, OpenOperation, QueueRoom, RowReceipt, StageProof

# The most rows of one transaction.
CHUNK = 200
# With a plain job among them: if Redis goes away in the middle, the answers about so many are not known.
_MOST_ASKED = 20
_WAIT_SECONDS = 2


@dataclass(frozen=True)
class Cause:
    """Why an operation pauses or stops: a stable code and a sentence."""

    code: str
    says: str


@dataclass
class OperationTurn:
    """A turn of one operation. `handled` rows were done or skipped, `moved` says what became of it."""

    connection: Connection
    host: Host
    now: datetime
    operation: OpenOperation
    # The Redis of the plain job whose turn comes next.
    is_redis_away: bool = False
    handled: int = 0
    moved: str = ""
    effects: list[Effect] = field(default_factory=list)
    numbers: dict[int, int] = field(default_factory=dict)
    rooms: dict[str, QueueRoom] = field(default_factory=dict)
    # Whether the queue of the next row has no room for it.
    is_full: bool = False
    after_commit: list[Callable[[], None]] = field(default_factory=list)

    @property
    def has_more(self) -> bool:
        """Whether the next turn can do something at once."""
        return (self.handled > 0 and not self.is_full) or self.moved in ("stage", "resumed")

    def make(self) -> None:
        """Make the turn in the caller's transaction."""
        if self._makes_due:
            self.operation = transitions.prove(self.connection, self.operation, self.now)
        if (cause := self._find_stop()) is not None:
            self._stop(cause)
        elif self.operation.code not in stages.LASTING:
            self._go_on()

    def _go_on(self) -> None:
        high = self._bounds[1]
        rows = transitions.list_next(self.connection, self.operation, high, CHUNK)
        if (cause := self._find_pause(rows)) is not None:
            self._pause(cause)
            return
        if self.operation.state == "paused":
            self._resume()
        if rows:
            self._change(rows)
        else:
            self._end_stage()

    # --- the stage

    @property
    def _makes_due(self) -> bool:
        return self.operation.action in stages.MAKES_DUE

    @property
    def _bounds(self) -> tuple[int, int]:
        operation = self.operation
        return stages.bounds_of_stage(operation.stage, operation.begun_after, operation.targets)

    def _read_proof(self) -> StageProof:
        low, high = self._bounds
        return transitions.read_proof(self.connection, self.operation, low, high)

    def _end_stage(self) -> None:
        """End a stage without rows to change, once it is proven; after the last one, the operation."""
        operation = self.operation
        if self._makes_due and not operation.is_proof_waived:
            waiting = self._read_proof().waiting
            is_late = self.now - (operation.handled_at or self.now) >= stages.PROOF_SPAN
            if waiting and is_late and self._bounds[1] < operation.targets:
                minutes = stages.PROOF_SPAN.seconds // 60
                jobs = f"{counted(waiting, 'job')} of stage {operation.stage}"
                self._pause(Cause("unproven", f"{jobs} did not end within {minutes} minutes"))
                return
            if waiting and not is_late:
                return
        self._audit_stage()
        if self._bounds[1] < operation.targets:
            self.operation = transitions.next_stage(self.connection, operation)
            self.moved = "stage"
            return
        transitions.end(self.connection, [operation.id], "finished", self.now)
        self._audit("operation.finish", None, self._counts())
        self.moved = "finished"

    # --- stops and pauses

    def _find_stop(self) -> Cause | None:
        operation = self.operation
        if not is_permitted(self._request(), None):
            return Cause("unauthorized", f"{operation.actor} no longer has {operation.action}")
        handled = operation.handled - operation.begun_after
        has_rest = operation.handled < operation.targets
        if has_rest and stages.is_drifting(operation.drifted, handled):
            says = f"{operation.drifted:,} of {counted(handled, 'job')} had changed since they were frozen"
            return Cause("drifted", says)
        if not operation.failed_same_error:
            return None
        proof = self._read_proof()
        if not stages.is_same_failure_back(
            operation.stage, proof.same_in_stage, proof.recent, proof.same_in_recent
        ):
            return None
        which = (
            "the first retried job"
            if proof.recent == 1
            else f"{proof.same_in_recent} of the last {counted(proof.recent, 'retried job')}"
        )
        says = f"{which} failed with the same error, in stage {operation.stage}"
        return Cause("same_failure", says)

    def _find_pause(self, rows: Sequence[FrozenJob]) -> Cause | None:
        """Why it cannot go on now. `rows` are those that could be changed next."""
        operation = self.operation
        excess = find_excess(self._request(), operation.action, operation.targets)
        if excess is not None:
            return Cause("most_targets", excess)
        return self._find_trouble(rows) if rows else None

    def _find_trouble(self, rows: Sequence[FrozenJob]) -> Cause | None:
        """Why jobs of the next queue should not become due now, or RQ should not be asked about them."""
        row = rows[0]
        if row.origin == "rq" and self.is_redis_away:
            return Cause("redis_away", f"the Redis of the queue {row.queue} does not answer")
        if not (self._makes_due or row.origin == "rq"):
            return None
        incident = transitions.find_incident(self.connection, row.queue, self._makes_due)
        if incident is not None:
            id_, class_ = incident
            says = (
                "Redis does not answer"
                if class_ == "redis_away"
                else f"{class_} at the queue {row.queue}"
            )
            return Cause(class_, f"{says}: see incident {id_}")
        if not self._makes_due:
            return None
        self.rooms = transitions.read_rooms(
            self.connection,
            self.operation.id,
            {each.queue for each in rows},
            self.host.settings,
            self.now,
        )
        room = self.rooms[row.queue]
        if room.is_paused:
            return Cause("queue_paused", f"the queue {room.queue} is paused")
        if not room.listeners:
            return Cause("queue_unserved", f"no live worker listens to the queue {room.queue}")
        return None

    def _pause(self, cause: Cause) -> None:
        operation = self.operation
        if (operation.code, operation.says) == (cause.code, cause.says):
            return
        transitions.pause(self.connection, [operation.id], cause.code, cause.says, self.now)
        if operation.code != cause.code:
            self._audit("operation.pause", cause, self._counts())
        self.moved = "paused"

    def _resume(self) -> None:
        transitions.resume(self.connection, [self.operation.id])
        cause = Cause(self.operation.code or "", f"it is over: {self.operation.says}")
        self._audit("operation.resume", cause, self._counts())
        self.operation = replace(self.operation, state="running", code=None, says=None)
        self.moved = "resumed"

    def _stop(self, cause: Cause) -> None:
        transitions.end(
            self.connection, [self.operation.id], "stopped", self.now, cause.code, cause.says
        )
        self._audit("operation.stop", cause, self._counts())
        self.moved = "stopped"

    # --- the change

    def _change(self, rows: Sequence[FrozenJob]) -> None:
        operation = self.operation
        rows = rows[: stages.find_turns(operation.rate, operation.paced_at, self.now, CHUNK)]
        if any(row.origin == "rq" for row in rows):
            rows = rows[:_MOST_ASKED]
        if self._makes_due and rows:
            rows = self._keep_those_with_room(rows)
        if not rows:
            return
        changed = change_jobs(self.connection, self._request(), rows)
        self.handled = len(changed.receipts)
        # What was skipped takes no room.
        self.is_full &= all(receipt.result == "done" for receipt in changed.receipts)
        paced_at = stages.find_paced_at(operation.rate, operation.paced_at, self.now, self.handled)
        self.operation = transitions.write_receipts(
            self.connection, operation, changed.receipts, changed.drifted, self.now, paced_at
        )
        self.effects += changed.effects
        self.numbers = {row.job_id: row.number for row in rows}

    def _keep_those_with_room(self, rows: Sequence[FrozenJob]) -> Sequence[FrozenJob]:
        """The first rows for which their queues have room: one prefetch of them may wait at most.

        A queue has room when half of its prefetch is used up, so that a turn is worth what it costs.
        """
        left = {
            name: room.prefetch - room.waiting if room.waiting * 2 <= room.prefetch else 0
            for name, room in self.rooms.items()
        }
        for place, row in enumerate(rows):
            if left[row.queue] <= 0:
                self.is_full = True
                return rows[:place]
            left[row.queue] -= 1
        return rows

    def _request(self) -> Request:
        operation = self.operation
        return Request(
            self.host,
            ACTIONS[operation.action],
            (),
            {},
            operation.actor,
            operation.via,
            operation.reason,
            is_trusted=operation.is_trusted,
            now=self.now,
        )

    # --- the audit

    def _counts(self) -> dict[str, Any]:
        operation = self.operation
        counts = ("done", "skipped", "asked", "proven", "failed_same_error", "failed_other_error")
        found = {name: getattr(operation, name) for name in (*counts, "unproven", "drifted")}
        return {"targets": operation.targets, **found}

    def _audit_stage(self) -> None:
        low, high = self._bounds
        found = transitions.hash_receipts(self.connection, self.operation.id, low, high)
        after = {"stage": self.operation.stage, "rows": [low + 1, high], **found}
        self._audit("operation.stage", None, after)

    def _audit(self, action: str, cause: Cause | None, after: dict[str, Any]) -> None:
        decision = Decision(
            at=self.now,
            actor="system",
            via="system",
            action=action,
            subject=self.operation.target,
            targets=(self.operation.target,),
            outcome="done",
            reason=None if cause is None else cause.says,
            after=after if cause is None else {"code": cause.code, **after},
        )
        audit_transitions.append_or_keep(
            self.connection, self.host.secrets, decision, after_commit=self.after_commit.append
        )

    # --- after the commit

    def follow_commit(self) -> None:
        """Run the effects, and ask RQ about plain jobs, each once."""
        for tell in self.after_commit:
            tell()
        questions = [effect for effect in self.effects if isinstance(effect, AskRq)]
        others = [effect for effect in self.effects if not isinstance(effect, AskRq)]
        run_effects(self.host, self.connection, others)
        answers = [self._ask(question) for question in questions]
        if answers:
            transitions.note_answers(self.connection, self.operation.id, answers)

    def _ask(self, question: AskRq) -> RowReceipt:
        number = self.numbers[question.job]
        answer, why = ask_rq_once(self.host, question)
        if answer == "refused":
            return RowReceipt(number, "skipped", "rq_refused", why)
        return RowReceipt(number, "done" if answer == "done" else "asked", says=why)


def make_turn(
    connection: Connection, host: Host, operation: int, now: datetime
) -> OperationTurn | None:
    """Make one turn of an operation, and what follows its commit.

    None when it is not open, or when somebody else has it now. `connection` is in autocommit. Raises
    `LockNotAvailable` when a job stays locked: then nothing was changed.
    """
    place = transitions.find_next_place(connection, operation)
    is_redis_away = place is not None and not is_answering(host, *place)
    with signals.sent_by(host), signals.once_committed(), connection.transaction():
        limit_waits(connection, _WAIT_SECONDS)
        locked = transitions.lock_open(connection, operation)
        if locked is None:
            return None
        turn = OperationTurn(connection, host, now, locked, is_redis_away)
        turn.make()
    turn.follow_commit()
    return turn

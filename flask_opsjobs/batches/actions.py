"""Decides and applies the actions on batches, with the writes of `batches`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from ..actions.domain import (
    Action,
    ChangedMeanwhile,
    Request,
    cannot,
    exact,
    make_item,
    make_skip,
    name_in,
    read_id_target,
    say_target,
)
from ..actions.effects import Dispatch, Effect, Fold
from ..actions.shapes import Change, Item, Skip
from ..core.db import Connection
from ..core.words import counted
from ..jobs import transitions as job_transitions
from ..jobs.record import unique_locks
from . import transitions
from .lifecycle import FINAL, STATES
from .queries import BatchRow
from .transitions import BatchForDecision

# One retry takes at most this many members, so that it holds its locks for about a second.
MOST_MEMBERS = 10_000


# --- targets and rows


def read_target(text: str) -> str | None:
    """The target in its canonical form, `batch/7`; None when the text names no batch."""
    return read_id_target("batch", text)


def lock_rows(connection: Connection, _request: Request, targets: Collection[str]) -> None:
    """Lock these batches until the commit, in id order. Nobody folds them meanwhile."""
    transitions.lock(connection, [int(name_in(target)) for target in targets])


def find_rows(
    connection: Connection, _request: Request, targets: Collection[str]
) -> dict[str, BatchForDecision]:
    """Those of these batches that exist, in id order."""
    found = transitions.look(connection, [int(name_in(target)) for target in targets])
    return {batch.target: batch for batch in found}


def say_unknown(target: str) -> str:
    """The sentence about a batch that does not exist."""
    return f"there is no {say_target(target)}"


def forbid(batch: BatchForDecision, request: Request) -> Skip | None:
    """Why the batch's state forbids the action; None when it allows it."""
    if batch.state in request.action.sources:
        return None
    legal = [action.title.lower() for action in ACTIONS if batch.state in action.sources]
    return cannot(batch, request, f"it is {batch.state}; legal now: {', '.join(legal)}")


def list_facts(batch: BatchForDecision, _now: datetime) -> dict[str, Any]:
    """The values that must not have changed since the preview.

    Not its counts: they change whenever a member ends, and no batch that makes progress could be acted on.
    """
    return {
        "state": batch.state,
        "end_no": batch.end_no,
        "cancel_requested_at": exact(batch.cancel_requested_at),
    }


# --- cancel


def _decide_cancel(batch: BatchForDecision, _request: Request) -> Item | Skip:
    if batch.cancel_requested_at is not None:
        who = batch.cancel_requested_by or "somebody"
        says = f"{who} has already canceled batch {batch.id}; its last members are being stopped"
        return make_skip(batch, "already", says)
    left = counted(batch.open_members, "member")
    note = f"{left} have not ended: those that wait end now, those that run are stopped"
    return make_item(batch, Change("state", batch.state, "canceled"), note=note)


def _apply_cancel(
    connection: Connection, request: Request, batches: Sequence[BatchForDecision]
) -> list[Effect | Item]:
    ids = [batch.id for batch in batches]
    transitions.cancel(connection, ids, request.actor, request.reason, request.now)
    return [Fold(tuple(ids))]


# --- close


def _decide_close(batch: BatchForDecision, _request: Request) -> Item | Skip:
    return make_item(batch, Change("state", "open", "running"))


def _apply_close(
    connection: Connection, _request: Request, batches: Sequence[BatchForDecision]
) -> list[Effect | Item]:
    ids = [batch.id for batch in batches]
    transitions.close(connection, ids)
    return [Fold(tuple(ids))]


# --- retry


def _states_to_retry(batch: BatchForDecision) -> tuple[str, ...]:
    """The states of members that a retry takes: of a canceled batch, what the cancel ended too."""
    return ("failed", "canceled") if batch.state == "canceled" else ("failed",)


def _read_members_to_retry(
    connection: Connection, request: Request, batches: dict[str, BatchForDecision]
) -> dict[str, BatchForDecision]:
    takers = unique_locks.Takers()
    return {
        target: transitions.find_members_to_retry(
            connection, batch, _states_to_retry(batch), MOST_MEMBERS, request.now, takers
        )
        for target, batch in batches.items()
        if not _is_being_canceled(batch)
    }


def _is_being_canceled(batch: BatchForDecision) -> bool:
    return batch.cancel_requested_at is not None and batch.state not in FINAL


def _decide_retry(batch: BatchForDecision, request: Request) -> Item | Skip:
    states = _states_to_retry(batch)
    number = batch.failed + (batch.canceled if "canceled" in states else 0)
    if not number and batch.state == "failed":
        return cannot(
            batch, request, "the rows of its lost members are gone, and no other one failed"
        )
    if not number:
        return cannot(batch, request, "none of its members failed")
    if _is_being_canceled(batch):
        return cannot(batch, request, "it is being canceled; wait until it has ended")
    if batch.left_out and not batch.to_retry:
        return cannot(batch, request, _say_left_out(batch), "duplicate")
    number -= len(batch.left_out)
    changes = [Change(f"{counted(number, 'member')}", " or ".join(states), "available")]
    if batch.state in FINAL:
        changes.insert(0, Change("state", batch.state, "running"))
    notes = []
    if number > MOST_MEMBERS:
        notes = [
            f"at most {MOST_MEMBERS:,} at once, the oldest first: retry it again for the others"
        ]
    if batch.left_out:
        notes.append(_say_left_out(batch))
    return make_item(batch, *changes, note="; ".join(notes) or None)


def _say_left_out(batch: BatchForDecision) -> str:
    pairs = [(f"job {member}", holder) for member, holder in batch.left_out]
    return unique_locks.say_left_out("member", pairs)


def _apply_retry(
    connection: Connection, request: Request, batches: Sequence[BatchForDecision]
) -> list[Effect | Item]:
    now = request.now
    lanes: dict[tuple[str, str], None] = {}
    items = []
    for batch in batches:
        states = _states_to_retry(batch)
        job_transitions.lock(connection, batch.to_retry)
        members = job_transitions.read(connection, batch.to_retry, now)
        unique = {job.id: None for job in members.values() if job.unique_until == "ended"}
        if unique and unique_locks.take(connection, unique, now):
            raise ChangedMeanwhile
        job_transitions.retry(connection, list(members), now)
        lanes |= dict.fromkeys((job.lane, job.queue) for job in members.values())
        retried = Change(counted(len(members), "member"), " or ".join(states), "available")
        items.append(make_item(batch, retried))
    return [Dispatch(tuple(lanes)), Fold(tuple(batch.id for batch in batches)), *items]


# In the order of their buttons.
ACTIONS: tuple[Action[BatchForDecision], ...] = (
    Action(
        name="batch.retry",
        title="Retry",
        phrase="retry the failed members of {}",
        sources=STATES,
        risk="Each member that failed runs once more. A batch that has ended runs again, ends once more and "
        "calls back again.",
        read_more=_read_members_to_retry,
        decide=_decide_retry,
        apply=_apply_retry,
    ),
    Action(
        name="batch.close",
        title="Close",
        sources=("open",),
        risk="No member can be added any more. A host that still adds members gets an error.",
        decide=_decide_close,
        apply=_apply_close,
    ),
    Action(
        name="batch.cancel",
        title="Cancel",
        sources=("open", "running"),
        risk="Members that wait end now. Members that run are stopped. No member can be added any more.",
        decide=_decide_cancel,
        apply=_apply_cancel,
    ),
)


def actions_of_batch(batch: BatchRow) -> Sequence[Action[BatchForDecision]]:
    """The actions that a page offers for a batch, however large: legal now, with members to change."""
    is_canceling = batch.cancel_requested_at is not None and not batch.is_final
    has_any = batch.ends["failed"] or (batch.state == "canceled" and batch.ends["canceled"])
    useless = {"retry": is_canceling or not has_any, "cancel": is_canceling}
    legal = [each for each in ACTIONS if batch.state in each.sources]
    return [each for each in legal if not useless.get(each.short_name)]

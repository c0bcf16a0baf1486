"""Decides and applies the actions on queues, with the writes of `queues`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..actions.catalog import Action
from ..actions.effects import Dispatch, Effect, Recall
from ..actions.numbers import read_whole
from ..actions.shapes import Change
from ..actions.target_plan import Decided, TargetPlan, Written, do, exact, illegal, leave
from ..core.db import Connection
from ..host import Host
from . import lifecycle
from . import transitions as queue_transitions
from .transitions import QueueForDecision

_TARGET = re.compile(r"queue/[^\0\ud800-\udfff]{1,500}", re.DOTALL)
_MOST_PREFETCH = 1_000_000
_NOTES = {
    "pause": "running jobs continue; jobs in Redis are recalled right after",
    "drain": "running jobs and jobs in Redis continue",
}


def read_target(text: str) -> str | None:
    """The target unchanged, such as `queue/mail`; None when the text names no queue."""
    return text if _TARGET.fullmatch(text) else None


def read_params(_host: Host, _action: Action, given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters beside the targets, in canonical values. Raises `ValueError` with the allowed values."""
    return {name: _read_prefetch(value) for name, value in given.items()}


def _read_prefetch(value: Any) -> int | None:
    """The number of jobs; None for automatic, which forms and commands send as an empty text or `auto`."""
    return (
        None
        if value in (None, "", "auto")
        else read_whole(value, _MOST_PREFETCH, "a prefetch is {}, or auto")
    )


def decide(
    connection: Connection,
    host: Host,
    action: Action,
    targets: Sequence[str],
    decided: Decided,
    *,
    lock: bool,
) -> list[TargetPlan]:
    """What the action would do with each of these queues. `lock` locks their rows until the commit."""
    names = {target: target.partition("/")[2] for target in targets}
    found = _look(connection, host, names.values())
    if lock and found:
        # Only known queues get a row. Read them again: another operator may have changed them meanwhile.
        queue_transitions.lock(connection, found, decided.now)
        found = _look(connection, host, names.values())
    return [_decide_one(action, target, found.get(name), decided) for target, name in names.items()]


def apply(
    connection: Connection,
    host: Host,
    action: Action,
    target_plans: Sequence[TargetPlan],
    decided: Decided,
) -> Written:
    """Write the action on queues that the caller has locked. The caller commits."""
    queues: list[QueueForDecision] = [target_plan.row for target_plan in target_plans]
    names = [queue.name for queue in queues]
    actor, reason, now = decided.actor, decided.reason, decided.now
    if action.short_name == "pause":
        queue_transitions.pause(connection, names, actor, reason, now)
    elif action.short_name == "drain":
        queue_transitions.drain(connection, names, actor, reason, now)
    elif action.short_name == "resume":
        queue_transitions.resume(connection, names)
    else:
        queue_transitions.set_prefetch(connection, names, decided.params["prefetch"])
    after = {f"queue/{q.name}": _facts(q) for q in _look(connection, host, names).values()}
    items = tuple(target_plan.item for target_plan in target_plans if target_plan.item is not None)
    return Written(items, after, _effects(action, names))


def _look(connection: Connection, host: Host, names: Any) -> dict[str, QueueForDecision]:
    declared = {task.declared.queue for task in host.tasks.values()}
    return queue_transitions.look(connection, names, declared)


def _effects(action: Action, names: Sequence[str]) -> tuple[Effect, ...]:
    if action.short_name == "pause":
        return tuple(Recall(name) for name in names)
    # Jobs without a limit wait in the lane with the queue's name. The dispatch loop finds the other lanes.
    return (
        () if action.short_name == "drain" else (Dispatch(tuple((name, name) for name in names)),)
    )


def _decide_one(
    action: Action, target: str, queue: QueueForDecision | None, decided: Decided
) -> TargetPlan:
    if queue is None:
        sentence = f"no job, no task and no listener names the {target.replace('/', ' ', 1)}"
        return leave(target, None, {}, "not_found", sentence)
    facts = _facts(queue)
    if action.short_name == "set_prefetch":
        before, after = _prefetch(queue.prefetch), _prefetch(decided.params["prefetch"])
        if before == after:
            sentence = f"the prefetch of queue {queue.name} is {before} already"
            return leave(target, queue.name, facts, "already", sentence)
        return do(target, queue.name, facts, queue, Change("prefetch", before, after))
    if queue.state not in action.sources:
        return _not_now(action, target, queue, facts)
    (arrow,) = [arrow for arrow in lifecycle.ARROWS if arrow.name == action.short_name]
    change = Change("state", queue.state, arrow.target)
    return do(target, queue.name, facts, queue, change, note=_NOTES.get(action.short_name))


def _not_now(
    action: Action, target: str, queue: QueueForDecision, facts: dict[str, Any]
) -> TargetPlan:
    (arrow,) = [arrow for arrow in lifecycle.ARROWS if arrow.name == action.short_name]
    if queue.state != arrow.target:
        return illegal(action, target, queue.name, facts, queue.state)
    by = f", by {queue.paused_by}" if queue.paused_by else ""
    sentence = f"queue {queue.name} is {queue.state} already{by}"
    return leave(target, queue.name, facts, "already", sentence)


def _facts(queue: QueueForDecision) -> dict[str, Any]:
    return {
        "state": queue.state,
        "prefetch": queue.prefetch,
        "paused_at": exact(queue.paused_at),
        "paused_by": queue.paused_by,
    }


def _prefetch(size: int | None) -> str:
    return "automatic" if size is None else str(size)

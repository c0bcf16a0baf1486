"""Decides and applies the actions on queues, with the writes of `queues`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

from ..actions.domain import (
    Action,
    Request,
    cannot,
    exact,
    make_item,
    make_skip,
    name_in,
    read_whole,
    say_target,
)
from ..actions.effects import Dispatch, Effect, Recall, Resync
from ..actions.shapes import Change, Item, Skip
from ..core.db import Connection
from ..core.redis_facts import QueueInRedis
from ..core.words import counted
from ..host import Host
from . import transitions as queue_transitions
from .lifecycle import ARROWS, sources_of
from .transitions import QueueForDecision

_TARGET = re.compile(r"queue/[^\0\ud800-\udfff]{1,500}", re.DOTALL)
_MOST_PREFETCH = 1_000_000


# --- targets and rows


def read_target(text: str) -> str | None:
    """The target unchanged, such as `queue/mail`; None when the text names no queue."""
    return text if _TARGET.fullmatch(text) else None


def lock_rows(connection: Connection, request: Request, targets: Collection[str]) -> None:
    """Lock the rows of these queues until the commit. Only a known queue gets a row."""
    if known := _read_known(connection, request.host, map(name_in, targets)):
        queue_transitions.lock(connection, known, request.now)


def find_rows(
    connection: Connection, request: Request, targets: Collection[str]
) -> dict[str, QueueForDecision]:
    """The known ones of these queues."""
    found = _read_known(connection, request.host, map(name_in, targets))
    return {queue.target: queue for queue in found.values()}


def _read_known(
    connection: Connection, host: Host, names: Iterable[str]
) -> dict[str, QueueForDecision]:
    declared = {task.declared.queue for task in host.tasks.values()}
    return queue_transitions.read(connection, names, declared)


def say_unknown(target: str) -> str:
    """The sentence about a queue that nobody knows."""
    return f"no job, no task and no listener names the {say_target(target)}"


def forbid(queue: QueueForDecision, request: Request) -> Skip | None:
    """Why the queue's state forbids the action; None when it allows it."""
    if queue.state in request.action.sources:
        return None
    if queue.state not in _targets_of(request):
        return cannot(queue, request, f"it is {queue.state}")
    by = f", by {queue.paused_by}" if queue.paused_by else ""
    return make_skip(queue, "already", f"queue {queue.name} is {queue.state} already{by}")


def list_facts(queue: QueueForDecision, _now: datetime) -> dict[str, Any]:
    """The values that must not have changed since the preview."""
    return {
        "state": queue.state,
        "prefetch": queue.prefetch,
        "paused_at": exact(queue.paused_at),
        "paused_by": queue.paused_by,
    }


def _targets_of(request: Request) -> tuple[str, ...]:
    name = request.action.short_name
    return next(arrow.targets for arrow in ARROWS if arrow.name == name)


# --- pause, resume and drain


def _decide_state(queue: QueueForDecision, request: Request) -> Item | Skip:
    (target,) = _targets_of(request)
    return make_item(queue, Change("state", queue.state, target))


def _apply_pause(
    connection: Connection, request: Request, queues: Sequence[QueueForDecision]
) -> list[Effect | Item]:
    names = [queue.name for queue in queues]
    queue_transitions.pause(connection, names, request.actor, request.reason, request.now)
    return [Recall(name) for name in names]


def _apply_drain(
    connection: Connection, request: Request, queues: Sequence[QueueForDecision]
) -> list[Effect | Item]:
    names = [queue.name for queue in queues]
    queue_transitions.drain(connection, names, request.actor, request.reason, request.now)
    return []


def _apply_resume(
    connection: Connection, _request: Request, queues: Sequence[QueueForDecision]
) -> list[Effect | Item]:
    names = [queue.name for queue in queues]
    queue_transitions.resume(connection, names)
    return [_dispatch(names)]


def _dispatch(names: Sequence[str]) -> Effect:
    # Jobs without a limit wait in the lane with the queue's name. The dispatch loop finds the other lanes.
    return Dispatch(tuple((name, name) for name in names))


# --- set prefetch


def _read_prefetch(request: Request) -> dict[str, Any]:
    """The number of jobs; None for automatic, which forms and commands send as an empty text or `auto`."""
    value = request.params["prefetch"]
    if value in (None, "", "auto"):
        return {"prefetch": None}
    return {"prefetch": read_whole(value, _MOST_PREFETCH, "a prefetch is {}, or auto")}


def _decide_prefetch(queue: QueueForDecision, request: Request) -> Item | Skip:
    before = _prefetch_in_words(queue.prefetch)
    after = _prefetch_in_words(request.params["prefetch"])
    if before == after:
        sentence = f"the prefetch of queue {queue.name} is {before} already"
        return make_skip(queue, "already", sentence)
    return make_item(queue, Change("prefetch", before, after))


def _apply_prefetch(
    connection: Connection, request: Request, queues: Sequence[QueueForDecision]
) -> list[Effect | Item]:
    names = [queue.name for queue in queues]
    queue_transitions.set_prefetch(connection, names, request.params["prefetch"])
    return [_dispatch(names)]


def _prefetch_in_words(size: int | None) -> str:
    return "automatic" if size is None else str(size)


# --- resync: all of it is done after the commit, so that no lock is held during a call to Redis


def _decide_resync(queue: QueueForDecision, request: Request) -> Item | Skip:
    found = request.in_redis.get(queue.target)
    if not isinstance(found, QueueInRedis) or found.is_silent:
        return cannot(queue, request, "its Redis does not answer")
    changes = []
    if found.lost:
        jobs = counted(found.queued, "queued job")
        changes.append(Change("lost deliveries", f"{found.lost:,} of {jobs}", "recalled"))
    if found.orphans:
        changes.append(Change("orphan deliveries", f"{found.orphans:,}", "removed"))
    if queue.state == "paused" and found.queued > found.lost:
        changes.append(Change("in Redis", counted(found.queued - found.lost, "job"), "recalled"))
    if queue.state == "open" and found.due:
        lanes = counted(found.due, "lane")
        changes.append(
            Change("due jobs", f"in {lanes}", "dispatched as far as prefetch and limits allow")
        )
    note = None if changes else "queue and Redis agree now; what differs then is repaired"
    return make_item(queue, *changes, note=note)


def _apply_resync(
    _connection: Connection, _request: Request, queues: Sequence[QueueForDecision]
) -> list[Effect | Item]:
    return [Resync(queue.name) for queue in queues]


# In the order of their buttons.
ACTIONS: tuple[Action[QueueForDecision], ...] = (
    Action(
        name="queue.pause",
        title="Pause",
        sources=sources_of("pause"),
        risk="No job is dispatched. Jobs that wait in Redis are recalled. Running jobs continue. Workers may "
        "still begin what they have reserved, up to OPSJOBS_RESERVE_SECONDS of work.",
        decide=_decide_state,
        apply=_apply_pause,
    ),
    Action(
        name="queue.resume",
        title="Resume",
        sources=sources_of("resume"),
        risk="Due jobs are dispatched at once, as many as the prefetch allows.",
        decide=_decide_state,
        apply=_apply_resume,
    ),
    Action(
        name="queue.drain",
        title="Drain",
        sources=sources_of("drain"),
        risk="No more jobs are dispatched. Running jobs continue, and those that wait in Redis still run.",
        decide=_decide_state,
        apply=_apply_drain,
    ),
    Action(
        name="queue.set_prefetch",
        title="Set prefetch",
        phrase="set the prefetch of {}",
        sources=sources_of("set_prefetch"),
        risk="Jobs in Redis run in the order of their dispatch. "
        "A high prefetch keeps many workers busy, but weakens priorities.",
        params=("prefetch",),
        read_params=_read_prefetch,
        decide=_decide_prefetch,
        apply=_apply_prefetch,
    ),
    Action(
        name="queue.resync",
        title="Resync",
        sources=sources_of("resync"),
        risk="No job is lost. A job whose delivery a worker takes at this moment may be "
        "dispatched once more; it runs once.",
        is_repair=True,
        asks_redis=True,
        decide=_decide_resync,
        apply=_apply_resync,
    ),
)

"""Decides and applies the actions on workers, with the writes of `workers`."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
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
    say_target,
    whole,
)
from ..actions.effects import AnnounceDrain, Effect, StopWorker
from ..actions.shapes import Change, Item, Skip
from ..core.db import Connection
from ..core.words import counted, show_value
from . import transitions as worker_transitions
from .lifecycle import sources_of
from .transitions import WorkerForDecision

_TARGET = re.compile(r"worker/[^\0\ud800-\udfff]{1,500}", re.DOTALL)


# --- targets and rows


def read_target(text: str) -> str | None:
    """The target unchanged, such as `worker/web-1-7-c0ffee`; None when the text names no worker."""
    return text if _TARGET.fullmatch(text) else None


def lock_rows(connection: Connection, _request: Request, targets: Collection[str]) -> None:
    """Lock the rows of these workers until the commit. Their heartbeats wait meanwhile."""
    worker_transitions.lock(connection, map(name_in, targets))


def find_rows(
    connection: Connection, _request: Request, targets: Collection[str]
) -> dict[str, WorkerForDecision]:
    """Those of these workers that exist."""
    found = worker_transitions.read(connection, map(name_in, targets))
    return {worker.target: worker for worker in found.values()}


def say_unknown(target: str) -> str:
    """The sentence about a worker that does not exist."""
    return f"there is no {say_target(target)}: see `flask opsjobs workers`"


def forbid(worker: WorkerForDecision, request: Request) -> Skip | None:
    """Why the worker's state forbids the action; None when it allows it."""
    if worker.state in request.action.sources:
        return None
    return cannot(worker, request, f"it is {worker.state}")


def list_facts(worker: WorkerForDecision, _now: datetime) -> dict[str, Any]:
    """The values that must not have changed since the preview. Not its jobs: they change all the time."""
    return {
        "state": worker.state,
        "drain_requested_at": exact(worker.drain_requested_at),
        "forgotten_at": exact(worker.forgotten_at),
    }


# --- drain

_LOOPS = "it is the process of the loops: stop that"


def _decide_drain(worker: WorkerForDecision, request: Request) -> Item | Skip:
    if worker.kind == "plain":
        return cannot(worker, request, "it is a plain rq worker: stop it")
    if worker.kind == "loops":
        return cannot(worker, request, _LOOPS)
    if worker.drain_requested_at is not None:
        says = f"{worker.drain_requested_by} has already asked worker {worker.name} to leave"
        return make_skip(worker, "already", says)
    return _ask_to_leave(worker, "stopped, when its jobs have ended")


def _ask_to_leave(worker: WorkerForDecision, becomes: str) -> Item:
    note = f"it has {counted(worker.jobs, 'job')} now; what it has not begun goes back to its queue"
    return make_item(worker, Change("state", worker.state, becomes), note=note)


def _apply_drain(
    connection: Connection, request: Request, workers: Sequence[WorkerForDecision]
) -> list[Effect | Item]:
    ids = [worker.id for worker in workers]
    worker_transitions.drain(connection, ids, request.actor, request.now)
    return [AnnounceDrain(worker.queues[0], worker.name) for worker in workers if worker.queues]


# --- stop

_LONGEST_GRACE = 86_400


def kinds_for(action: str, grace: object) -> Sequence[str]:
    """The kinds of workers that it takes of a queue or of a machine. A plain rq worker takes no grace."""
    return ("pool", "plain") if action == "worker.stop" and grace in (None, "") else ("pool",)


def _read_grace(request: Request) -> dict[str, Any]:
    """For how many seconds its jobs may still run; None: until they have ended."""
    given = request.params["grace"]
    if given in (None, ""):
        return {"grace": None}
    grace = whole(given)
    if grace is None or not 0 <= grace <= _LONGEST_GRACE:
        raise ValueError(
            f"grace is whole seconds from 0 to {_LONGEST_GRACE:,}, or left out: until its jobs have ended; "
            f"got {show_value(given)}"
        )
    return {"grace": grace}


def _decide_stop(worker: WorkerForDecision, request: Request) -> Item | Skip:
    grace = request.params["grace"]
    if worker.kind == "plain":
        return _decide_stop_of_plain(worker, request)
    if grace is None or worker.kind == "loops":
        return _decide_drain(worker, request)
    when = "at once" if grace == 0 else f"after at most {counted(grace, 'second')}"
    return _ask_to_leave(worker, f"stopped, {when}")


def _decide_stop_of_plain(worker: WorkerForDecision, request: Request) -> Item | Skip:
    if request.params["grace"] is not None:
        why = "RQ can only ask a plain rq worker to end its job first: leave the grace out"
        return cannot(worker, request, why)
    if not worker.queues:
        return cannot(worker, request, "its queues are not known yet, and so its Redis: try again")
    note = (
        "RQ sends its command once; that the worker has heard it is known when it has stopped, and no grace "
        "ends its job before"
    )
    change = Change("state", worker.state, "stopped, when its job has ended, asked of RQ")
    return make_item(worker, change, note=note)


def _apply_stop(
    connection: Connection, request: Request, workers: Sequence[WorkerForDecision]
) -> list[Effect | Item]:
    grace = request.params["grace"]
    ours = [worker for worker in workers if worker.kind == "pool"]
    undrained = [worker for worker in ours if worker.drain_requested_at is None]
    effects = _apply_drain(connection, request, undrained)
    told = [worker for worker in workers if worker.kind == "plain" or grace is not None]
    return [*effects, *(StopWorker(one.queues[0], one.name, grace) for one in told if one.queues)]


# --- forget


def _decide_forget(worker: WorkerForDecision, request: Request) -> Item | Skip:
    if worker.jobs:
        return cannot(worker, request, f"it left {counted(worker.jobs, 'job')}: rescue them first")
    if worker.forgotten_at is not None:
        return make_skip(worker, "already", f"worker {worker.name} is forgotten already")
    return make_item(worker, Change("shown", "yes", "no"))


def _apply_forget(
    connection: Connection, request: Request, workers: Sequence[WorkerForDecision]
) -> list[Effect | Item]:
    worker_transitions.forget(connection, [worker.id for worker in workers], request.now)
    return []


# In the order of their buttons.
ACTIONS: tuple[Action[WorkerForDecision], ...] = (
    Action(
        name="worker.drain",
        title="Drain",
        sources=sources_of("drain"),
        risk="It takes no more jobs, ends those that it runs, and stops. What starts workers again after "
        "their end, such as systemd, starts a new one.",
        decide=_decide_drain,
        apply=_apply_drain,
    ),
    Action(
        name="worker.stop",
        title="Stop",
        sources=sources_of("stop"),
        risk="It takes no more jobs. Without a grace it ends those that it runs, and stops. After a grace it "
        "kills what still runs: each of these jobs loses an attempt, and repeats all that it did. The grace "
        "goes through Redis: a worker that does not hear it ends its jobs first.",
        params=("grace",),
        read_params=_read_grace,
        decide=_decide_stop,
        apply=_apply_stop,
    ),
    Action(
        name="worker.forget",
        title="Forget",
        sources=sources_of("forget"),
        risk="No page and no badge shows the worker any more. If it sends a heartbeat again, it is shown "
        "again.",
        decide=_decide_forget,
        apply=_apply_forget,
    ),
)

"""Decides and applies the actions on tasks: pause and resume."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from .. import endings
from ..actions.domain import (
    Action,
    Request,
    exact,
    make_item,
    make_skip,
    name_in,
    say_target,
)
from ..actions.effects import AnnounceStop, Dispatch, Effect, Recall
from ..actions.shapes import Change, Item, Skip
from ..core.db import Connection
from ..cron import transitions as cron_transitions
from ..cron.decide_slots import SlotDecider, SlotReport
from . import pauses
from .lifecycle import sources_of
from .pauses import TaskForDecision

_TARGET = re.compile(r"task/[^\0\ud800-\udfff]{1,500}", re.DOTALL)


# --- targets and rows


def read_target(text: str) -> str | None:
    """The target unchanged, such as `task/send_invoice`; None when the text names no task."""
    return text if _TARGET.fullmatch(text) else None


def lock_rows(connection: Connection, _request: Request, _targets: Collection[str]) -> None:
    """Let no other operator pause or resume a task until the commit."""
    pauses.lock(connection)


def find_rows(
    connection: Connection, request: Request, targets: Collection[str]
) -> dict[str, TaskForDecision]:
    """The known ones of these tasks."""
    found = pauses.read(connection, map(name_in, targets), list(request.host.tasks))
    return {task.target: task for task in found.values()}


def say_unknown(target: str) -> str:
    """The sentence about a task that nobody knows."""
    return f"no job names the {say_target(target)}, and the code declares none of this name"


def forbid(task: TaskForDecision, request: Request) -> Skip | None:
    """Why the task's state forbids the action; None when it allows it."""
    if task.state in request.action.sources:
        return None
    by = f", by {task.paused_by}" if task.paused_by else ""
    return make_skip(task, "already", f"task {task.name} is {task.state} already{by}")


def list_facts(task: TaskForDecision, _now: datetime) -> dict[str, Any]:
    """The values that must not have changed since the preview."""
    return {
        "state": task.state,
        "paused_at": exact(task.paused_at),
        "paused_by": task.paused_by,
    }


# --- pause and resume


def _decide_pause(task: TaskForDecision, _request: Request) -> Item | Skip:
    note = "running jobs continue; slots of its cron entries are skipped; enqueuing goes on"
    return make_item(task, Change("state", "open", "paused"), note=note)


def _apply_pause(
    connection: Connection, request: Request, tasks: Sequence[TaskForDecision]
) -> list[Effect | Item]:
    names = [task.name for task in tasks]
    pauses.pause(connection, names, request.actor, request.reason, request.now)
    return [Recall(task=name) for name in names]


def _decide_resume(task: TaskForDecision, _request: Request) -> Item | Skip:
    return make_item(task, Change("state", "paused", "open"))


def _apply_resume(
    connection: Connection, request: Request, tasks: Sequence[TaskForDecision]
) -> list[Effect | Item]:
    """Give the slots up to now their results before: they are skipped, also when no cron loop ran."""
    names = {task.name for task in tasks}
    report = SlotReport()
    decider = SlotDecider(connection, request.host, endings.stop, request.now)
    for entry in cron_transitions.list_entries(connection):
        if entry.task in names:
            decider.decide_all(entry.name, report)
    pauses.resume(connection, names)
    declared = [task.declared.queue for name, task in request.host.tasks.items() if name in names]
    # The dispatch loop finds the lanes of limiters, and those of jobs that name another queue.
    lanes = {(queue, queue) for queue in declared} | report.lanes
    stops = [AnnounceStop(job.queue, job.worker) for job in report.stopped if job.worker]
    return [*stops, *([Dispatch(tuple(sorted(lanes)))] if lanes else [])]


# In the order of their buttons.
ACTIONS: tuple[Action[TaskForDecision], ...] = (
    Action(
        name="task.pause",
        title="Pause",
        sources=sources_of("pause"),
        risk="No job of the task is dispatched, in any queue; other tasks go on. Jobs that wait in Redis are "
        "recalled. Running jobs continue. Workers may still begin what they have reserved, up to "
        "OPSJOBS_RESERVE_SECONDS of work.",
        decide=_decide_pause,
        apply=_apply_pause,
    ),
    Action(
        name="task.resume",
        title="Resume",
        sources=sources_of("resume"),
        risk="Due jobs of the task are dispatched at once, the longest due first.",
        decide=_decide_resume,
        apply=_apply_resume,
    ),
)

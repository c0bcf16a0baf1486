"""Decides and applies the actions on tasks: pause, resume, and enqueue a job."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import psycopg

from .. import endings, signals
from ..actions.domain import (
    Action,
    ChangedMeanwhile,
    NothingWritten,
    Request,
    cannot,
    exact,
    make_item,
    make_skip,
    name_in,
    say_cannot,
    say_target,
)
from ..actions.effects import AnnounceStop, Dispatch, Effect, Recall
from ..actions.shapes import Change, Item, Skip
from ..core.db import Connection
from ..core.words import show_value
from ..cron import transitions as cron_transitions
from ..cron.decide_slots import SlotDecider, SlotReport
from ..errors import DeclarationError, InvalidArgs
from ..explain.evidence import PauseEvidence
from ..explain.of_call import find_reason_of_call
from ..explain.reason_kinds import Reason
from ..host import Host
from ..jobs.record import json_storage
from ..jobs.record.declaration import TaskDeclaration
from ..jobs.record.enqueue import (
    enqueue_detached,
    find_same_call,
    say_call_fault,
    say_same_call,
)
from . import pauses
from .lifecycle import STATES, sources_of
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
        **({} if task.queue is None else {"queue": task.queue}),
    }


# --- pause and resume


def _decide_pause(task: TaskForDecision, _request: Request) -> Item | Skip:
    note = "slots of its cron entries are skipped; enqueuing goes on"
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


# --- enqueue a job


class BadCall(ValueError):
    """A call that cannot be enqueued. `faults` are sentences by argument; under `""` is that of the whole."""

    def __init__(self, faults: Mapping[str, str]) -> None:
        self.faults = faults
        super().__init__(
            "; ".join(f"{name}: {why}" if name else why for name, why in faults.items())
        )


def get_task(host: Host, name: str) -> TaskDeclaration:
    """The task, when an operator may enqueue it. Otherwise raises `BadCall` with the reason and the fix."""
    task = host.tasks.get(name)
    if task is None:
        raise BadCall({"": f"there is no task {show_value(name)} in this application"})
    if not task.enqueue_from_page:
        raise BadCall(
            {
                "": f"the code of task {name} does not allow it: declare it with enqueue_from_page=True"
            }
        )
    return task


def read_call(host: Host, name: str, args: object) -> dict[str, Any]:
    """The arguments of a call as they are stored. `args` is a dict of what JSON can hold, or JSON text.

    Raises `BadCall` with every fault. A redacted argument is one, so neither a plan nor its preview holds it.
    """
    task = get_task(host, name)
    given: dict[str, Any] = {}
    faults: dict[str, str] = {}
    for argument, value in _read_object(args).items():
        if argument in task.redact:
            faults[argument] = "is redacted, so its value is never stored: leave it out"
            continue
        try:
            given[argument] = json.loads(json_storage.dump(value))
        except json_storage.NotStorable as why:
            faults[argument] = str(why)
    stored: dict[str, Any] = {}
    refused = set(faults)
    try:
        values = task.arguments.load(given)
        stored = json.loads(task.arguments.dump(values, host.settings.max_args_bytes))
    except InvalidArgs as wrong:
        for error in wrong.errors:
            if error["loc"] in refused:  # it was not given, so it is said to be missing
                continue
            _note_fault(faults, error, [*task.arguments.names, *given])
    except DeclarationError as wrong:
        faults[""] = str(wrong)
    if faults:
        raise BadCall(faults)
    return stored


def _read_object(args: object) -> Mapping[str, Any]:
    """The arguments by name. Raises `BadCall` for anything but a JSON object."""
    try:
        found = json.loads(args or "{}") if isinstance(args, str) else args
    except ValueError as wrong:
        raise BadCall({"": f"args is not JSON: {wrong}"}) from None
    except RecursionError:
        raise BadCall({"": "args is nested too deeply"}) from None
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        raise BadCall({"": 'args must be a JSON object, such as {"account_id": 42}'})
    return found


def _note_fault(faults: dict[str, str], error: Mapping[str, Any], names: Collection[str]) -> None:
    """Add an error of `InvalidArgs` to the faults of the argument that it names."""
    name = re.split(r"[.\[]", error["loc"], maxsplit=1)[0]
    where, name = (error["loc"].removeprefix(name), name) if name in names else (error["loc"], "")
    sentence = f"{where.removeprefix('.')}: {error['msg']}" if where else error["msg"]
    faults[name] = f"{faults[name]}; {sentence}" if name in faults else sentence


def _read_args(request: Request) -> dict[str, Any]:
    if len(request.targets) > 1:
        raise ValueError("a call is of one task: enqueue one at a time")
    return {"args": read_call(request.host, name_in(request.targets[0]), request.params["args"])}


def _read_call(
    connection: Connection, request: Request, rows: dict[str, TaskForDecision]
) -> dict[str, TaskForDecision]:
    """The task with what decides whether the call can be enqueued now, and why its job would wait."""
    host, args = request.host, request.params["args"]
    found = {}
    for target, row in rows.items():
        pause = None
        if row.paused_at is not None:
            pause = PauseEvidence(row.paused_at, row.paused_by or "", row.paused_reason or "")
        try:
            task = get_task(host, row.name)
            same = find_same_call(connection, host, task, args)
            task.tags_of(task.declared, task.arguments.load(args))
            reason = find_reason_of_call(connection, host, task, args, pause, request.now)
        except BadCall as bad:
            found[target] = replace(row, fault=("illegal", str(bad)))
        except psycopg.Error:
            raise
        except Exception as error:
            found[target] = replace(row, fault=("illegal", say_call_fault(row.target, error)))
        else:
            fault = None if same is None else ("already", say_same_call(same))
            queue = task.declared.queue
            found[target] = replace(row, queue=queue, fault=fault, waits=_say_waits(reason))
    return found


def _say_waits(reason: Reason | None) -> str | None:
    """Why the job would wait: the reason, and who decided it."""
    if reason is None:
        return None
    by = f" {reason.by}: “{reason.quote}”" if reason.by else ""
    return f"the job will wait. {reason.says}{by} {reason.todo}"


def _decide_enqueue(task: TaskForDecision, request: Request) -> Item | Skip:
    if task.fault is not None:
        code, why = task.fault
        return cannot(task, request, why, code)
    options = request.host.tasks[task.name].declared
    changes = [
        Change("job", None, "a new one, due now"),
        Change("queue", None, options.queue),
        Change("priority", None, str(options.priority)),
    ]
    if options.limit is not None:
        changes.append(Change("limiter", None, options.limit.name))
    if options.unique is not None:
        changes.append(Change("unique lock", "free", "held by the new job"))
    args = json.dumps(request.params["args"], ensure_ascii=False)
    return make_item(task, *changes, Change("args", None, args), note=task.waits)


def _apply_enqueue(
    connection: Connection, request: Request, tasks: Sequence[TaskForDecision]
) -> list[Effect | Item]:
    (row,) = tasks
    task = request.host.tasks[row.name]
    try:
        made, lane = enqueue_detached(connection, request.host, task, request.params["args"])
    except psycopg.Error:
        raise
    except Exception as error:
        why = say_call_fault(row.target, error)
        raise NothingWritten(say_cannot(request.action, row.target, why)) from None
    if made.conflict:
        # The plan found no same call, so another transaction has enqueued it since.
        raise ChangedMeanwhile
    signals.send(signals.job_enqueued, task, enqueued=made)
    item = make_item(row, Change("new job", None, f"job/{made.id}"))
    return [replace(item, facts={"queue": row.queue}), Dispatch(((lane, task.declared.queue),))]


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
    Action(
        name="task.enqueue",
        title="Enqueue",
        phrase="enqueue a job of {}",
        sources=STATES,
        risk="The job is due now. It runs with these arguments, as if the application had enqueued it.",
        params=("args",),
        read_params=_read_args,
        read_more=_read_call,
        decide=_decide_enqueue,
        apply=_apply_enqueue,
    ),
)

"""Decides and applies the edit of jobs that wait: their queue, priority and arguments."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ...actions.domain import (
    BadParams,
    ChangedMeanwhile,
    Request,
    cannot,
    make_item,
    make_skip,
    read_as_json,
    whole,
)
from ...actions.effects import Dispatch, Effect, Forget
from ...actions.shapes import Change, Item, Skip
from ...core.db import Connection
from ...core.display import Display
from ...explain.queries import list_listeners
from ...host import Host
from .. import transitions as job_transitions
from ..record import unique_locks
from ..record.enqueue import run_detached
from ..record.options import Options, faults_of_placement
from ..transitions import JobForDecision
from .call import CannotEdit, Edited, JobCall, change_arguments

PARAMS = ("queue", "priority", "args")


def read_edit(host: Host, given: Mapping[str, Any]) -> dict[str, Any]:
    """The new queue, priority and arguments, a JSON object as text; None for what stays.

    Raises `BadParams` with every fault.
    """
    wanted = {param: given[param] if given[param] != "" else None for param in PARAMS}
    number = whole(wanted["priority"])
    wanted["priority"] = wanted["priority"] if number is None else number
    placement: Any = {
        param: wanted[param] for param in ("queue", "priority") if wanted[param] is not None
    }
    # Each sentence begins with the parameter.
    sentences = faults_of_placement(Options(**placement))
    faults = [(sentence.partition(" ")[0], sentence) for sentence in sentences]
    if wanted["args"] is not None:
        try:
            wanted["args"] = _read_args(host, wanted["args"])
        except ValueError as wrong:
            faults.append(("args", str(wrong)))
    if not faults and wanted == dict.fromkeys(PARAMS):
        faults = [("args", "give a queue, a priority or arguments: nothing would change")]
    if faults:
        raise BadParams(faults)
    return wanted


def _read_args(host: Host, value: Any) -> str | None:
    text = read_as_json("args", value, host.settings.max_args_bytes, "OPSJOBS_MAX_ARGS_BYTES")
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError(
            'args is a JSON object of the arguments that change, such as {"amount": 990}'
        )
    return text if found else None


def read_calls(
    connection: Connection, request: Request, jobs: dict[str, JobForDecision]
) -> dict[str, JobForDecision]:
    """The jobs with what they call and what they shall be, or with why they cannot be edited so."""
    calls = job_transitions.read_calls(connection, [job.id for job in jobs.values()])
    is_served = _is_served(connection, request)
    found = {}
    for target, job in jobs.items():
        call = calls[job.id]
        try:
            edited = _edit(request, job, call)
        except CannotEdit as why:
            found[target] = replace(job, obstacle=("invalid_args", str(why)))
        else:
            obstacle = _find_rival(connection, job, edited)
            edited = replace(edited, is_served=is_served)
            found[target] = replace(job, call=call, edited=edited, obstacle=obstacle)
    return found


def _is_served(connection: Connection, request: Request) -> bool:
    """Whether a live worker listens to the new queue; true when the queue stays."""
    queue, settings = request.params["queue"], request.host.settings
    if queue is None:
        return True
    return any(each.is_alive for each in list_listeners(connection, queue, settings, request.now))


def _edit(request: Request, job: JobForDecision, call: JobCall) -> Edited:
    params = request.params
    edited = Edited(
        job.queue if params["queue"] is None else params["queue"],
        job.priority if params["priority"] is None else params["priority"],
        call,
    )
    changed = {
        name: value
        for name, value in json.loads(params["args"] or "{}").items()
        if name not in call.args or _written(value) != _written(call.args[name])
    }
    if not changed:
        return edited
    if len(request.targets) > 1:
        raise CannotEdit("arguments are edited for one job at a time")
    if call.takes_results:
        raise CannotEdit("its arguments are results of other steps")
    task = request.host.tasks.get(job.task)
    if task is None:
        raise CannotEdit(f"there is no task {job.task} in this application to check its arguments")
    call = change_arguments(request.host, task, call, changed, job.unique_key)
    return replace(edited, call=call, changed=tuple(changed))


def _written(value: Any) -> str:
    """The value as text: Python holds 1, 1.0 and true for equal."""
    return json.dumps(value, sort_keys=True)


def _find_rival(
    connection: Connection, job: JobForDecision, edited: Edited
) -> tuple[str, str] | None:
    """Why the unique lock that the job holds cannot move with it; None when it can, or need not."""
    keys = edited.call.new_keys
    if not keys or job.unique_lock_of != job.id:
        return None
    holder = unique_locks.find(partial(run_detached, connection), keys)
    return holder and ("duplicate", f"job {holder[0]} holds the unique lock of the same call")


def list_edit_facts(job: JobForDecision) -> dict[str, Any]:
    """The arguments that the edit changes, as they are."""
    assert job.call is not None
    assert job.edited is not None
    if not job.edited.changed:
        return {}
    stored = job.call.args
    return {"args": {name: stored[name] for name in job.edited.changed if name in stored}}


def decide_edit(job: JobForDecision, request: Request) -> Item | Skip:
    """What the edit changes, or why it cannot."""
    if job.obstacle is not None:
        code, why = job.obstacle
        return cannot(job, request, why, code)
    assert job.call is not None
    assert job.edited is not None
    edited, before = job.edited, list_edit_facts(job).get("args", {})
    sides = [
        ("queue", job.queue, edited.queue),
        ("priority", str(job.priority), str(edited.priority)),
    ]
    if edited.args != before:
        display = Display(request.host.display, may_see=True)
        was, shall = (display.plain(json.dumps(side)) for side in (before, edited.args))
        sides.append(("args", was, shall))
    changes = [
        Change(what, was, shall) for what, was, shall in sides if what == "args" or was != shall
    ]
    if not changes:
        return make_skip(job, "already", f"job {job.id} is already as the edit would make it")
    if job.state == "queued":
        changes.append(Change("state", "queued", "available"))
    notes = [*_list_moves(job.call, edited.call)]
    if edited.queue != job.queue and not edited.is_served:
        notes.append(
            f"no live worker listens to queue {edited.queue}: the job waits until one is started with "
            f"`flask opsjobs worker {edited.queue}`"
        )
    return make_item(job, *changes, note="; ".join(notes) or None)


def _list_moves(before: JobCall, after: JobCall) -> Iterator[str]:
    """What moves with the arguments. No partition is named: it is the value of an argument."""
    if after.new_keys:
        yield "its unique lock moves with it, and lasts as long as before"
    if after.limiter is None and before.limiter is not None:
        yield "it has no limit any more"
    elif after.job_limit != before.job_limit:
        yield f"its partition or weight in limiter {after.limiter} changes"
    if list(after.tags) != list(before.tags):
        yield "its tags are made anew"


def apply_edit(
    connection: Connection, request: Request, jobs: Sequence[JobForDecision]
) -> list[Effect | Item]:
    """Write the edits, and move the unique locks that the jobs hold."""
    results: list[Effect | Item] = []
    lanes: dict[tuple[str, str], None] = {}
    deliveries = []
    for job in jobs:
        assert job.edited is not None
        keys = job.edited.call.new_keys
        is_held = job.unique_lock_of == job.id
        if keys and is_held and not unique_locks.move(connection, job.id, keys):
            raise ChangedMeanwhile
        if job.edited.changed:
            item = decide_edit(job, request)
            assert isinstance(item, Item)
            results.append(replace(item, facts={"changed_args": [*job.edited.changed]}))
        if job.state == "queued":
            deliveries.append((job.queue, job.id, job.dispatch_no))
        if job.state in ("available", "queued"):
            lanes[job.edited.lane, job.edited.queue] = None
    job_transitions.edit(connection, jobs, request.now)
    if deliveries:
        results.append(Forget(tuple(deliveries)))
    if lanes:
        results.append(Dispatch(tuple(lanes)))
    return results

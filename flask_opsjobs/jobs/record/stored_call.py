"""Stores a call as JSON, to be enqueued later without code of the host: a callback, or elements of a map."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ...host import Host
from ...limits.limit import JobLimit
from .job_limit import columns_of
from .options import Options
from .task import Call, Task

StoredCall = dict[str, Any]


def store_call(task: Task, options: Options, place: JobLimit | None = None) -> StoredCall:
    """The columns of a job of this call, as JSON. Its deadline counts from the moment when it is enqueued."""
    columns = options.enqueue_parameters
    if place is not None:
        columns = {**columns, **columns_of(options.queue, place)}
    names = ("queue", "lane", "priority", "max_attempts", "timeout_seconds", "tags")
    return {
        "task": task.name,
        **{name: columns[name] for name in (*names, "limiter", "partition", "weight")},
        "meta": json.loads(columns["meta"]),
        "deadline_seconds": None if options.deadline is None else options.deadline.total_seconds(),
    }


def store_callback(host: Host, given: object, facts: Sequence[str]) -> StoredCall | str:
    """A task that is enqueued when a run or batch has ended; or a sentence that says why it cannot be.

    The job will get those of the `facts` that its task `accepts`; it must accept the first of them.
    """
    if isinstance(given, Task):
        task, options = given, given.declared
    elif isinstance(given, Call):
        task, options = given.task, given.chosen
    else:
        return f"must be a task, got {type(given).__name__}"
    if fault := _fault_of(host, task, options, facts):
        return f"is task {task.name}, which {fault}"
    place = None
    if options.limit is not None:
        assert isinstance(options.limit.weight, int)
        place = JobLimit(options.limit.name, "", options.limit.weight)
    accepts = [name for name in facts if name in task.arguments.names]
    return {**store_call(task, options, place), "accepts": accepts}


def _fault_of(host: Host, task: Task, options: Options, facts: Sequence[str]) -> str | None:
    names, defaults = task.arguments.names, task.arguments.defaults
    missing = [name for name in names if name not in facts and name not in defaults]
    limit = options.limit
    if task.name not in host.tasks:
        return "is not declared on this OpsJobs"
    if options.delay or options.scheduled_at is not None or options.session is not None:
        return "has a delay, a scheduled_at or a session: it is enqueued at the end, in the same transaction"
    if facts[0] not in names:
        return f"does not accept {facts[0]}"
    if missing:
        return f"needs {missing[0]}: it gets only {', '.join(facts)}"
    if limit is not None and (limit.partition is not None or not isinstance(limit.weight, int)):
        return (
            f"has limit {limit.name}, whose partition or weight is an argument: it is not known yet"
        )
    return None

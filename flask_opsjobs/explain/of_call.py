"""Finds why a call would wait if it were enqueued now, as an explanation of its job would say it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ..core.db import Connection
from ..host import Host
from ..jobs.record.declaration import TaskDeclaration
from ..jobs.record.job_limit import columns_of, job_limit_of
from ..limits import stored_buckets
from ..queues import transitions as queue_transitions
from .evidence import (
    Evidence,
    JobEvidence,
    LimitEvidence,
    PauseEvidence,
    QueueEvidence,
)
from .explain import FINDERS
from .queries import find_last_listener, list_listeners
from .reason_kinds import Reason

# What is decided and what stays so for a while. What else holds a job up is known once it is in its lane.
_CODES = (
    "queue_paused",
    "queue_draining",
    "task_paused",
    "limit_unknown",
    "limit_weight",
    "no_live_worker",
    "no_child",
    "limit_cooldown",
    "limit_concurrency",
)


def find_reason_of_call(
    connection: Connection,
    host: Host,
    task: TaskDeclaration,
    stored: Mapping[str, Any],
    pause: PauseEvidence | None,
    now: datetime,
) -> Reason | None:
    """Why a job of this call would wait; None when nothing is known that would hold it up.

    `pause` is that of the task. Locks nothing. No text names a partition. Raises `InvalidArgs`.
    """
    job = _make_job(host, task, stored, now)
    listeners = list_listeners(connection, job.queue, host.settings, now)
    last_heard = max(listeners, key=lambda listener: listener.heartbeat_at, default=None)
    evidence = Evidence(
        now,
        host.settings,
        job,
        queue=_find_queue(connection, job.queue),
        pause=pause,
        listeners=listeners,
        last_listener=last_heard or find_last_listener(connection, job.queue),
        limit=_find_limit(connection, job),
    )
    found = (reason for code in _CODES for reason in FINDERS[code](evidence))
    return next(found, None)


def _make_job(
    host: Host, task: TaskDeclaration, stored: Mapping[str, Any], now: datetime
) -> JobEvidence:
    """The job that the call would become: due now."""
    options = task.declared
    place: dict[str, Any] = {"lane": options.queue}
    if options.limit is not None:
        values = task.arguments.load(stored)
        place = columns_of(options.queue, job_limit_of(task, options.limit, host, values))
    columns = {
        "id": 0,
        "origin": "opsjobs",
        "state": "available",
        "task": task.name,
        "queue": options.queue,
        "priority": options.priority,
        "attempt": 0,
        "max_attempts": options.max_attempts,
        "dispatch_no": 0,
        "created_at": now,
        "due_at": now,
        **place,
    }
    return JobEvidence(**{**dict.fromkeys(JobEvidence.__annotations__), **columns})


def _find_queue(connection: Connection, name: str) -> QueueEvidence:
    found = queue_transitions.read(connection, [name], [name])[name]
    return QueueEvidence(
        found.is_paused,
        found.is_draining,
        found.paused_at,
        found.paused_by,
        found.paused_reason,
        found.prefetch,
    )


def _find_limit(connection: Connection, job: JobEvidence) -> LimitEvidence | None:
    if job.limiter is None:
        return None
    key = (job.limiter, job.partition or "")
    (seen,) = stored_buckets.list_buckets_to_dispatch(connection, [key], [job.queue])
    return LimitEvidence(*key, job.weight or 0, seen.shape, seen.level, is_named=False)

"""Tells of a queue: its state, its last day by hour, and the workers that listened to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple
from datetime import datetime
from typing import Any

from ...core.history import Event
from ...core.round_trips import start_reading
from ...core.words import agree, counted, moment
from ...jobs.queries import find_oldest_of_queue
from ...lifeline.integrity import has_integrity_check
from ...overview.pace_queries import list_queue_hours
from ...queues import actions as queue_actions
from ...queues import transitions as queue_transitions
from ...queues.queries import find_created_at, find_paused_reason
from ...queues.transitions import QueueForDecision
from ...workers.queries import WorkerRow, list_listeners_since
from ..bundle import (
    Column,
    EvidenceTable,
    Inquiry,
    Kind,
    LeftOut,
    Related,
    TableRow,
    Told,
    WatchedSpan,
)

_MOST_WORKERS = 50


def _read_key(key: str) -> str | None:
    target = queue_actions.read_target(f"queue/{key}")
    return None if target is None else key


def _tell(inquiry: Inquiry) -> Told | None:
    beginning = start_reading(inquiry, _find_begin)
    pausing = start_reading(inquiry.session, find_paused_reason, inquiry.key)
    queue = _find(inquiry)
    if queue is None:
        return None
    since, until = beginning.value, inquiry.now
    by_hour = inquiry.start(_by_hour, inquiry, since)
    workers = list_listeners_since(inquiry.session, queue.name, since, _MOST_WORKERS)
    listeners = [worker for worker in workers if worker.ended_at is None]
    return Told(
        title=f"Queue {queue.name}",
        state=queue.state,
        diagnosis=_diagnose(queue, len(listeners), pausing.value),
        since=since,
        until=until,
        events=list(_tell_workers(workers, since)),
        watches=[
            WatchedSpan("roll_up", "How many of its jobs were due is not known.", since, until),
            WatchedSpan("watch", "Whether one of its workers vanished is not known.", since, until),
        ],
        evidence=by_hour,
        related=[
            Related("Worker", worker.name, f"worker/{worker.name}", "listens to it")
            for worker in listeners
        ],
        left_out=[LeftOut("workers", before=workers[-1].started_at)]
        if len(workers) == _MOST_WORKERS
        else [],
    )


def _find(inquiry: Inquiry) -> QueueForDecision | None:
    declared = {task.declared.queue for task in inquiry.host.tasks.values()}
    connection: Any = inquiry.session.connection().connection.driver_connection
    return queue_transitions.read(connection, [inquiry.key], declared).get(inquiry.key)


def _find_begin(inquiry: Inquiry) -> datetime:
    """A day ago, or when the oldest thing that is stored of the queue was made."""
    session, name = inquiry.session, inquiry.key
    oldest = start_reading(session, find_oldest_of_queue, name)
    made = find_created_at(session, name)
    return max(min(filter(None, (oldest.value, made)), default=inquiry.now), inquiry.day_ago)


def _diagnose(queue: QueueForDecision, listeners: int, reason: str | None) -> str:
    if queue.paused_at is not None:
        word = "paused" if queue.state == "paused" else "draining"
        why = f": “{reason}”" if reason else "."
        return f"{queue.paused_by} made it {word} at {moment(queue.paused_at)}{why}"
    if not listeners:
        return "It is open, and no worker listens to it."
    listen = agree(listeners, "listens", "listen")
    return f"It is open, and {counted(listeners, 'worker')} {listen} to it."


def _tell_workers(workers: Sequence[WorkerRow], since: datetime) -> Iterator[Event]:
    for worker in workers:
        subject = f"worker/{worker.name}"
        if worker.started_at >= since:
            text = f"{worker.name} began to listen"
            yield Event(worker.started_at, "alive", text, "worker", subject=subject)
        if worker.ended_at is not None:
            is_lost = worker.state == "missing"
            how = "was given up, because its heartbeats ended" if is_lost else "stopped"
            source = "loop watch" if is_lost else "worker"
            text = f"{worker.name} {how}"
            yield Event(worker.ended_at, worker.state, text, source, subject=subject)


def _by_hour(inquiry: Inquiry, since: datetime) -> Iterator[EvidenceTable]:
    hours = list_queue_hours(inquiry.session, inquiry.key, since, inquiry.now)
    numbers = ("enqueued", "finished", "failed", "canceled", "most due")
    yield EvidenceTable(
        "Jobs by hour",
        [Column("hour", "moment"), *(Column(name, "number") for name in numbers)],
        [TableRow(astuple(hour)) for hour in hours],
    )


def _was_there(inquiry: Inquiry) -> bool:
    """Whether its jobs were ever counted."""
    return has_integrity_check(inquiry.session, inquiry.key)


KIND = Kind("queue", "queues.view", _read_key, _tell, _was_there)

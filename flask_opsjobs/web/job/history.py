"""Merges a job's history from its row, its attempts and the audit: newest first, each with its source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from ...audit.queries import EventRow
from ...jobs.lifecycle import ENDED_BY, FINAL
from ...jobs.rows import AttemptRow, JobInFull
from ..app.labels import outcome

# Who ends a job, by `ended_by`.
_ENDERS = {"deadline": "dispatcher", "refused": "dispatcher", "discarded": "operator"}


@dataclass(frozen=True)
class Event:
    """One event of a job. `payload` and `label` have not passed the display policy yet."""

    at: datetime
    is_: str
    text: str
    source: str
    payload: str | None = None
    label: str | None = None
    audit: int | None = None

    @property
    def is_inferred(self) -> bool:
        """Whether the event was inferred: no process reported it."""
        return self.source == "inferred"


def list_history(
    job: JobInFull, attempts: Sequence[AttemptRow], events: Sequence[EventRow]
) -> Sequence[Event]:
    """All known events, newest first. A job's row keeps only the time of its last dispatch."""
    found = [*_of_job(job, attempts), *_of_attempts(job, attempts), *map(_of_audit, events)]
    # The sort is stable: a job's end stays above the end of its attempt at the same time.
    return sorted(found, key=lambda event: event.at, reverse=True)


def _of_job(job: JobInFull, attempts: Sequence[AttemptRow]) -> Iterator[Event]:
    if job.state in FINAL and job.ended_at is not None:
        text = f"{job.state.capitalize()}: {ENDED_BY[job.ended_by or '']}"
        reason = job.ended_reason if job.ended_reason != job.error else None
        yield Event(job.ended_at, job.state, text, _ender(job, attempts), payload=reason)
    if job.cancel_requested_at is not None:
        who = job.cancel_requested_by or "somebody"
        text = f"{who} asked to cancel it"
        yield Event(job.cancel_requested_at, "canceled", text, "operator", label=job.cancel_reason)
    if job.dispatched_at is not None:
        text = f"Queued, dispatch {job.dispatch_no}"
        yield Event(job.dispatched_at, "queued", text, "dispatcher")
    again = f", to run job {job.run_again_from} again" if job.run_again_from else ""
    yield Event(job.created_at, "available", f"Enqueued{again}", "operator" if again else "host")


def _ender(job: JobInFull, attempts: Sequence[AttemptRow]) -> str:
    last = attempts[0] if attempts else None
    if last is not None and last.ended_at == job.ended_at:
        return _source(last)
    if job.ended_by == "canceled" and job.cancel_requested_at is not None:
        return "operator"
    return _ENDERS.get(job.ended_by or "", "operator" if job.ended_by == "canceled" else "worker")


def _of_attempts(job: JobInFull, attempts: Sequence[AttemptRow]) -> Iterator[Event]:
    for attempt in attempts:
        if attempt.ended_at is not None:
            word = outcome(attempt, job)
            error = None if attempt.cause else attempt.error  # the error repeats the cause
            yield Event(
                attempt.ended_at, word.is_, f"Attempt {attempt.number} ended, {word.text}",
                _source(attempt), payload=error, label=attempt.cause,
            )  # fmt: skip
        text = f"Attempt {attempt.number} taken by {attempt.worker}"
        yield Event(attempt.started_at, "started", text, "worker")


def _source(attempt: AttemptRow) -> str:
    """The worker reports the end of its attempts; for lost attempts the watch loop infers it."""
    return "inferred" if attempt.outcome == "lost" else "worker"


def _of_audit(event: EventRow) -> Event:
    action = event.action.partition(".")[2].replace("_", " ")
    text = f"{event.actor}: {action}{f', refused ({event.code})' if event.code else ''}"
    status = "refused" if event.outcome == "refused" else "seen"
    return Event(event.at, status, text, "operator", label=event.reason, audit=event.sequence)

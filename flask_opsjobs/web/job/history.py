"""Tells a job's history: its events, newest first, each with its source, and its attempts on a time axis."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from ...audit.queries import EventRow
from ...core.words import span
from ...jobs.adopted.queries import AdoptedRow
from ...jobs.lifecycle import ENDED_BY, FINAL
from ...jobs.rows import AttemptRow, JobInFull


@dataclass(frozen=True)
class Word:
    """A status: `is_` chooses colour and shape in the stylesheet, `text` is the word shown."""

    is_: str
    text: str


# By attempts.outcome. A status of None depends on the job: failed for the last attempt, else retryable.
_OUTCOMES: dict[str, tuple[str | None, str]] = {
    "returned": ("finished", "returned"),
    "raised": (None, "raised"),
    "timed_out": (None, "time-out"),
    "died": ("failed", "killed"),
    "lost": ("failed", "lost"),
    "canceled": ("canceled", "canceled"),
    "discarded": ("failed", "discarded"),
    "snoozed": ("scheduled", "snoozed"),
    "retry_in": ("retryable", "retry"),
    "not_run": ("failed", "not run"),
}


def outcome_of(attempt: AttemptRow, job: JobInFull) -> Word:
    """How an attempt ended, or `running`."""
    if attempt.outcome is None:
        return Word("started", "running")
    status, text = _OUTCOMES[attempt.outcome]
    is_last_word = job.state == "failed" and attempt.dispatch_no == job.dispatch_no
    return Word(status or ("failed" if is_last_word else "retryable"), text)


# The source of what no process reported.
_INFERRED = "nobody: inferred"
# Who ends a job, by `ended_by`.
_ENDERS = {
    "deadline": "dispatcher",
    "undeliverable": "dispatcher",
    "discarded": "operator",
    "unseen": "observer",
}


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
    # For a time that nobody saw: the last look before it.
    after: datetime | None = None

    @property
    def is_inferred(self) -> bool:
        """Whether the event was inferred: no process reported it."""
        return self.source == _INFERRED


def list_history(
    job: JobInFull,
    attempts: Sequence[AttemptRow],
    events: Sequence[EventRow],
    rq: AdoptedRow | None = None,
) -> Sequence[Event]:
    """All known events, newest first. A job's row keeps only the time of its last dispatch.

    `rq` is what RQ says of an adopted job.
    """
    of_job = _of_job(job, attempts) if rq is None else _of_adopted_job(job, rq)
    found = [*of_job, *_of_attempts(job, attempts), *map(_of_audit, events)]
    # The sort is stable: a job's end stays above the end of its attempt at the same time.
    return sorted(found, key=lambda event: event.at, reverse=True)


def _of_job(job: JobInFull, attempts: Sequence[AttemptRow]) -> Iterator[Event]:
    if job.state in FINAL and job.ended_at is not None:
        how = ENDED_BY[job.ended_by or ""]
        text = job.state.capitalize() + ("" if how == job.state else f": {how}")
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


def _of_adopted_job(job: JobInFull, rq: AdoptedRow) -> Iterator[Event]:
    """The times of the row, each as its source reported it: an interval where nobody saw it."""
    how = ENDED_BY.get(job.ended_by or "", "")
    end = job.state.capitalize() + ("" if how in ("", job.state) else f": {how}")
    for moment, state, text, source, after in (
        (job.ended_at, job.state, end, rq.ended_source, rq.ended_after),
        (job.dispatched_at, "queued", "Queued by RQ", rq.dispatched_source, rq.dispatched_after),
        (job.created_at, "deferred", "Created in RQ", rq.created_source, rq.created_after),
    ):
        if moment is not None and source is not None:
            yield Event(moment, state, text, source, after=after)
    if job.cancel_requested_at is not None:
        text = f"{job.cancel_requested_by or 'somebody'} asked to cancel it"
        yield Event(job.cancel_requested_at, "canceled", text, "operator", label=job.cancel_reason)


def _ender(job: JobInFull, attempts: Sequence[AttemptRow]) -> str:
    last = attempts[0] if attempts else None
    if last is not None and last.ended_at == job.ended_at:
        return source_of(last)
    if job.ended_by == "canceled" and job.cancel_requested_at is not None:
        return "operator"
    return _ENDERS.get(job.ended_by or "", "operator" if job.ended_by == "canceled" else "worker")


def _of_attempts(job: JobInFull, attempts: Sequence[AttemptRow]) -> Iterator[Event]:
    for attempt in attempts:
        if attempt.ended_at is not None:
            word = outcome_of(attempt, job)
            cause = attempt.cause_of_death
            error = None if cause else attempt.error  # the error repeats the cause
            how = "" if cause and cause.startswith(word.text) else f", {word.text}"
            yield Event(
                attempt.ended_at,
                word.is_,
                f"Attempt {attempt.number} ended{how}",
                source_of(attempt),
                payload=error,
                label=cause,
                after=attempt.ended_after,
            )
        by = f" by {attempt.worker}" if attempt.worker else ""
        source = "rq" if source_of(attempt) == "rq" else "worker"
        yield Event(attempt.started_at, "started", f"Attempt {attempt.number} begun{by}", source)


def source_of(attempt: AttemptRow) -> str:
    """Who reported the end of an attempt: its worker, or RQ; that of a lost attempt a loop inferred."""
    if attempt.outcome == "lost":
        return _INFERRED
    # Only RQ's own results name no worker of ours.
    return "worker" if attempt.worker_id is not None or attempt.execution_id is None else "rq"


def _of_audit(event: EventRow) -> Event:
    action = event.action.partition(".")[2].replace("_", " ")
    text = f"{event.actor}: {action}{f', refused ({event.code})' if event.code else ''}"
    status = "refused" if event.outcome == "refused" else "seen"
    return Event(event.at, status, text, "operator", label=event.reason, audit=event.sequence)


WIDTH = 760.0
_NARROWEST = 6.0
_LABEL = 14.0
_TICKS = 6
_STEPS = (
    *(1, 2, 5, 10, 15, 30),
    *(60 * minutes for minutes in (1, 2, 5, 10, 15, 30)),
    *(3600 * hours for hours in (1, 2, 6, 12)),
    *(86400 * days for days in (1, 2, 5, 10, 30, 100, 1000)),
)


@dataclass(frozen=True)
class Bar:
    """One attempt. `label` is empty where it would overlap the label before."""

    x: float
    width: float
    status: str
    label: str

    @property
    def middle(self) -> float:
        """The x position of its label."""
        return self.x + self.width / 2


@dataclass(frozen=True)
class Timeline:
    """The bars, and the ticks below them as (x, text); time counts from the first attempt's start."""

    bars: Sequence[Bar]
    ticks: Sequence[tuple[float, str]]


def draw_timeline(attempts: Sequence[AttemptRow], job: JobInFull, now: datetime) -> Timeline | None:
    """The drawing of the attempts, which are given newest first; None for fewer than two."""
    if len(attempts) < 2:
        return None
    start = min(attempt.started_at for attempt in attempts)
    end = max(attempt.ended_at or now for attempt in attempts)
    seconds = max(1.0, (end - start).total_seconds())

    def x(moment: datetime) -> float:
        return (moment - start).total_seconds() / seconds * (WIDTH - _NARROWEST)

    return Timeline(list(_bars(attempts, job, now, x)), list(_ticks(seconds)))


def _bars(
    attempts: Sequence[AttemptRow], job: JobInFull, now: datetime, x: Callable[[datetime], float]
) -> Iterator[Bar]:
    labelled = -_LABEL
    for attempt in reversed(attempts):
        left = x(attempt.started_at)
        width = max(_NARROWEST, x(attempt.ended_at or now) - left)
        is_free = left + width / 2 - labelled >= _LABEL
        labelled = left + width / 2 if is_free else labelled
        label = str(attempt.number) if is_free else ""
        yield Bar(round(left, 1), round(width, 1), outcome_of(attempt, job).is_, label)


def _ticks(seconds: float) -> Iterator[tuple[float, str]]:
    step = next((step for step in _STEPS if seconds / step <= _TICKS), _STEPS[-1])
    for number in range(int(seconds // step) + 1):
        words = f"+{span(number * step)}" if number else "start"
        yield round(number * step / seconds * (WIDTH - _NARROWEST), 1), words

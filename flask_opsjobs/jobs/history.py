"""Tells the history of a job: its events, each with its source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..core.history import INFERRED, Event
from .adopted.queries import AdoptedRow
from .lifecycle import ENDED_BY, FINAL
from .rows import AttemptRow, JobInFull


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


# Who ends a job, by `ended_by`.
_ENDERS = {
    "deadline": "dispatcher",
    "undeliverable": "dispatcher",
    "discarded": "operator",
    "unseen": "observer",
}


def list_history(
    job: JobInFull,
    attempts: Sequence[AttemptRow],
    rq: AdoptedRow | None = None,
    enqueued_by: str | None = None,
) -> Sequence[Event]:
    """What its rows tell: its end first, then its attempts. A job's row keeps only its last dispatch.

    `attempts` are given newest first. `rq` is what RQ says of an adopted job. `enqueued_by` is the operator
    who enqueued it, when the audit says so. A stable sort by time keeps a
    job's end above the end of its attempt at the same time.
    """
    of_job = _of_job(job, attempts, enqueued_by) if rq is None else _of_adopted_job(job, rq)
    return [*of_job, *tell_attempts(job, attempts)]


def say_end(state: str, ended_by: str | None) -> str:
    """How a job ended: `Failed: the last attempt failed`, `Canceled`."""
    how = ENDED_BY.get(ended_by or "", "")
    return state.capitalize() + ("" if how in ("", state) else f": {how}")


def _of_job(
    job: JobInFull, attempts: Sequence[AttemptRow], enqueued_by: str | None
) -> Iterator[Event]:
    if job.state in FINAL and job.ended_at is not None:
        text = say_end(job.state, job.ended_by)
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
    by = f" by {enqueued_by}" if enqueued_by else ""
    source = "operator" if again or by else "host"
    yield Event(job.created_at, "available", f"Enqueued{by}{again}", source)


def _of_adopted_job(job: JobInFull, rq: AdoptedRow) -> Iterator[Event]:
    """The times of the row, each as its source reported it: an interval where nobody saw it."""
    end = say_end(job.state, job.ended_by)
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


def tell_attempts(job: JobInFull, attempts: Sequence[AttemptRow]) -> Iterator[Event]:
    """The begin and the end of attempts of the job; of each the end first."""
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
        return INFERRED
    # Only RQ's own results name no worker of ours.
    return "worker" if attempt.worker_id is not None or attempt.execution_id is None else "rq"

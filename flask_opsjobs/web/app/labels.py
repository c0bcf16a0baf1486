"""Gives words and status colours for stored values."""

from __future__ import annotations

from dataclasses import dataclass

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
    "refused": ("failed", "refused"),
}


def outcome(attempt: AttemptRow, job: JobInFull) -> Word:
    """How an attempt ended, or `running`."""
    if attempt.outcome is None:
        return Word("started", "running")
    status, text = _OUTCOMES[attempt.outcome]
    is_last_word = job.state == "failed" and attempt.dispatch_no == job.dispatch_no
    return Word(status or ("failed" if is_last_word else "retryable"), text)

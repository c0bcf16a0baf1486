"""Sends the events of attempts, jobs and steps that ended, for the transaction that ends them.

The caller is in a block `signals.once_committed`, so receivers are called after the commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .. import signals
from ..jobs.perform.outcomes import Outcome
from .after_end import EndedAttempt, MovedJob


def send_ends(ended: Sequence[MovedJob], attempts: Sequence[EndedAttempt]) -> None:
    """Send what these jobs and their attempts say. `attempts` are those whose outcomes were written."""
    if signals.attempt_ended.receivers or signals.job_failed_without_exception.receivers:
        by_key = {(each.id, each.dispatch_no): each for each in attempts}
        for job in ended:
            _send_attempt(job, by_key.get(job.key))
    if signals.job_rescued.receivers:
        for job in ended:
            _send_rescue(job)
    if signals.job_ended.receivers or signals.step_ended.receivers:
        for job in ended:
            if job.is_final:
                _send_end(job)


def send_step_end(workflow_id: int, id: int, task: str, state: str, ended_by: str | None) -> None:
    """Say that a step of a workflow has ended."""
    signals.send(
        signals.step_ended,
        workflow_id=workflow_id,
        job_id=id,
        task=task,
        state=state,
        ended_by=ended_by,
    )


def send_recalls(jobs: Iterable[tuple[int, str]]) -> None:
    """Say that these jobs (id, queue), which had been handed out and had not begun, are due again."""
    if signals.job_recalled.receivers:
        for job_id, queue in jobs:
            signals.send(signals.job_recalled, job_id=job_id, queue=queue)


def _send_attempt(job: MovedJob, ended: EndedAttempt | None) -> None:
    """Send what became of its attempt: the fence accepted its end, or it was lost with its worker.

    A job that ended while it waited has none. When it failed, that is said too, except when a process has
    seen the exception or somebody discarded the job.
    """
    facts: dict[str, Any] = {
        "job_id": job.id,
        "task": job.task,
        "queue": job.queue,
        "attempt": job.lost_attempt if ended is None else ended.attempt,
    }
    if ended is not None:
        outcome: str | None = ended.outcome.kind
    else:
        outcome = None if job.lost_attempt is None else "lost"
    if outcome is not None:
        seconds = None if ended is None else ended.seconds
        signals.send(
            signals.attempt_ended, **facts, outcome=outcome, state=job.state, seconds=seconds
        )
    is_told = job.ended_by == "discarded" if ended is None else _has_raised(ended.outcome)
    if job.state == "failed" and not is_told:
        signals.send(
            signals.job_failed_without_exception, **facts, outcome=outcome, ended_by=job.ended_by
        )


def _has_raised(outcome: Outcome) -> bool:
    """Whether the process of the attempt has seen an exception of the function."""
    is_of_function = outcome.cause_of_death is None and outcome.ended_by != "unrecordable"
    return is_of_function and outcome.kind in ("raised", "timed_out", "discarded", "retry_in")


def _send_rescue(job: MovedJob) -> None:
    if job.lost_attempt is not None:
        signals.send(
            signals.job_rescued,
            job_id=job.id,
            task=job.task,
            queue=job.queue,
            attempt=job.lost_attempt,
            state=job.state,
        )


def _send_end(job: MovedJob) -> None:
    signals.send(
        signals.job_ended,
        job_id=job.id,
        task=job.task,
        queue=job.queue,
        state=job.state,
        ended_by=job.ended_by,
        workflow_id=job.workflow_id,
        batch_id=job.batch_id,
        cron_entry=job.cron_entry,
    )
    if job.workflow_id is not None:
        send_step_end(job.workflow_id, job.id, job.task, job.state, job.ended_by)

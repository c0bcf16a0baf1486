"""Rules about the job itself: its time, its deadline, somebody's wish to stop it."""

from __future__ import annotations

from collections.abc import Iterator

from ..jobs.retry import REFUSED_FOR
from .reasons import make_reason
from .seen import Seen
from .shapes import Reason


def deadline_passed(seen: Seen) -> Iterator[Reason]:
    """It waits past its deadline."""
    if seen.is_overdue:
        yield make_reason(
            seen,
            "deadline_passed",
            "Its deadline passed before it started.",
            "It ends as failed with the next pass of the expire loop; after that it can be run again.",
            witness="inferred",
            read={"deadline_at": seen.job.deadline_at, "state": seen.job.state},
            since=seen.job.deadline_at,
        )


def cancel_requested(seen: Seen) -> Iterator[Reason]:
    """It is started, and somebody asked to stop it."""
    job = seen.job
    if job.state != "started" or job.cancel_requested_at is None:
        return
    yield make_reason(
        seen,
        "cancel_requested",
        "Somebody asked to cancel it while it runs.",
        _when_it_stops(seen),
        witness="operator",
        read={
            "cancel_requested_at": job.cancel_requested_at,
            "worker": seen.worker and seen.worker.name,
            "beat_at": seen.worker and seen.worker.beat_at,
        },
        by=job.cancel_requested_by,
        quote=job.cancel_reason,
        since=job.cancel_requested_at,
    )


def worker_silent(seen: Seen) -> Iterator[Reason]:
    """It is started by a worker that is gone, or seems to be."""
    if not seen.is_orphaned:
        return
    who, job = seen.worker, seen.job
    yield make_reason(
        seen,
        "worker_silent",
        f"Its worker {who.name} gives no sign of life." if who else "Its worker is not known any more.",
        "The watch loop gives that worker up, and puts the job back.",
        witness="inferred",
        read={"worker": who and who.name, "beat_at": who and who.beat_at, "started_at": job.started_at},
        since=who.beat_at if who else job.started_at,
    )  # fmt: skip


def _when_it_stops(seen: Seen) -> str:
    who = seen.worker
    if who is not None and not who.is_alive:
        return (
            "Its worker is silent: the watch loop ends it as canceled once it gives that worker up."
        )
    if who is not None and who.kind == "plain":
        return "A plain RQ worker does not heed that: it ends as canceled if this attempt fails."
    return f"Its worker reads that with its next beat, within {seen.settings.beat_seconds:g} s, and stops it."


def deferred(seen: Seen) -> Iterator[Reason]:
    """It waits for something that is no time."""
    if seen.job.state == "deferred" and not seen.is_overdue:
        entry, first = seen.job.cron_entry, [f"job {id}" for id in seen.waits_for]
        have = "have" if len(first) > 1 else "has"
        behind = f"It waits until {' and '.join(first)} of cron entry {entry} {have} ended."
        todo = "It becomes available when that has happened."
        if entry is not None and not first:
            behind = f"What was before it of cron entry {entry} has ended, and did not release it."
            todo = "The cron loop releases it with its next pass."
        yield make_reason(
            seen,
            "deferred",
            "It waits for another job or a signal." if entry is None else behind,
            todo,
            witness="host" if entry is None else "dispatcher",
            read={
                "state": seen.job.state,
                "created_at": seen.job.created_at,
                "cron_entry": entry,
                "waits_for": ", ".join(f"job/{id}" for id in seen.waits_for) or None,
            },
            since=seen.job.created_at,
        )


def handed_back(seen: Seen) -> Iterator[Reason]:
    """The worker that took it last does not have its task, or does not accept its arguments."""
    job, attempt = seen.job, seen.last_attempt
    if job.state == "started" or job.first_refused_at is None or seen.is_overdue:
        return
    until = job.first_refused_at + REFUSED_FOR
    by = f"Worker {attempt.worker}" if attempt else "A worker that is not known any more"
    yield make_reason(
        seen,
        "handed_back",
        f"{by} refused it and handed it back; it is tried again.",
        "Any worker of its queue may take it until that time; then it ends as failed. Start a worker whose code "
        "has its task and accepts its arguments, and stop those that run another version.",
        witness="worker",
        read={
            "worker": attempt and attempt.worker,
            "refused_at": attempt and attempt.ended_at,
            "first_refused_at": job.first_refused_at,
            "due_at": job.due_at,
        },
        quote=attempt and attempt.error,
        since=job.first_refused_at,
        until=until,
    )


def scheduled(seen: Seen) -> Iterator[Reason]:
    """It is due later, by the host's wish or because the function asked for it."""
    job = seen.job
    if job.state != "scheduled" or not seen.is_early or seen.is_overdue:
        return
    if job.first_refused_at is not None:
        return  # said already, by `handed_back`
    asked = seen.last_outcome == "snoozed"
    yield make_reason(
        seen,
        "scheduled",
        "The function asked to be called later." if asked else "It is due later.",
        "It becomes available by itself.",
        witness="worker" if asked else "host",
        read={"due_at": job.due_at, "last_attempt": seen.last_outcome},
        until=job.due_at,
    )


def backing_off(seen: Seen) -> Iterator[Reason]:
    """An attempt failed and the next one is due later."""
    job = seen.job
    if job.state != "retryable" or not seen.is_early or seen.is_overdue:
        return
    yield make_reason(
        seen,
        "backing_off",
        f"Attempt {job.attempt} of {job.max_attempts} failed, and the next one waits.",
        "It is tried again by itself; a retry does not wait.",
        witness="worker",
        read={"due_at": job.due_at, "last_attempt": seen.last_outcome, "attempt": job.attempt},
        until=job.due_at,
    )

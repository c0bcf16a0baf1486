"""Finds the reasons in the job itself: its due time, its deadline, a request to cancel, a silent worker."""

from __future__ import annotations

from collections.abc import Iterator

from ..explain.evidence import Evidence
from ..explain.reason_kinds import Reason, ReasonDetails, make_reason
from .perform.backoff import HAND_BACK_FOR


def deadline_passed(evidence: Evidence) -> Iterator[Reason]:
    """The job still waits, although its deadline has passed."""
    if evidence.is_overdue:
        yield make_reason(
            evidence,
            "deadline_passed",
            "Its deadline passed before it started.",
            "It ends as failed with the next pass of the expire loop; after that it can be run again.",
            source="inferred",
            read={"deadline_at": evidence.job.deadline_at, "state": evidence.job.state},
            since=evidence.job.deadline_at,
        )


def cancel_requested(evidence: Evidence) -> Iterator[Reason]:
    """A worker has the job, and somebody asked to cancel it."""
    job = evidence.job
    if not job.is_with_worker or job.cancel_requested_at is None:
        return
    says = "Somebody asked to cancel it while it runs."
    if job.is_reserved:
        says = "Somebody asked to cancel it after a worker had taken it."
    yield make_reason(
        evidence,
        "cancel_requested",
        says,
        _when_it_stops(evidence),
        source="operator",
        read={
            "cancel_requested_at": job.cancel_requested_at,
            "worker": evidence.worker and evidence.worker.name,
            "heartbeat_at": evidence.worker and evidence.worker.heartbeat_at,
        },
        by=job.cancel_requested_by,
        quote=job.cancel_reason,
        since=job.cancel_requested_at,
    )


def worker_silent(evidence: Evidence) -> Iterator[Reason]:
    """A worker has the job, but it sends no heartbeat or is unknown."""
    if not evidence.is_abandoned:
        return
    who, job = evidence.worker, evidence.job
    details: ReasonDetails = {"since": who.heartbeat_at if who else job.started_at}
    if _needs_a_rescue(evidence):
        details |= {"action": "job.rescue", "passes": False}
    yield make_reason(
        evidence,
        "worker_silent",
        f"Its worker {who.name} sends no heartbeat." if who else "Its worker is unknown.",
        _how_it_is_rescued(evidence),
        source="inferred",
        read={
            "worker": who and who.name,
            "heartbeat_at": who and who.heartbeat_at,
            "started_at": job.started_at,
        },
        **details,
    )


def _needs_a_rescue(evidence: Evidence) -> bool:
    """Whether the job's worker has ended or is unknown, and nobody but an operator rescues the job."""
    who = evidence.worker
    return evidence.settings.rescue == "manual" and (who is None or who.has_ended)


def _how_it_is_rescued(evidence: Evidence) -> str:
    who = evidence.worker
    has_ended = who is None or who.has_ended
    start = evidence.say_start_of("watch")
    if evidence.settings.rescue == "automatic":
        marks = "" if has_ended else "mark that worker as missing, and "
        return f"{start}The watch loop will {marks}rescue the job."
    if has_ended:
        return (
            "Rescue is manual here (OPSJOBS_RESCUE). Make sure that its worker does not run any more, then "
            "rescue the job: another worker runs it."
        )
    return (
        f"{start}The watch loop will mark that worker as missing. Rescue is manual here (OPSJOBS_RESCUE): "
        "somebody must rescue the job then."
    )


def reserved(evidence: Evidence) -> Iterator[Reason]:
    """A live worker has taken the job, and has not begun it yet."""
    job, who = evidence.job, evidence.worker
    if not job.is_reserved or evidence.is_abandoned or who is None:
        return
    yield make_reason(
        evidence,
        "reserved",
        f"Worker {who.name} has taken it, and has not begun it yet.",
        "The worker begins it when one of its children is free, or gives it back. Only this worker moves it.",
        source="worker",
        read={
            "worker": who.name,
            "heartbeat_at": who.heartbeat_at,
            "taken_at": job.dispatched_at,
        },
        since=job.dispatched_at,
    )


def _when_it_stops(evidence: Evidence) -> str:
    who = evidence.worker
    if evidence.is_abandoned:
        if _needs_a_rescue(evidence):
            return "Its worker is gone, and rescue is manual here: cancel it again, and it ends at once."
        return (
            "Its worker sends no heartbeat. "
            "When the watch loop marks that worker as missing, the job ends as canceled."
            if evidence.settings.rescue == "automatic"
            else "Its worker sends no heartbeat. "
            "When the watch loop has marked that worker as missing, cancel it again: it ends at once."
        )
    if who is not None and who.kind == "plain":
        return "A plain RQ worker ignores the request: the job ends as canceled only if this attempt fails."
    seconds = evidence.settings.heartbeat_seconds
    return (
        f"Its worker reads the request with its next heartbeat, within {seconds:g} s, and stops it."
    )


def deferred(evidence: Evidence) -> Iterator[Reason]:
    """The job waits for another job, not for a time. What a step waits for, its workflow's reasons say."""
    if (
        evidence.job.state == "deferred"
        and not evidence.is_overdue
        and evidence.job.workflow_id is None
    ):
        entry, first = evidence.job.cron_entry, [f"job {id}" for id in evidence.waits_for]
        have = "have" if len(first) > 1 else "has"
        behind = f"It waits until {' and '.join(first)} of cron entry {entry} {have} ended."
        todo = "It becomes available when that has happened."
        if entry is not None and not first:
            behind = f"The earlier jobs of cron entry {entry} have ended, but did not release it."
            todo = "The next pass of the cron loop releases it."
        yield make_reason(
            evidence,
            "deferred",
            "It waits for another job or a signal." if entry is None else behind,
            todo,
            source="host" if entry is None else "dispatcher",
            read={
                "state": evidence.job.state,
                "created_at": evidence.job.created_at,
                "cron_entry": entry,
                "waits_for": ", ".join(f"job/{id}" for id in evidence.waits_for) or None,
            },
            since=evidence.job.created_at,
        )


def handed_back(evidence: Evidence) -> Iterator[Reason]:
    """The worker that claimed it last does not have its task, or does not accept its arguments."""
    job, attempt = evidence.job, evidence.last_attempt
    if job.is_with_worker or job.first_handed_back_at is None or evidence.is_overdue:
        return
    until = job.first_handed_back_at + HAND_BACK_FOR
    by = f"Worker {attempt.worker}" if attempt else "A worker that is not known any more"
    yield make_reason(
        evidence,
        "handed_back",
        f"{by} handed it back without running it; it is tried again.",
        "Until then any worker of its queue may claim it; after that it ends as failed. Start a worker whose "
        "code has its task and accepts its arguments, and stop the workers with another version.",
        source="worker",
        read={
            "worker": attempt and attempt.worker,
            "handed_back_at": attempt and attempt.ended_at,
            "first_handed_back_at": job.first_handed_back_at,
            "due_at": job.due_at,
        },
        quote=attempt.error if attempt else None,
        since=job.first_handed_back_at,
        until=until,
    )


def scheduled(evidence: Evidence) -> Iterator[Reason]:
    """The job is due later: the host scheduled it, or its function asked to be called later."""
    job = evidence.job
    if job.state != "scheduled" or not evidence.is_early or evidence.is_overdue:
        return
    if job.first_handed_back_at is not None:
        return  # `handed_back` says so already
    is_snoozed = evidence.last_outcome == "snoozed"
    yield make_reason(
        evidence,
        "scheduled",
        "The function asked to be called later." if is_snoozed else "It is due later.",
        "It becomes available at that time by itself.",
        source="worker" if is_snoozed else "host",
        read={"due_at": job.due_at, "last_attempt": evidence.last_outcome},
        until=job.due_at,
    )


def backing_off(evidence: Evidence) -> Iterator[Reason]:
    """An attempt failed, and the next one is due later (backoff)."""
    job = evidence.job
    if job.state != "retryable" or not evidence.is_early or evidence.is_overdue:
        return
    yield make_reason(
        evidence,
        "backing_off",
        f"Attempt {job.attempt} of {job.max_attempts} failed, and the next attempt is due later.",
        "It is tried again at that time by itself; the action retry makes it due now.",
        source="worker",
        read={"due_at": job.due_at, "last_attempt": evidence.last_outcome, "attempt": job.attempt},
        until=job.due_at,
    )

"""Lists what an action would change in a job, and the facts that must be the same as in the preview."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from ..actions.shapes import Change, Item
from ..actions.target_plan import exact, moment_in_words
from ..host import Host
from .transitions import JobForDecision

Changes = tuple[Sequence[Change | None], str | None]

_BOUND = "it must start before its deadline, "


def facts_of_job(job: JobForDecision, now: datetime) -> dict[str, Any]:
    """The values that must not have changed since the preview.

    `deadline_passed` changes with time alone, and then a retry also removes the deadline.
    """
    return {
        "task": job.task,
        "queue": job.queue,
        "state": job.state,
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
        "dispatch_no": job.dispatch_no,
        "due_at": exact(job.due_at),
        "deadline_at": exact(job.deadline_at),
        "deadline_passed": _has_passed(job, now),
        "ended_at": exact(job.ended_at),
        "ended_by": job.ended_by,
        "cancel_requested_at": exact(job.cancel_requested_at),
    }


def span_of(host: Host, job: JobForDecision) -> timedelta | None:
    """The lifetime of a new unique lock, as the job's task declares it; None when it is unknown here."""
    task = host.tasks.get(job.task)
    unique = task.declared.unique if task is not None else None
    return unique.within if unique is not None and job.unique_until == "within" else None


def _retry(job: JobForDecision, _host: Host, now: datetime) -> Changes:
    most = max(job.max_attempts, job.attempt + 1)
    changes = (
        Change("state", job.state, "available"),
        Change("due", moment_in_words(job.due_at), "now"),
        Change("attempts allowed", str(job.max_attempts), str(most))
        if most != job.max_attempts
        else None,
        Change("deadline", f"{moment_in_words(job.deadline_at)}, passed", None)
        if _has_passed(job, now)
        else None,
        Change("ended", f"{job.ended_by}, {moment_in_words(job.ended_at)}", None)
        if job.ended_at
        else None,
        Change("unique lock", "released", "taken again")
        if job.unique_until == "ended" and job.unique_lock_of is None
        else None,
    )
    is_bound = job.deadline_at is not None and not _has_passed(job, now)
    return (
        changes,
        f"{_BOUND}{moment_in_words(job.deadline_at)}" if is_bound else None,
    )


def _cancel(job: JobForDecision, host: Host, _now: datetime) -> Changes:
    if job.state != "started":
        return (Change("state", job.state, "canceled"),), None
    after = "started, as before" if job.worker_kind == "plain" else "canceled, once it is stopped"
    return (Change("state", "started", after),), _when_stopped(job, host.settings.heartbeat_seconds)


def _when_stopped(job: JobForDecision, heartbeat_seconds: float) -> str:
    """When and how a request to cancel takes effect, by the kind of the worker."""
    if job.worker_kind == "forking":
        return (
            "its process is killed as soon as its worker gets the request: at once through Redis, "
            f"or with its next heartbeat, at most {heartbeat_seconds:g} s later"
        )
    if job.worker_kind == "simple":
        return (
            f"it runs inside its worker, which gets the request with its next heartbeat, "
            f"at most {heartbeat_seconds:g} s later, "
            "and stops it between two steps of Python: a call into C is not interrupted"
        )
    if job.worker_kind == "plain":
        return (
            "a plain rq worker cannot be asked to stop: the job runs to its end; if it returns, "
            "it is finished, and if it fails, it is canceled instead of retried"
        )
    return "its worker is unknown: the job is canceled when the watch loop rescues it"


def _discard(job: JobForDecision, _host: Host, _now: datetime) -> Changes:
    return (Change("state", job.state, "failed"), Change("ended", None, "discarded")), None


def _run_again(job: JobForDecision, host: Host, _now: datetime) -> Changes:
    note = None
    if job.unique_until == "within" and span_of(host, job) is None:
        note = (
            "the new job gets no unique lock, since this process does not know how long it lasts: "
            "the same call may be enqueued again"
        )
    return (Change("new job", None, f"{job.task} in {job.queue}, available, due now"),), note


def _delete(job: JobForDecision, _host: Host, _now: datetime) -> Changes:
    note = None
    if job.unique_lock_of == job.id:
        note = f"its unique lock stays: the same call is refused {_until(job)}"
    return (Change("job", job.state, None),), note


def _until(job: JobForDecision) -> str:
    return "for ever" if job.unique_until == "forever" else "until the lock expires"


def merge_notes(items: Sequence[Item]) -> list[str]:
    """The notes of a plan or a receipt, each once. One note counts all deadlines and gives the first."""
    notes = [item.note for item in items if item.note]
    deadlines = sorted(note for note in notes if note.startswith(_BOUND))
    if len(deadlines) > 1:
        notes = [note for note in notes if note not in deadlines]
    merged = [
        note if number == len(items) else f"{number} of them: {note}"
        for note, number in Counter(notes).items()
    ]
    if len(deadlines) > 1:
        first = deadlines[0].removeprefix(_BOUND)
        merged.append(f"{len(deadlines)} must start before their deadlines, the first at {first}")
    return merged


def _has_passed(job: JobForDecision, now: datetime) -> bool:
    return job.deadline_at is not None and job.deadline_at <= now


CHANGES: dict[str, Callable[[JobForDecision, Host, datetime], Changes]] = {
    "retry": _retry,
    "cancel": _cancel,
    "discard": _discard,
    "run_again": _run_again,
    "delete": _delete,
}

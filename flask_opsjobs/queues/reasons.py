"""Finds the reasons in the queue: it is paused, it has no free worker, or its prefetch is full."""

from __future__ import annotations

from collections.abc import Iterator

from ..core.words import agree, counted
from ..explain.evidence import Evidence
from ..explain.reason_kinds import Reason, as_text, make_reason


def queue_paused(evidence: Evidence) -> Iterator[Reason]:
    """The queue is paused: its jobs are not dispatched, and those that were in Redis were recalled."""
    if evidence.is_held_back and evidence.queue.is_paused and not evidence.queue.is_draining:
        yield _decision(evidence, "queue_paused", "is paused: its jobs are not dispatched.")


def queue_draining(evidence: Evidence) -> Iterator[Reason]:
    """The queue drains: no more of its jobs are dispatched, but those that are in Redis still run."""
    if evidence.is_held_back and evidence.queue.is_draining:
        yield _decision(
            evidence,
            "queue_draining",
            "is draining: its queued jobs still run, but no more are dispatched.",
        )


def _decision(evidence: Evidence, code: str, predicate: str) -> Reason:
    queue = evidence.queue
    return make_reason(
        evidence,
        code,
        f"The queue {evidence.job.queue} {predicate}",
        "Resume the queue.",
        source="operator",
        read={
            "is_paused": queue.is_paused,
            "is_draining": queue.is_draining,
            "paused_at": queue.paused_at,
        },
        by=queue.paused_by,
        quote=queue.paused_reason,
        since=queue.paused_at,
    )


def no_live_worker(evidence: Evidence) -> Iterator[Reason]:
    """No live worker listens to the queue."""
    if not evidence.is_due or evidence.alive:
        return
    last = evidence.last_listener
    name = evidence.job.queue
    before = f"{last.name} was the last one." if last else "No worker has listened to it recently."
    yield make_reason(
        evidence,
        "no_live_worker",
        f"No live worker listens to the queue {name}. {before}",
        f"Start one: `flask opsjobs worker {name}`.",
        source="inferred",
        read={
            "live_workers": 0,
            "last_worker": last and last.name,
            "last_heartbeat_at": last and last.heartbeat_at,
        },
        since=last.heartbeat_at if last else None,
    )


def no_child(evidence: Evidence) -> Iterator[Reason]:
    """No worker that listens to the queue can start a child process."""
    if not evidence.is_due or not evidence.alive or len(evidence.childless) < len(evidence.alive):
        return
    name, many = evidence.job.queue, len(evidence.alive)
    worker = evidence.childless[0]
    who = (
        f"The only worker of the queue {name}" if many == 1 else f"Each worker of the queue {name}"
    )
    yield make_reason(
        evidence,
        "no_child",
        f"{who} is without a child process. The last one of {worker.name} {worker.no_child}.",
        "The worker tries again by itself, after up to 30 s. Its log says more.",
        source="worker",
        read={"without_a_child": f"{len(evidence.childless)} of {many}", "worker": worker.name},
    )


def workers_busy(evidence: Evidence) -> Iterator[Reason]:
    """All workers that listen to the queue are running a job."""
    if not evidence.is_due or not evidence.alive or len(evidence.busy) < len(evidence.alive):
        return
    name, longest = evidence.job.queue, evidence.busy[0]
    many = len(evidence.alive)
    who = "The only worker" if many == 1 else f"All {many:,} workers"
    yield make_reason(
        evidence,
        "workers_busy",
        f"{who} of the queue {name} {'is' if many == 1 else 'are'} running a job, {_before(evidence)}.",
        f"It runs when its turn comes. To start one more worker: `flask opsjobs worker {name}`.",
        source="worker",
        read={
            "workers": f"{len(evidence.busy)} of {many} busy",
            "ahead": _ahead(evidence),
            "longest": f"job/{longest.running_job} since {as_text(longest.running)}",
        },
        since=longest.running,
    )


def _before(evidence: Evidence) -> str:
    ahead = _ahead(evidence)
    if ahead is None:
        return "and this job waits in Redis"
    # Only its own lane is counted: a limited job waits in a lane of its queue and partition.
    which = (
        " of its queue and partition or in Redis"
        if evidence.job.lane != evidence.job.queue and evidence.job.state != "queued"
        else ""
    )
    if ahead == "0":
        return f"and no due job{which} is ahead of it"
    jobs, are = ("job", "is") if ahead == "1" else ("jobs", "are")
    return f"and {ahead} due {jobs}{which} {are} ahead of it"


def _ahead(evidence: Evidence) -> str | None:
    """How many due jobs go before it; None when only Redis knows, and Redis was not read."""
    if evidence.job.state == "queued":
        position = (
            evidence.redis.position if evidence.redis and evidence.redis.is_reachable else None
        )
        return None if position is None else f"{position:,}"
    before, prefetch = evidence.ahead, evidence.prefetch
    if before is None or prefetch is None:
        return None
    return f"{before.number + prefetch.used:,}{'+' if before.kind == 'at_least' else ''}"


def prefetch_full(evidence: Evidence) -> Iterator[Reason]:
    """The prefetch of the queue is full: no more of its jobs may be in Redis now."""
    prefetch = evidence.prefetch
    if (
        not evidence.is_due
        or evidence.job.state == "queued"
        or prefetch is None
        or not prefetch.is_full
    ):
        return
    name = evidence.job.queue
    is_set = evidence.queue.prefetch is not None
    yield make_reason(
        evidence,
        "prefetch_full",
        f"The prefetch of the queue {name} is full: {counted(prefetch.used, 'job')} of it "
        f"{agree(prefetch.used, 'is', 'are')} in Redis, and at most {prefetch.size:,} may be there.",
        "It is dispatched when one of them has started.",
        source="dispatcher",
        read={
            "prefetch": f"{prefetch.used:,} of {prefetch.size:,}",
            "prefetch_set": is_set,
            "ahead": _ahead(evidence),
        },
    )

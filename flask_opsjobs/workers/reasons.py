"""Finds the reasons that lie in Redis and in the loops."""

from __future__ import annotations

from collections.abc import Iterator

from ..explain.evidence import Evidence
from ..explain.make_reason import as_text, make_reason
from ..explain.shapes import Reason

_STARTS_LOOPS = "Start the loops: `flask opsjobs run`."


def redis_away(evidence: Evidence) -> Iterator[Reason]:
    """Redis was asked and did not answer."""
    if not evidence.is_due or evidence.redis is None or evidence.redis.is_reachable:
        return
    waits = (
        "its delivery cannot be seen" if evidence.job.state == "queued" else "it is not dispatched"
    )
    yield make_reason(
        evidence,
        "redis_away",
        f"Redis does not answer, so {waits} and no worker can take it.",
        "Bring Redis back; nothing is lost, the rest happens by itself.",
        source="observer",
        read={"redis": evidence.redis.said, "asked_at": evidence.redis.read_at},
    )


def workers_suspended(evidence: Evidence) -> Iterator[Reason]:
    """RQ's own flag tells every worker of this Redis to take nothing, ours too."""
    redis = evidence.redis
    if not evidence.is_due or redis is None or not redis.is_suspended:
        return
    yield make_reason(
        evidence,
        "workers_suspended",
        "Somebody suspended all workers of its Redis with RQ's own command: they take no job, of no queue.",
        "Resume them: `rq resume -u`, with the URL of that Redis.",
        source="observer",
        read={"rq_suspended": True, "asked_at": redis.read_at},
    )


def delivery_lost(evidence: Evidence) -> Iterator[Reason]:
    """It was dispatched, and its delivery is nowhere."""
    if not evidence.is_lost:
        return
    job, redis = evidence.job, evidence.redis
    recall = (evidence.loops or {}).get("recall")
    where = "its delivery is in no list and with no worker there"
    if redis is not None and redis.is_parked:
        where = "a worker took its delivery, has not claimed it, and is gone"
    yield make_reason(
        evidence,
        "delivery_lost",
        f"It was queued, and {where}.",
        f"The recall loop recalls it once it has missed it for {evidence.lost_seconds:g} s.",
        source="observer",
        read={
            "delivery": f"opsjobs-{job.reserved_as}",
            "rq_status": redis and redis.rq_status,
            "queue_length": redis and redis.queue_length,
            "recall_last_awake": recall and recall.last_at,
        },
        since=job.dispatched_at,
    )


def loop_silent(evidence: Evidence) -> Iterator[Reason]:
    """A loop that must move it on was not awake."""
    for loop, why in needed_loops(evidence).items():
        if evidence.is_awake(loop):
            continue
        found = (evidence.loops or {}).get(loop)
        last = f"was last awake at {as_text(found.last_at)}" if found else "has never run"
        yield make_reason(
            evidence,
            "loop_silent",
            f"The {loop} loop {last}, and only it {why}.",
            _STARTS_LOOPS,
            source="inferred",
            read={
                "loop": loop,
                "last_awake": found.last_at if found else "never",
                "every_seconds": f"{found.every_seconds:g}" if found else None,
            },
            since=found.last_at if found else None,
        )


def loop_failing(evidence: Evidence) -> Iterator[Reason]:
    """A loop that must move it on was awake, and could not do its work."""
    if evidence.redis is not None and not evidence.redis.is_reachable:
        return  # said already, and that is why they fail
    for loop, why in needed_loops(evidence).items():
        found = (evidence.loops or {}).get(loop)
        if found is None or not found.is_awake or found.error is None:
            continue
        yield make_reason(
            evidence,
            "loop_failing",
            f"The last pass of the {loop} loop failed, and only it {why}.",
            "It tries again by itself; the log of `flask opsjobs run` says more.",
            source="dispatcher",
            read={"loop": loop, "last_awake": found.last_at},
            quote=found.error,
        )


def needed_loops(evidence: Evidence) -> dict[str, str]:
    """The loops without which this job does not move, each with what it does for it."""
    needed = {}
    if evidence.is_overdue:
        needed["expire"] = "ends a job whose deadline has passed"
    elif evidence.job.state in ("scheduled", "retryable"):
        needed["stage"] = "makes a job available when it is due"
    elif evidence.is_orphaned:
        needed["watch"] = "rescues a job whose worker is gone"
    elif (
        evidence.job.state == "deferred"
        and evidence.job.cron_entry is not None
        and not evidence.waits_for
    ):
        needed["cron"] = "releases a job before which nothing is left"
    elif evidence.is_lost:
        needed["recall"] = "recalls a lost delivery"
    elif evidence.job.state == "available":
        if _nobody_else_hands_it_out(evidence):
            needed["dispatch"] = "dispatches what no commit and no worker dispatches"
        if _is_kept_by_lost(evidence):
            needed["recall"] = "recalls jobs that were dispatched before it and are not in Redis"
    return needed


def _nobody_else_hands_it_out(evidence: Evidence) -> bool:
    """Whether no pause and no prefetch keeps it, and a worker is idle, or none refills the prefetch when its job ends.

    One of ours does so. But whoever is idle would wait for that, and it may be hours.
    """
    if evidence.queue.is_paused or evidence.prefetch is None or evidence.prefetch.is_full:
        return False
    return len(evidence.busy) < len(evidence.alive) or all(
        busy.kind == "plain" for busy in evidence.busy
    )


def _is_kept_by_lost(evidence: Evidence) -> bool:
    """Whether its prefetch is full, or its limiter's room kept free, and Redis has less than was dispatched.

    The difference was taken this moment, or is lost.
    """
    prefetch, redis = evidence.prefetch, evidence.redis
    if prefetch is None or redis is None or not redis.is_reachable or evidence.queue.is_paused:
        return False
    is_kept = evidence.limit is not None and evidence.limit.standing.queued > 0
    return (prefetch.is_full or is_kept) and redis.queue_length < prefetch.used

"""Finds out whether Redis or a loop keeps a job from running: Redis away, lost delivery, silent loop."""

from __future__ import annotations

from collections.abc import Iterator

from ..explain.evidence import Evidence
from ..explain.reason_kinds import Reason, ReasonDetails, as_text, make_reason


def redis_away(evidence: Evidence) -> Iterator[Reason]:
    """Redis was asked and did not answer, and no worker takes the job straight from Postgres."""
    redis, is_queued = evidence.redis, evidence.job.state == "queued"
    if not evidence.is_due or redis is None or redis.is_reachable:
        return
    effect = "nobody finds its delivery" if is_queued else "it is not dispatched"
    todo = (
        "Start Redis again. No managed job is lost: the loops and workers then continue by themselves. "
        f"A worker of ours needs no Redis for it: `flask opsjobs worker {evidence.job.queue}`."
    )
    if evidence.runs_without_redis:
        if not is_queued:
            return  # nothing keeps it from running
        todo = (
            f"{evidence.say_start_of('recall')}The recall loop recalls it when Redis has been silent for "
            f"{evidence.settings.recall_seconds:g} s; then a worker takes it from Postgres."
        )
    yield make_reason(
        evidence,
        "redis_away",
        f"Redis does not answer, so {effect}.",
        todo,
        source="observer",
        read={"redis": redis.problem, "asked_at": redis.read_at},
    )


def workers_suspended(evidence: Evidence) -> Iterator[Reason]:
    """RQ's suspension flag is set: no worker of this Redis takes jobs, not even one of ours."""
    redis = evidence.redis
    if not evidence.is_due or redis is None or not redis.is_suspended:
        return
    yield make_reason(
        evidence,
        "workers_suspended",
        "Somebody suspended all workers of this job's Redis with RQ's own command. "
        "They take no jobs from any queue.",
        "Resume them: `rq resume -u`, with the URL of that Redis.",
        source="observer",
        read={"rq_suspended": True, "asked_at": redis.read_at},
    )


def delivery_lost(evidence: Evidence) -> Iterator[Reason]:
    """The job was dispatched, and its delivery is lost."""
    if not evidence.is_lost:
        return
    job, redis = evidence.job, evidence.redis
    recall = (evidence.loops or {}).get("recall")
    where = "its delivery is in no list of Redis and no worker has it"
    details: ReasonDetails = {"since": job.dispatched_at}
    if redis is not None and redis.is_parked:
        where = "the worker that took its delivery vanished before it claimed the job"
        details["action"] = None
    yield make_reason(
        evidence,
        "delivery_lost",
        f"The job is queued, but {where}.",
        f"{evidence.say_start_of('recall')}The recall loop recalls it once its delivery has been missing for "
        f"{evidence.lost_seconds:g} s.",
        source="observer",
        read={
            "delivery": f"opsjobs-{job.reserved_as}",
            "rq_status": redis and redis.rq_status,
            "queue_length": redis and redis.queue_length,
            "recall_last_ran": recall and recall.last_at,
        },
        **details,
    )


def loop_silent(evidence: Evidence) -> Iterator[Reason]:
    """A loop that the job needs did not run."""
    for loop, why in needed_loops(evidence).items():
        if evidence.is_loop_running(loop):
            continue
        found = (evidence.loops or {}).get(loop)
        last = f"last ran at {as_text(found.last_at)}" if found else "has never run"
        yield make_reason(
            evidence,
            "loop_silent",
            f"The {loop} loop {last}, and only this loop {why}.",
            evidence.say_start_of(loop).strip(),
            source="inferred",
            read={
                "loop": loop,
                "last_ran": found.last_at if found else "never",
                "every_seconds": f"{found.every_seconds:g}" if found else None,
            },
            since=found.last_at if found else None,
        )


def loop_failing(evidence: Evidence) -> Iterator[Reason]:
    """A loop that the job needs ran, but its last pass failed."""
    if evidence.redis is not None and not evidence.redis.is_reachable:
        return  # `redis_away` is reported already, and makes the loops fail
    for loop, why in needed_loops(evidence).items():
        found = (evidence.loops or {}).get(loop)
        if found is None or not found.is_running or found.error is None:
            continue
        yield make_reason(
            evidence,
            "loop_failing",
            f"The last pass of the {loop} loop failed, and only this loop {why}.",
            "The loop tries again by itself. See the log of `flask opsjobs run` for details.",
            source="dispatcher",
            read={"loop": loop, "last_ran": found.last_at},
            quote=found.error,
        )


def needed_loops(evidence: Evidence) -> dict[str, str]:
    """Return the loops that this job needs to go on, each with what it does for the job."""
    needed = {}
    if evidence.is_overdue:
        needed["expire"] = "ends a job whose deadline has passed"
    elif evidence.is_not_advanced or _has_signal(evidence):
        needed["advance"] = "advances a workflow that no worker advances"
    elif evidence.job.state in ("scheduled", "retryable"):
        needed["stage"] = "makes a job available when it is due"
    elif evidence.is_abandoned:
        needed |= _loops_that_rescue(evidence)
    elif _is_next_of_cron(evidence):
        needed["cron"] = "releases a job when the earlier jobs of its cron entry have ended"
    elif evidence.is_lost:
        needed["recall"] = "recalls a lost delivery"
    elif _lies_in_silent_redis(evidence):
        needed["recall"] = "recalls a delivery from a Redis that does not answer"
    elif evidence.job.state == "available":
        needed |= _loops_that_dispatch(evidence)
    return needed


def _lies_in_silent_redis(evidence: Evidence) -> bool:
    """Return whether its delivery is in a Redis that does not answer, and workers go on without it."""
    is_silent = evidence.redis is not None and not evidence.redis.is_reachable
    return is_silent and evidence.job.state == "queued" and evidence.runs_without_redis


def _loops_that_rescue(evidence: Evidence) -> dict[str, str]:
    if evidence.settings.rescue == "automatic":
        return {"watch": "rescues a job whose worker is gone"}
    if evidence.worker is not None and not evidence.worker.has_ended:
        return {"watch": "marks a worker without heartbeats as missing"}
    return {}


def _loops_that_dispatch(evidence: Evidence) -> dict[str, str]:
    needed = {}
    if _only_the_loop_dispatches_it(evidence):
        needed["dispatch"] = "dispatches a job that neither a commit nor a worker has dispatched"
    if _is_blocked_by_lost_deliveries(evidence):
        needed["recall"] = (
            "recalls lost deliveries, which take up the room of its prefetch or limiter"
        )
    return needed


def _is_next_of_cron(evidence: Evidence) -> bool:
    """Return whether it is deferred, and no job of its cron entry is left that it waits for."""
    job = evidence.job
    return job.state == "deferred" and job.cron_entry is not None and not evidence.waits_for


def _has_signal(evidence: Evidence) -> bool:
    """Return whether the signal of its open wait has come."""
    return evidence.step is not None and bool(evidence.step.signals_seen.get("early"))


def _only_the_loop_dispatches_it(evidence: Evidence) -> bool:
    """Return whether only the dispatch loop can dispatch the job now.

    True when neither queue nor task is paused, its prefetch has room, Redis answers, and either a worker is
    idle or none of ours is busy. A busy worker of ours takes jobs from Postgres when its job ends. An idle
    worker must not wait for that: it may take hours. Without Redis an idle worker of ours takes jobs by
    itself.
    """
    if (
        evidence.redis is not None
        and not evidence.redis.is_reachable
        and evidence.runs_without_redis
    ):
        return False
    if evidence.is_paused or evidence.prefetch is None or evidence.prefetch.is_full:
        return False
    return len(evidence.busy) < len(evidence.alive) or all(
        busy.kind == "plain" for busy in evidence.busy
    )


def _is_blocked_by_lost_deliveries(evidence: Evidence) -> bool:
    """Return whether lost deliveries may hold the job back.

    This holds when its prefetch is full or its limiter has jobs in Redis, and Redis has fewer deliveries than
    were dispatched. The missing ones were either taken this moment or are lost.
    """
    prefetch, redis = evidence.prefetch, evidence.redis
    if prefetch is None or redis is None or not redis.is_reachable or evidence.is_paused:
        return False
    limiter_has_queued = evidence.limit is not None and evidence.limit.level.queued > 0
    return (prefetch.is_full or limiter_has_queued) and redis.queue_length < prefetch.used

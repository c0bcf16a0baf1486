"""Explain: every reason why a job is not running, in the order in which they decide; reading and judging apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime

from sqlalchemy.orm import Session

from ..db import OLDEST_SCHEMA, SCHEMA_VERSION
from ..facts import RedisFacts
from ..jobs.lifecycle import FINAL
from ..settings import Settings
from . import rules_of_engine, rules_of_job, rules_of_limit, rules_of_queue
from .causes import CAUSES
from .clear import list_clear
from .queries import find_seen
from .reasons import as_text, count
from .seen import Seen
from .shapes import Explanation, Reason

Rule = Callable[[Seen], Iterator[Reason]]

RULES: Mapping[str, Rule] = {
    "deadline_passed": rules_of_job.deadline_passed,
    "cancel_requested": rules_of_job.cancel_requested,
    "worker_silent": rules_of_job.worker_silent,
    "deferred": rules_of_job.deferred,
    "scheduled": rules_of_job.scheduled,
    "backing_off": rules_of_job.backing_off,
    "queue_paused": rules_of_queue.queue_paused,
    "queue_draining": rules_of_queue.queue_draining,
    "limit_unknown": rules_of_limit.limit_unknown,
    "limit_weight": rules_of_limit.limit_weight,
    "redis_away": rules_of_engine.redis_away,
    "workers_suspended": rules_of_engine.workers_suspended,
    "no_live_worker": rules_of_queue.no_live_worker,
    "delivery_lost": rules_of_engine.delivery_lost,
    "loop_silent": rules_of_engine.loop_silent,
    "loop_failing": rules_of_engine.loop_failing,
    "limit_cooldown": rules_of_limit.limit_cooldown,
    "limit_concurrency": rules_of_limit.limit_concurrency,
    "limit_tokens": rules_of_limit.limit_tokens,
    "limit_behind": rules_of_limit.limit_behind,
    "workers_busy": rules_of_queue.workers_busy,
    "window_full": rules_of_queue.window_full,
    "handed_back": rules_of_job.handed_back,
}


def explain_job(
    session: Session,
    job_id: int,
    now: datetime,
    redis: RedisFacts | None,
    *,
    settings: Settings,
    schema: int = SCHEMA_VERSION,
) -> Explanation | None:
    """Why the job is not running, as of `now`; None when there is no such job. Reads, and writes nothing.

    `redis` is what Redis said of its delivery, None when it was not asked. `schema` is the database's version: on one
    that is too old nothing else is read, since its columns may differ.
    """
    if schema < OLDEST_SCHEMA:
        return explain_schema(job_id, schema, now)
    seen = find_seen(session, job_id, now, settings)
    return None if seen is None else judge(replace(seen, redis=redis))


def judge(seen: Seen) -> Explanation:
    """The explanation of what was seen."""
    reasons = tuple(
        reason
        for cause in CAUSES
        if (rule := RULES.get(cause.code)) is not None
        for reason in rule(seen)
    )
    lacking = tuple(_lacking(seen, reasons))
    return Explanation(
        job_id=seen.job.id,
        state=seen.job.state,
        reasons=reasons,
        clear=tuple(list_clear(seen, {reason.code for reason in reasons})),
        completeness="partial evidence" if lacking else "complete",
        lacking=lacking,
        read_at=seen.now,
        says=_summary(seen, reasons),
    )


def _lacking(seen: Seen, reasons: tuple[Reason, ...]) -> Iterator[str]:
    if seen.is_due and seen.redis is None:
        yield "Redis was not asked"
    elif seen.is_due and seen.redis is not None and not seen.redis.is_reachable:
        yield "Redis could not be read"
    may_be_plain = "no_live_worker" in {reason.code for reason in reasons}
    if seen.is_orphaned:
        may_be_plain = seen.worker is not None and seen.worker.kind == "plain"
    if may_be_plain and not seen.is_awake("observe"):
        yield "plain RQ workers are not seen while the observe loop is silent"


def _summary(seen: Seen, reasons: tuple[Reason, ...]) -> str:
    job = seen.job
    if job.state in FINAL:
        return f"It has ended: {job.state}."
    if job.state == "started":
        return _running(seen)
    if reasons:
        return f"{count(len(reasons), 'reason')}{', the first one decides' * (len(reasons) > 1)}."
    return "Nothing is in its way: it moves on by itself any moment."


def _running(seen: Seen) -> str:
    who, since = seen.worker, as_text(seen.job.started_at)
    if who is None:
        return f"It is started since {since}, and its worker is not known any more; the watch loop puts it back."
    if not who.is_alive:
        return (
            f"It is started since {since}, but {who.name} is silent; the watch loop puts it back."
        )
    return f"It is running on {who.name} since {since}."


def explain_schema(job_id: int, schema: int, now: datetime) -> Explanation:
    """Of a schema on which this code does not run: that is the reason, and nothing else can be said."""
    state = f"is at version {schema}" if schema else "is missing"
    reason = Reason(
        code="schema_behind",
        says=f"The database's schema {state}, this code needs {SCHEMA_VERSION}: no worker and no loop starts.",
        read={"schema_version": str(schema), "oldest_supported": str(OLDEST_SCHEMA)},
        witness="observer",
        read_at=now,
        todo="Run `flask opsjobs install`, then `flask db upgrade`.",
    )
    lacking = ("the job itself cannot be read on this schema",)
    says = "The schema is behind this code."
    return Explanation(job_id, "unknown", (reason,), (), "unknown", lacking, now, says)

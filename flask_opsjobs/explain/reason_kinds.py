"""Lists every reason why a job may not be running, in the order in which they decide.

Docs and tests read it too.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReasonKind:
    """One kind of reason: its stable code, when it applies, and what helps.

    `action` is the operator's action that helps, or None. `passes`: the reason goes away by itself, with time
    or when it is the job's turn, as long as everything works.
    """

    code: str
    holds: str
    helps: str
    action: str | None = None
    passes: bool = False


# Ordered: a reason higher in the list still blocks the job after everything below it is fixed.
REASON_KINDS = (
    ReasonKind("schema_behind",
               "the database's schema is older than this code runs on, so no worker and no loop starts",
               "upgrade the schema"),
    ReasonKind("deadline_passed", "its deadline passed before it started, and the expire loop has not ended it yet",
               "nothing: it ends as failed; run it again after that", passes=True),
    ReasonKind("cancel_requested", "it is started, and somebody asked to stop it",
               "wait for its worker's next heartbeat",
               passes=True),
    ReasonKind("worker_silent", "it is started, and its worker sends no heartbeat",
               "the watch loop rescues it", passes=True),
    ReasonKind("deferred", "it waits for another job or a signal", "that job or signal", passes=True),
    ReasonKind("scheduled", "it is due later", "wait until it is due", passes=True),
    ReasonKind("backing_off", "an attempt failed, and the next one is due later", "wait, or retry it at once",
               "job.retry", passes=True),
    ReasonKind("queue_paused", "an operator paused its queue", "resume the queue", "queue.resume"),
    ReasonKind("queue_draining", "an operator drains its queue: nothing more is dispatched", "resume the queue",
               "queue.resume"),
    ReasonKind("limit_unknown", "no process that knows its limiter has started", "start a worker or the loops"),
    ReasonKind("limit_weight", "it weighs more than its limiter ever has room for",
               "declare a larger burst or concurrency, or discard it"),
    ReasonKind("redis_away", "Redis does not answer, so nothing can be dispatched or taken", "bring Redis back"),
    ReasonKind("workers_suspended", "somebody suspended all workers of its Redis with RQ's own command",
               "resume them with `rq resume`"),
    ReasonKind("no_live_worker", "no worker that is alive listens to its queue", "start one"),
    ReasonKind("delivery_lost",
               "it was dispatched, but its delivery is nowhere in Redis, or where a worker died",
               "the recall loop recalls it",
               passes=True),
    ReasonKind("loop_silent", "a loop that it needs is not running", "start the loops"),
    ReasonKind("loop_failing", "a loop that it needs is running, but its last pass failed",
               "read that loop's log"),
    ReasonKind("limit_cooldown", "its limiter, or its partition, is in an operator's cooldown",
               "wait, or clear the cooldown", "limiter.clear", passes=True),
    ReasonKind("limit_concurrency", "too few places of its limiter are free for its weight", "wait until others end",
               passes=True),
    ReasonKind("limit_tokens", "its limiter has too few tokens left for its weight",
               "wait until tokens come back", passes=True),
    ReasonKind("limit_behind", "its limiter has room, but jobs before it start first", "wait for its turn",
               passes=True),
    ReasonKind("workers_busy", "every worker that listens to its queue is running a job",
               "wait for its turn, or start another worker", passes=True),
    ReasonKind("prefetch_full", "its queue has as many jobs in Redis as its prefetch allows",
               "wait, or raise the prefetch", "queue.set_prefetch", passes=True),
    ReasonKind("handed_back", "a worker took it, but does not have its task or does not accept its arguments",
               "wait for a worker of the right version, or start one", passes=True),
)  # fmt: skip

CODES = tuple(kind.code for kind in REASON_KINDS)

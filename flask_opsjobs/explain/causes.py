"""Every cause for which a job may not be running, in the order in which they decide; docs and tests read this."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """One cause: its stable code, when it holds, and what helps. `action` is the doorway's, where one helps.

    `passes` says that it goes by itself, by time or in turn, while everything works as it should.
    """

    code: str
    holds: str
    helps: str
    action: str | None = None
    passes: bool = False


# What would hold the job even if all below were solved stands above it.
CAUSES = (
    Cause("schema_behind", "the database's schema is older than this code runs on, so no worker and no loop starts",
          "upgrade the schema"),
    Cause("deadline_passed", "its deadline passed before it started, and the expire loop has not ended it yet",
          "nothing: it ends as failed; run it again after that", passes=True),
    Cause("cancel_requested", "it is started, and somebody asked to stop it", "wait for its worker's next beat",
          passes=True),
    Cause("worker_silent", "it is started, and its worker gives no sign of life",
          "the watch loop puts it back", passes=True),
    Cause("deferred", "it waits for another job or a signal", "that job or signal", passes=True),
    Cause("scheduled", "it is due later", "wait until it is due", passes=True),
    Cause("backing_off", "an attempt failed, and the next one is due later", "wait, or retry it at once",
          "job.retry", passes=True),
    Cause("queue_paused", "an operator paused its queue", "resume the queue", "queue.resume"),
    Cause("queue_draining", "an operator drains its queue: nothing more is handed out", "resume the queue",
          "queue.resume"),
    Cause("limit_unknown", "no process that knows its limiter has started", "start a worker or the loops"),
    Cause("limit_weight", "it weighs more than its limiter has room for at any time",
          "declare a larger burst or concurrency, or discard it"),
    Cause("redis_away", "Redis does not answer, so nothing can be handed out or taken", "bring Redis back"),
    Cause("workers_suspended", "somebody suspended all workers of its Redis with RQ's own command",
          "resume them with `rq resume`"),
    Cause("no_live_worker", "no worker that is alive listens to its queue", "start one"),
    Cause("delivery_lost", "it was handed out, and its delivery is nowhere in Redis, or where a worker died",
          "the recall loop takes it back",
          passes=True),
    Cause("loop_silent", "a loop that must move it on has not been awake", "start the loops"),
    Cause("loop_failing", "a loop that must move it on is awake, and its last pass failed", "read that loop's log"),
    Cause("limit_cooldown", "an operator cools its limiter, or its partition, down", "wait, or clear the cooldown",
          "limiter.clear", passes=True),
    Cause("limit_concurrency", "too few places of its limiter are free for its weight", "wait until others end",
          passes=True),
    Cause("limit_tokens", "its limiter has too few tokens left for its weight", "wait until they come", passes=True),
    Cause("limit_behind", "its limiter has room, and jobs before it start first", "wait for its turn",
          passes=True),
    Cause("workers_busy", "every worker that listens to its queue has a job in hand",
          "wait for its turn, or start another worker", passes=True),
    Cause("window_full", "as many jobs of its queue lie in Redis as its window allows",
          "wait, or widen the window", "queue.set_window", passes=True),
    Cause("handed_back", "a worker took it, and does not have its task or does not accept its arguments",
          "wait for a worker of the right version, or start one", passes=True),
)  # fmt: skip

CODES = tuple(cause.code for cause in CAUSES)

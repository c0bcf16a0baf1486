"""Declares the states of a job and the arrows between them, as data for views, writes, docs and tests."""

from __future__ import annotations

from ..core.arrow import Arrow

WAITING = ("deferred", "scheduled", "available", "queued", "retryable")
# How a managed job ends. An adopted one may also end unseen.
MANAGED_FINAL = ("finished", "failed", "canceled")
FINAL = (*MANAGED_FINAL, "unknown")
# Few jobs end in these states, and most searches ask for them: they have indexes of their own.
UNSUCCESSFUL = ("failed", "canceled")
MANAGED_STATES = (
    *("deferred", "scheduled", "available", "queued", "started", "retryable"),
    *MANAGED_FINAL,
)
STATES = (*MANAGED_STATES, "unknown")
# Nothing of ours dispatches an adopted job.
ADOPTED_STATES = tuple(state for state in STATES if state != "available")

MEANINGS = {
    "deferred": "waits for another job or a signal",
    "scheduled": "due later",
    "available": "due now, not queued yet",
    "queued": "in Redis, or reserved by a worker that has not begun it",
    "started": "a worker claimed it",
    "retryable": "an attempt failed; due again after backoff",
    "finished": "ended well",
    "failed": "ended badly; ended_by says how",
    "canceled": "ended by somebody's decision",
    "unknown": "a plain RQ job whose end nobody saw",
}

# Why a final job ended, as stored in jobs.ended_by.
ENDED_BY = {
    "returned": "the function returned",
    "exhausted": "the last attempt failed",
    "deadline": "the deadline passed before it started",
    "invalid_args": "for ten minutes workers did not accept its stored arguments",
    "unknown_task": "for ten minutes workers did not have its task",
    "undeliverable": "workers failed its delivery three times without running it",
    "unrecordable": "its outcome could not be written",
    "canceled": "canceled",
    "discarded": "discarded",
    "dependency": "a step before it did not finish",
    "result_missing": "the result of a step before it was missing",
    "too_large": "its list had more elements than a map or a run may have",
    "signaled": "a signal arrived",
    "skipped": "skipped by an operator, with a given result",
    "unseen": "RQ's record of it was gone before anybody saw its end",
}

# The structures of RQ in which an adopted job may be, as stored in rq_facts.structure. Without one, only its
# hash is left. A job is in one of them at a time; between two of them it may be in none.
RQ_STRUCTURES = (
    "list",
    "intermediate",
    "started",
    "deferred",
    "scheduled",
    "ready",
    "rate_limited",
    "failed",
    "finished",
    "canceled",
)
# Who reported a time of an adopted job: RQ's own stamp, a worker of ours that ran it, or the adopting loop,
# which saw only that it happened between two of its looks.
RQ_SOURCES = ("rq", "worker", "observer")

# How an attempt ended, as stored in attempts.outcome.
OUTCOMES = (
    "returned",
    "raised",
    "timed_out",
    "died",
    "canceled",
    "discarded",
    "snoozed",
    "retry_in",
    "not_run",
    "lost",
)

# The causes of death: why an attempt ended without its function, as stored in attempts.death.
DEATHS = {
    "out_of_memory": "Linux killed its process, because its memory was used up",
    "signal": "a signal killed its process",
    "timed_out": "it reached its time limit",
    "stopped": "it was stopped: by somebody's wish, or with its worker",
    "exited": "its process ended before its function returned",
    "vanished": "its worker vanished",
    "deploy": "its process was killed around a deploy, and the successor of its worker was seen",
    "unknown": "nobody saw how it ended",
}

# The outcomes that a failure key belongs to: something went wrong.
FAILURES = ("raised", "timed_out", "died", "discarded", "retry_in", "lost")

# A managed job begins in `available`, `scheduled`, `deferred` or `queued`, by one of these statements.
BEGUN_BY = (
    "enqueue_job",
    "enqueue_due_job",
    "enqueue_unique_job",
    "copy_jobs",
    "insert_unique_jobs",
    "enqueue_callback",
    # Of an escalation, which the process of the loops performs.
    "open_escalations",
    "copy_jobs_of_steps",
    # Of an adopted job, in the state in which it was first seen.
    "insert_jobs_of_runs",
    "insert_adopted_jobs",
)

ARROWS = (
    Arrow(
        "release",
        sources=("deferred",),
        targets=("available", "scheduled"),
        by="dispatcher",
        meaning="what it waited for has happened",
        made_by=("release_cron_jobs", "release_steps"),
    ),
    Arrow(
        "stage",
        sources=("scheduled", "retryable"),
        targets=("available",),
        by="dispatcher",
        meaning="it has become due",
        made_by=("stage_jobs",),
    ),
    Arrow(
        "dispatch",
        sources=("available",),
        targets=("queued",),
        by="dispatcher",
        meaning="a delivery is pushed to RQ, or a worker reserves it",
        made_by=("dispatch_lane", "take_jobs"),
    ),
    Arrow(
        "claim",
        sources=("queued",),
        targets=("started",),
        by="worker",
        meaning="a worker begins it",
        made_by=("begin_jobs", "claim_job", "claim_limited_jobs"),
    ),
    Arrow(
        "claim_next",
        sources=("available",),
        targets=("started",),
        by="worker",
        meaning="a worker begins a limited job in the place of one that has ended",
        made_by=("claim_limited_jobs",),
    ),
    Arrow(
        "recall",
        sources=("queued",),
        targets=("available",),
        by="dispatcher",
        meaning="its delivery was lost or failed, its limit was full, or its worker did not begin it",
        made_by=(
            "recall_jobs",
            "count_failed_deliveries",
            "recall_limited_job",
            "give_back_jobs",
            "rescue_reserved_jobs",
        ),
    ),
    Arrow(
        "finish",
        sources=("queued", "started"),
        targets=("finished",),
        by="worker",
        meaning="the function returned",
        made_by=("finish_jobs", "retry_or_end_jobs"),
    ),
    Arrow(
        "fail",
        sources=("queued", "started"),
        targets=("retryable", "failed"),
        by="worker",
        meaning="the attempt failed",
        made_by=("retry_or_end_jobs", "count_failed_deliveries"),
    ),
    Arrow(
        "snooze",
        sources=("queued", "started"),
        targets=("scheduled",),
        by="worker",
        meaning="the function asked to be called later",
        made_by=("retry_or_end_jobs",),
    ),
    Arrow(
        "hand_back",
        sources=("queued", "started"),
        targets=("scheduled",),
        by="worker",
        meaning="the worker does not have its task, or does not accept its arguments",
        made_by=("retry_or_end_jobs",),
    ),
    Arrow(
        "expire",
        sources=WAITING,
        targets=("failed",),
        by="dispatcher",
        meaning="the deadline passed",
        made_by=("expire_jobs", "give_back_jobs"),
    ),
    Arrow(
        "rescue",
        sources=("started",),
        targets=("available", "failed"),
        by="watcher",
        meaning="its worker is gone",
        made_by=("rescue_jobs",),
    ),
    Arrow(
        "cancel",
        sources=(*WAITING, "started"),
        targets=("canceled",),
        by="operator",
        meaning="end a waiting job, or ask the worker of a started or reserved job to stop it",
        # All but the first write the end of a job whose worker was asked to stop it.
        made_by=(
            "end_waiting_jobs",
            "retry_or_end_jobs",
            "rescue_jobs",
            "give_back_jobs",
            "rescue_reserved_jobs",
        ),
    ),
    Arrow(
        "discard",
        sources=WAITING,
        targets=("failed",),
        by="operator",
        meaning="end it without running it",
        made_by=("end_waiting_jobs",),
    ),
    Arrow(
        "observe",
        sources=ADOPTED_STATES,
        targets=tuple(state for state in ADOPTED_STATES if state != "unknown"),
        by="observer",
        meaning="RQ or a worker has moved a plain RQ job",
        made_by=("observe_jobs", "record_runs_of_plain_jobs"),
    ),
    Arrow(
        "vanish",
        sources=tuple(state for state in ADOPTED_STATES if state not in FINAL),
        targets=("unknown",),
        by="observer",
        meaning="RQ's record of a plain RQ job is gone, and nobody saw its end",
        made_by=("end_vanished_jobs",),
    ),
    Arrow(
        "receive",
        sources=("deferred",),
        targets=("finished",),
        by="advance",
        meaning="a signal ends a wait",
        made_by=("take_signal",),
    ),
    Arrow(
        "skip",
        sources=("deferred", "failed", "canceled"),
        targets=("finished",),
        by="operator",
        meaning="a step of a workflow, with a given result",
        made_by=("skip_steps",),
    ),
    Arrow(
        "reopen",
        sources=("failed", "canceled"),
        targets=("deferred",),
        by="operator",
        meaning="a step before it is retried or skipped",
        made_by=("defer_jobs_again",),
    ),
    Arrow(
        "retry",
        sources=("failed", "canceled", "retryable"),
        targets=("available",),
        by="operator",
        meaning="run it once more",
        made_by=("retry_jobs",),
    ),
    Arrow(
        "reschedule",
        sources=("scheduled", "available", "queued", "retryable"),
        targets=("scheduled", "available"),
        by="operator",
        meaning="give it another due time; it is available when that is now",
        made_by=("reschedule_jobs",),
    ),
    Arrow(
        "edit",
        sources=WAITING,
        targets=("deferred", "scheduled", "available", "retryable"),
        by="operator",
        meaning="change its queue, priority or arguments; one that was queued is available again",
        made_by=("edit_jobs",),
    ),
    Arrow(
        "run_again",
        sources=MANAGED_FINAL,
        targets=(),
        by="operator",
        meaning="enqueue a new job of the same call, which links to this job",
        made_by=("run_jobs_again",),
    ),
    Arrow(
        "delete",
        sources=FINAL,
        targets=(),
        by="operator",
        meaning="delete its row",
        # The others delete old jobs after the time that the settings say.
        made_by=("delete_jobs", "retain_jobs", "retain_workflows", "retain_batches"),
    ),
)

# What RQ may be asked to do with an adopted job, each with the states in which it may. A started job may be
# retried or discarded only when its worker is gone; then RQ calls it abandoned.
ASKED_OF_RQ = {
    "retry": ("failed", "canceled", "retryable", "started"),
    "cancel": ("deferred", "scheduled", "queued", "retryable", "started"),
    "discard": ("started",),
    "delete": FINAL,
}


def sources_of(name: str) -> tuple[str, ...]:
    """The states from which the arrow `name` may leave."""
    return next(arrow.sources for arrow in ARROWS if arrow.name == name)

"""Declares the states of a job and the arrows between them, as data for views, writes, docs and tests."""

from __future__ import annotations

from dataclasses import dataclass

WAITING = ("deferred", "scheduled", "available", "queued", "retryable")
FINAL = ("finished", "failed", "canceled")
# Few jobs end in these states, and most searches ask for them: they have indexes of their own.
UNSUCCESSFUL = ("failed", "canceled")
STATES = ("deferred", "scheduled", "available", "queued", "started", "retryable", *FINAL)

MEANINGS = {
    "deferred": "waits for another job or a signal",
    "scheduled": "due later",
    "available": "due now, not queued yet",
    "queued": "in Redis, waits for a worker",
    "started": "a worker claimed it",
    "retryable": "an attempt failed; due again after backoff",
    "finished": "ended well",
    "failed": "ended badly; ended_by says how",
    "canceled": "ended by somebody's decision",
}

# Why a final job ended, as stored in jobs.ended_by.
ENDED_BY = {
    "returned": "the function returned",
    "exhausted": "the last attempt failed",
    "deadline": "the deadline passed before it started",
    "invalid_args": "for ten minutes workers refused its stored arguments",
    "unknown_task": "for ten minutes workers did not have its task",
    "refused": "workers failed its delivery three times without running it",
    "unrecordable": "its outcome could not be written",
    "canceled": "canceled",
    "discarded": "discarded",
}

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
    "refused",
    "lost",
)


@dataclass(frozen=True)
class JobArrow:
    """One legal move by `by`, from any of `sources` to one of `targets`. Without targets the state stays."""

    name: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    by: str
    meaning: str


ARROWS = (
    JobArrow(
        "release", ("deferred",), ("available",), "dispatcher", "what it waited for has happened"
    ),
    JobArrow(
        "stage", ("scheduled", "retryable"), ("available",), "dispatcher", "it has become due"
    ),
    JobArrow("dispatch", ("available",), ("queued",), "dispatcher", "a delivery is pushed to RQ"),
    JobArrow("claim", ("queued",), ("started",), "worker", "a worker takes the delivery"),
    JobArrow(
        "recall",
        ("queued",),
        ("available",),
        "dispatcher",
        "its delivery was lost or refused, or its limit full",
    ),
    JobArrow("finish", ("queued", "started"), ("finished",), "worker", "the function returned"),
    JobArrow(
        "fail", ("queued", "started"), ("retryable", "failed"), "worker", "the attempt failed"
    ),
    JobArrow(
        "snooze",
        ("queued", "started"),
        ("scheduled",),
        "worker",
        "the function asked to be called later",
    ),
    JobArrow(
        "hand_back",
        ("queued", "started"),
        ("scheduled",),
        "worker",
        "the worker does not have its task, or does not accept its arguments",
    ),
    JobArrow("expire", WAITING, ("failed",), "dispatcher", "the deadline passed"),
    JobArrow("rescue", ("started",), ("available", "failed"), "watcher", "its worker is gone"),
    JobArrow(
        "cancel",
        (*WAITING, "started"),
        ("canceled",),
        "operator",
        "on started it asks the worker to stop",
    ),
    JobArrow("discard", WAITING, ("failed",), "operator", "end it without running it"),
    JobArrow(
        "retry", ("failed", "canceled", "retryable"), ("available",), "operator", "run it once more"
    ),
    JobArrow("run_again", FINAL, (), "operator", "a new job of the same call, which links back"),
    JobArrow("delete", FINAL, (), "operator", "delete its row"),
)


def moves_from(state: str) -> tuple[JobArrow, ...]:
    """The arrows that may leave `state`."""
    return tuple(arrow for arrow in ARROWS if state in arrow.sources)


def sources_of(name: str) -> tuple[str, ...]:
    """The states from which the arrow `name` may leave."""
    return next(arrow.sources for arrow in ARROWS if arrow.name == name)

"""Declares what a look at RQ says of one plain job, as plain values, and which state of ours that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

# RQ's word for a job in each structure. RQ keeps failed and stopped jobs in one.
WORDS = {
    "list": "queued",
    "intermediate": "queued",
    "started": "started",
    "deferred": "deferred",
    "scheduled": "scheduled",
    "ready": "ready_to_enqueue",
    "rate_limited": "rate_limited",
    "failed": "failed",
    "finished": "finished",
    "canceled": "canceled",
}
# Our state for each word of RQ. A scheduled job that was tried before is `retryable`.
STATES_OF_WORDS = {
    "created": "deferred",
    "deferred": "deferred",
    "scheduled": "scheduled",
    "ready_to_enqueue": "queued",
    "rate_limited": "queued",
    "queued": "queued",
    "started": "started",
    "finished": "finished",
    "failed": "failed",
    "canceled": "canceled",
    "stopped": "canceled",
}


@dataclass(frozen=True)
class SeenRun:
    """One run of a job: an entry of its result stream, or, without an outcome, the run that goes on.

    `key` is RQ's id of the run. `ended_after` is the last look before an end that nobody saw.
    """

    key: str
    outcome: str | None
    worker: str
    started_at: datetime | None
    ended_at: datetime | None
    error: str | None = None
    traceback: str | None = None
    ended_after: datetime | None = None


@dataclass(frozen=True)
class SeenJob:
    """One plain job as RQ keeps it. Times are RQ's own stamps, None where it has none.

    `structure` is None when only the job's hash is left; then `word` is the hash's status. `running` is RQ's
    id of the run that goes on. `runs` are the last ten at most, oldest first; `runs_before` counts older ones
    that RQ no longer keeps. `function` and `arguments` are None when they are as before.
    """

    rq_id: str
    structure: str | None
    word: str
    queue: str
    created_at: datetime | None = None
    enqueued_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    scheduled_for: datetime | None = None
    worker: str = ""
    timeout_seconds: int | None = None
    retries: int = 0
    retries_left: int | None = None
    repeats_left: int | None = None
    depends_on: Sequence[str] = ()
    allows_failure: bool = False
    group_id: str | None = None
    cron: str | None = None
    rate_limit_key: str | None = None
    ttl_seconds: int | None = None
    running: str | None = None
    runs: Sequence[SeenRun] = ()
    runs_before: int = 0
    function: str | None = None
    arguments: str | None = None
    result: str | None = None

    @property
    def state(self) -> str:
        """Our state for it."""
        state = STATES_OF_WORDS[self.word]
        was_tried = self.retries > 0 or self.retried_run is not None
        return "retryable" if state == "scheduled" and was_tried else state

    @property
    def retried_run(self) -> SeenRun | None:
        """The last run, when it raised and RQ tries again. RQ keeps no result of it, only its times."""
        if self.word not in ("scheduled", "queued") or self.retries_left is None:
            return None
        if self.started_at is None or self.ended_at is None or self.ended_at < self.started_at:
            return None
        if any(_is_near(run.ended_at, self.ended_at) for run in self.runs):
            return None
        key = f"ended {self.ended_at.isoformat()}"
        return SeenRun(key, "raised", self.worker, self.started_at, self.ended_at)


def _is_near(one: datetime | None, other: datetime) -> bool:
    """Whether both are the same time. RQ writes one as text and the other as a float."""
    return one is not None and abs(one - other) < timedelta(milliseconds=1)

"""Declares the values that queries of jobs return to pages. The payload is as it is stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

# Counts stop here, and pages show "10,000+".
CAP = 10_000


@dataclass(frozen=True)
class Count:
    """A number of jobs. `kind`: exact, at_least (counting stopped), or about (the planner's estimate)."""

    number: int
    kind: str = "exact"

    @classmethod
    def capped(cls, number: int) -> Count:
        """The value of a count that stops one after `CAP`."""
        return cls(CAP, "at_least") if number > CAP else cls(number)

    @classmethod
    def sum(cls, counts: Iterable[Count]) -> Count:
        """The sum, with the least exact kind among the counts."""
        known = list(counts)
        kinds = {count.kind for count in known}
        kind = next((kind for kind in ("at_least", "about") if kind in kinds), "exact")
        return cls(sum(count.number for count in known), kind)


@dataclass(frozen=True)
class JobRow:
    """A job in a list. `progress` is (done, total, note) of a started job that has told it.

    `taken_by` is the name of the worker that has taken it and not begun it.
    """

    id: int
    state: str
    task: str
    queue: str
    attempt: int
    max_attempts: int
    dispatch_no: int
    created_at: datetime
    due_at: datetime
    dispatched_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    ended_by: str | None
    ended_reason: str | None
    error: str | None
    origin: str = "opsjobs"
    progress: Sequence[Any] | None = None
    taken_by: str | None = None

    @property
    def main_time(self) -> tuple[str, datetime] | None:
        """The time that matters most in its state, after what it is then: due, queued, started or ended.

        None for a deferred job, which waits for another one.
        """
        if self.state == "deferred":
            return None
        if self.state == "queued" and self.dispatched_at is not None:
            return "queued", self.dispatched_at
        if self.state == "started" and self.started_at is not None:
            return "started", self.started_at
        return ("due", self.due_at) if self.ended_at is None else ("ended", self.ended_at)


@dataclass(frozen=True)
class JobPage:
    """A page of a list: rows, newest first, and whether there are newer and older ones."""

    rows: Sequence[JobRow]
    has_newer: bool
    has_older: bool


@dataclass(frozen=True)
class JobInFull:
    """One job as its page shows it. `args` and `meta` are JSON texts, as Postgres wrote them."""

    id: int
    state: str
    task: str
    queue: str
    lane: str
    origin: str
    priority: int
    attempt: int
    max_attempts: int
    dispatch_no: int
    timeout_seconds: int | None
    deadline_at: datetime | None
    created_at: datetime
    due_at: datetime
    dispatched_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    ended_by: str | None
    ended_reason: str | None
    error: str | None
    worker_id: int | None
    reserved_by: int | None
    cancel_requested_at: datetime | None
    cancel_requested_by: str | None
    cancel_reason: str | None
    run_again_from: int | None
    batch_id: int | None
    limiter: str | None
    partition: str | None
    weight: int | None
    workflow_id: int | None
    tags: Sequence[str]
    is_unique: bool
    args: str
    meta: str


@dataclass(frozen=True)
class AttemptRow:
    """One attempt of a job, identified by `dispatch_no`.

    `number` counts from 1. Snoozing costs no attempt, so the attempt after a snooze has the same number.
    `death` is one of `lifecycle.DEATHS`, `cause_of_death` the sentence about it.
    `pid` is the process in which the function ran. `execution_id` is RQ's name of a run of an adopted job.
    """

    dispatch_no: int
    number: int
    worker_id: int | None
    worker: str
    pid: int | None
    started_at: datetime
    ended_at: datetime | None
    outcome: str | None
    error: str | None
    cause_of_death: str | None
    death: str | None
    death_facts: Mapping[str, Any] | None
    max_rss_kb: int | None
    progress_done: int | None
    progress_total: int | None
    progress_note: str | None
    execution_id: str | None
    has_log: bool

    @property
    def ended_after(self) -> datetime | None:
        """For the end of a plain run that nobody saw: the last look before it."""
        after = (self.death_facts or {}).get("ended_after")
        return None if after is None else datetime.fromisoformat(after)


@dataclass(frozen=True)
class OutputRow:
    """The value that a function returned, as JSON text; or in `omitted` the reason why it was not stored."""

    value: str | None
    size_bytes: int
    omitted: str | None


@dataclass(frozen=True)
class Relations:
    """The other jobs that a job is linked to. `run_again_as` holds ids and states, the newest first.

    `run_again_from` is the state of the job from which this one was run again; None without such a job, or
    when it was deleted. `unique_lock` is the lock on the job's unique key now; None when there is no lock.
    """

    run_again_from: str | None
    run_again_as: Sequence[tuple[int, str]]
    unique_lock: UniqueLockRow | None


@dataclass(frozen=True)
class UniqueLockRow:
    """The unique lock on a job's key: the job that holds it, and how long."""

    job_id: int
    until: str
    expires_at: datetime | None

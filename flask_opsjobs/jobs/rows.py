"""Declares what the reads of jobs return: values for pages, with payload as it is stored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

# Counting stops here: "10,000+".
CAP = 10_000


@dataclass(frozen=True)
class Count:
    """How many: exactly, at least (counting was broken off), or about (an estimate of the planner)."""

    number: int
    kind: str = "exact"

    @classmethod
    def capped(cls, number: int) -> Count:
        """The outcome of a count that stops one after `CAP`."""
        return cls(CAP, "at_least") if number > CAP else cls(number)

    @classmethod
    def sum(cls, counts: Iterable[Count]) -> Count:
        """All of them together, known no better than the least known of them."""
        known = list(counts)
        kinds = {count.kind for count in known}
        kind = next((kind for kind in ("at_least", "about") if kind in kinds), "exact")
        return cls(sum(count.number for count in known), kind)


@dataclass(frozen=True)
class JobRow:
    """A line of a list. `progress` is (done, total, note) while the job is started."""

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
    progress: tuple[int | None, int | None, str | None] | None = None


@dataclass(frozen=True)
class JobPage:
    """Rows, newest first, and whether there are more on either side."""

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
    cancel_requested_at: datetime | None
    cancel_requested_by: str | None
    cancel_reason: str | None
    run_again_from: int | None
    limiter: str | None
    partition: str | None
    weight: int | None
    tags: Sequence[str]
    is_unique: bool
    args: str
    meta: str


@dataclass(frozen=True)
class AttemptRow:
    """One claim of a job. `number` counts from 1; `dispatch_no` names it; snoozed ones share numbers."""

    dispatch_no: int
    number: int
    worker_id: int | None
    worker: str
    started_at: datetime
    ended_at: datetime | None
    outcome: str | None
    error: str | None
    cause: str | None
    max_rss_kb: int | None
    progress_done: int | None
    progress_total: int | None
    progress_note: str | None
    has_log: bool


@dataclass(frozen=True)
class OutputRow:
    """What a function returned, as JSON text; or why it was not kept."""

    value: str | None
    size_bytes: int
    omitted: str | None


@dataclass(frozen=True)
class Relations:
    """Other jobs that one job has to do with. `run_again_as` are ids and states, the newest first.

    `run_again_from` is the state of the job it was run again from, None when there is none or it is gone.
    `unique_lock` says what makes it unique now: the job that holds it, and until when; None when nothing does.
    """

    run_again_from: str | None
    run_again_as: Sequence[tuple[int, str]]
    unique_lock: UniqueLockRow | None


@dataclass(frozen=True)
class UniqueLockRow:
    """The unique lock under a job's key: the job that holds it, and until when."""

    job_id: int
    until: str
    expires_at: datetime | None

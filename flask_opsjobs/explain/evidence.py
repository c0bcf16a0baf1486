"""Holds what was read to explain one job, as plain values; the reasons are found from nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from ..core.redis_facts import PARKED_GRACES, RedisFacts
from ..jobs.lifecycle import WAITING
from ..jobs.rows import Count
from ..lifeline.queries import LoopRow
from ..limits.bucket import BucketLevel, Shape
from ..settings import Settings


@dataclass(frozen=True)
class JobEvidence:
    """The columns of the job that say where it stands."""

    id: int
    state: str
    task: str
    queue: str
    lane: str
    priority: int
    attempt: int
    max_attempts: int
    dispatch_no: int
    created_at: datetime
    due_at: datetime
    deadline_at: datetime | None
    dispatched_at: datetime | None
    started_at: datetime | None
    worker_id: int | None
    cancel_requested_at: datetime | None
    cancel_requested_by: str | None
    cancel_reason: str | None
    first_refused_at: datetime | None
    cron_entry: str | None
    limiter: str | None
    partition: str | None
    weight: int | None

    @property
    def reserved_as(self) -> str:
        """How a worker's heartbeat names its delivery."""
        return f"{self.id}-{self.dispatch_no}"


@dataclass(frozen=True)
class AttemptEvidence:
    """Its last attempt, by which worker it was made and how it ended."""

    worker: str
    outcome: str | None
    error: str | None
    ended_at: datetime | None


@dataclass(frozen=True)
class QueueEvidence:
    """What an operator decided about its queue."""

    is_paused: bool = False
    is_draining: bool = False
    paused_at: datetime | None = None
    paused_by: str | None = None
    paused_reason: str | None = None
    prefetch: int | None = None


@dataclass(frozen=True)
class Listener:
    """A worker that listens to the queue, or has the job. `running` is since when it has its oldest job."""

    id: int
    name: str
    kind: str
    heartbeat_at: datetime
    reserved: Sequence[str]
    is_alive: bool
    running_job: int | None = None
    running: datetime | None = None


@dataclass(frozen=True)
class Prefetch:
    """How many jobs of the queue may lie in Redis, and how many do, counted up to that."""

    size: int
    used: int

    @property
    def is_full(self) -> bool:
        """Whether nothing more may be dispatched."""
        return self.used >= self.size


@dataclass(frozen=True)
class LimitEvidence:
    """What its limiter is and has. `shape` is None when nobody has declared it; `holders` are the oldest of what runs.

    `ahead_weight` is the weight of those that go before it in its lane, as far as they were counted. The cooldown is
    the limiter's or the partition's, whichever lasts longer. Who may not see the partition is not told it: `is_named`.
    """

    name: str
    partition: str
    weight: int
    shape: Shape | None
    standing: BucketLevel
    holders: Sequence[int] = ()
    ahead_weight: int = 0
    cooldown_at: datetime | None = None
    cooldown_by: str | None = None
    cooldown_reason: str | None = None
    is_cooldown_of_all: bool = False
    is_named: bool = True

    @property
    def said(self) -> str | None:
        """The partition as it may be said; None when it has none."""
        return self.partition or None if self.is_named else None

    @property
    def cooling_target(self) -> str:
        """What cools down, as an action names it: the limiter, or its partition."""
        whole = f"limiter/{self.name}"
        return whole if self.is_cooldown_of_all else f"{whole}/{self.partition}"


@dataclass(frozen=True)
class Evidence:
    """All that was read, at `now`. What the job's state does not ask for is left at its default."""

    now: datetime
    settings: Settings
    job: JobEvidence
    queue: QueueEvidence = QueueEvidence()
    last_attempt: AttemptEvidence | None = None
    # The jobs that a deferred one waits for, the oldest few.
    waits_for: Sequence[int] = ()
    listeners: Sequence[Listener] = ()
    last_listener: Listener | None = None
    worker: Listener | None = None
    loops: Mapping[str, LoopRow] | None = None
    prefetch: Prefetch | None = None
    ahead: Count | None = None
    limit: LimitEvidence | None = None
    redis: RedisFacts | None = None

    @property
    def last_outcome(self) -> str | None:
        """How its last attempt ended; None before the first."""
        return self.last_attempt.outcome if self.last_attempt else None

    @property
    def is_overdue(self) -> bool:
        """Whether it waits past its deadline: no claim takes it any more."""
        deadline = self.job.deadline_at
        return self.job.state in WAITING and deadline is not None and deadline <= self.now

    @property
    def is_early(self) -> bool:
        """Whether it waits for its time, or for something that is no time."""
        if self.job.state == "deferred":
            return True
        return self.job.state in ("scheduled", "retryable") and self.job.due_at > self.now

    @property
    def is_due(self) -> bool:
        """Whether it could run now, as far as it depends on the job itself."""
        return self.job.state in WAITING and not self.is_early and not self.is_overdue

    @property
    def is_held_back(self) -> bool:
        """Whether a paused queue keeps it: it is not dispatched yet, and may still run."""
        return self.job.state in WAITING and self.job.state != "queued" and not self.is_overdue

    @property
    def alive(self) -> Sequence[Listener]:
        """The workers that may take it."""
        return [listener for listener in self.listeners if listener.is_alive]

    @property
    def busy(self) -> Sequence[Listener]:
        """Those of them that are running a job, the one that runs longest first."""
        running = [listener for listener in self.alive if listener.running is not None]
        return sorted(running, key=lambda listener: listener.running or self.now)

    @property
    def is_lost(self) -> bool:
        """Whether it was dispatched a while ago, Redis answers, and its delivery is nowhere, or where a worker died.

        Postgres was read a moment before Redis. A job that was dispatched just now may not have been pushed yet.
        """
        job, redis = self.job, self.redis
        if job.state != "queued" or not self.is_due or redis is None or not redis.is_reachable:
            return False
        is_seen = redis.is_there and not redis.is_parked
        if is_seen or any(job.reserved_as in listener.reserved for listener in self.alive):
            return False
        if job.dispatched_at is None:
            return True
        return (self.now - job.dispatched_at).total_seconds() >= self.lost_seconds

    @property
    def lost_seconds(self) -> float:
        """How long its delivery may be missing before it counts as lost, as recall counts."""
        is_parked = self.redis is not None and self.redis.is_parked
        return self.settings.recall_seconds * (PARKED_GRACES if is_parked else 1)

    @property
    def is_orphaned(self) -> bool:
        """Whether it is started, and the worker that has it sends no heartbeat."""
        return self.job.state == "started" and not (self.worker and self.worker.is_alive)

    def is_awake(self, loop: str) -> bool:
        """Whether the loop was awake lately."""
        found = (self.loops or {}).get(loop)
        return found is not None and found.is_awake

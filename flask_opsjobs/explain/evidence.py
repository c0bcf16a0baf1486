"""Holds what was read to explain one job, as plain values. All reasons are found from these values alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ..batches.queries import BatchRow, CallbackOfBatch
from ..core.redis_facts import PARKED_GRACES, RedisFacts
from ..jobs.adopted.chain_queries import Relative
from ..jobs.lifecycle import WAITING
from ..jobs.rows import Count
from ..lifeline.loop_runs import LoopRow
from ..limits.bucket import BucketLevel, Shape
from ..settings import Settings
from ..workflows.held_up import Doing, Released, doing_of

# Lists of steps stop at this number.
MOST_STEPS = 5


@dataclass(frozen=True)
class JobEvidence:
    """The columns of the job that decide whether it can run."""

    id: int
    origin: str
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
    reserved_by: int | None
    cancel_requested_at: datetime | None
    cancel_requested_by: str | None
    cancel_reason: str | None
    first_handed_back_at: datetime | None
    cron_entry: str | None
    workflow_id: int | None
    limiter: str | None
    partition: str | None
    weight: int | None

    @property
    def is_adopted(self) -> bool:
        """Whether it is a plain RQ job: RQ and its workers move it, and no loop or worker of ours does."""
        return self.origin == "rq"

    @property
    def is_reserved(self) -> bool:
        """Whether a worker has taken it and has not begun it: only that worker moves it."""
        return self.reserved_by is not None

    @property
    def is_with_worker(self) -> bool:
        """Whether a worker has it: it runs there, or it is reserved."""
        return self.state == "started" or self.is_reserved

    @property
    def reserved_as(self) -> str:
        """The name of its delivery in a worker's heartbeat."""
        return f"{self.id}-{self.dispatch_no}"


@dataclass(frozen=True)
class AttemptEvidence:
    """The job's last attempt: its worker and how it ended."""

    worker: str
    outcome: str | None
    error: str | None
    ended_at: datetime | None


@dataclass(frozen=True)
class QueueEvidence:
    """What an operator decided about the job's queue."""

    is_paused: bool = False
    is_draining: bool = False
    paused_at: datetime | None = None
    paused_by: str | None = None
    paused_reason: str | None = None
    prefetch: int | None = None


@dataclass(frozen=True)
class PauseEvidence:
    """That an operator paused the job's task."""

    paused_at: datetime
    paused_by: str
    paused_reason: str


@dataclass(frozen=True)
class Listener:
    """A worker that listens to the queue, or has the job.

    `running` is when its oldest running job started, once each of its children has one. `no_child` is why its
    last child left, when it has none. `has_ended`: it is missing, or has stopped.
    """

    id: int
    name: str
    kind: str
    heartbeat_at: datetime
    reserved: Sequence[str]
    is_alive: bool
    running_job: int | None = None
    running: datetime | None = None
    has_ended: bool = False
    no_child: str | None = None


@dataclass(frozen=True)
class Prefetch:
    """The queue's prefetch: how many jobs may be in Redis (`size`), and how many are (`used`)."""

    size: int
    used: int

    @property
    def is_full(self) -> bool:
        """Whether no more jobs of the queue may be dispatched now."""
        return self.used >= self.size


@dataclass(frozen=True)
class LimitEvidence:
    """The job's limiter: its declaration and its level.

    `shape` is None when no process has declared the limiter. `holders` are the jobs that have held a place
    longest. `ahead_weight` is the weight of the jobs before this one in its lane, as far as they were
    counted. The cooldown is that of the limiter or of the partition, whichever lasts longer. `is_named` is
    False for a reader who may not see the partition.
    """

    name: str
    partition: str
    weight: int
    shape: Shape | None
    level: BucketLevel
    holders: Sequence[int] = ()
    ahead_weight: int = 0
    cooldown_at: datetime | None = None
    cooldown_by: str | None = None
    cooldown_reason: str | None = None
    is_cooldown_of_all: bool = False
    is_named: bool = True

    @property
    def shown_partition(self) -> str | None:
        """The partition; None when there is none, or the reader may not see it."""
        return self.partition or None if self.is_named else None

    @property
    def cooling_target(self) -> str:
        """The target that cools down, as an action names it: the limiter, or its partition."""
        whole = f"limiter/{self.name}"
        return whole if self.is_cooldown_of_all else f"{whole}/{self.partition}"


@dataclass(frozen=True)
class FrontierStep:
    """An unfinished step that waits for no other step. `says` is its own first reason, once it was found.

    `waiting` is the name of a step that waits for it, where that was read.
    """

    name: str
    evidence: Evidence
    says: str = ""
    waiting: str | None = None

    @property
    def doing(self) -> Doing:
        """What the step does, as pages say it."""
        job, step = self.evidence.job, self.evidence.step
        return doing_of(
            Released(
                job.state,
                job.attempt,
                job.max_attempts,
                job.due_at,
                job.started_at,
                job.deadline_at,
                step.opened_at if step else None,
                step.signals if step else None,
            ),
            self.evidence.now,
        )


@dataclass(frozen=True)
class StepEvidence:
    """The job as a step of its run, and what it waits for as such.

    `before` are the names of the oldest few unfinished steps directly before it, one more than is shown;
    `removed` of those whose jobs were deleted. `frontier` are the oldest few unfinished steps, over any
    number of steps before it, that wait for no other step. `signals_seen` are the signals that came for a
    wait and that it did not take, by outcome. `trouble` says why the run could not be advanced.
    """

    run: int
    name: str
    kind: str
    pending: int
    released_at: datetime | None
    opened_at: datetime | None
    expanded_at: datetime | None
    signals: Sequence[str] | None
    key: str
    run_state: str
    trouble: str | None
    cancel_requested_at: datetime | None
    cancel_requested_by: str | None
    cancel_reason: str | None
    before: Sequence[str] = ()
    removed: Sequence[str] = ()
    frontier: Sequence[FrontierStep] = ()
    signals_seen: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_open_wait(self) -> bool:
        """Whether a signal would end it now."""
        return self.kind == "wait" and self.opened_at is not None

    @property
    def has_steps_before(self) -> bool:
        """Whether a step directly before it has not ended."""
        return bool(self.before or self.removed)


@dataclass(frozen=True)
class Evidence:
    """All that was read, at `now`. Values that do not matter in the job's state keep their defaults."""

    now: datetime
    settings: Settings
    job: JobEvidence
    queue: QueueEvidence = QueueEvidence()
    # Of its task; None when that is not paused.
    pause: PauseEvidence | None = None
    last_attempt: AttemptEvidence | None = None
    # The oldest few jobs that a deferred job waits for.
    waits_for: Sequence[int] = ()
    # What RQ has an adopted job wait for, and whether it goes on after one of them failed.
    parents: Sequence[Relative] = ()
    allows_failure: bool = False
    step: StepEvidence | None = None
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
        """How the last attempt ended; None before the first attempt has ended."""
        return self.last_attempt.outcome if self.last_attempt else None

    @property
    def is_overdue(self) -> bool:
        """Whether it is still waiting after its deadline. No worker claims it any more."""
        deadline = self.job.deadline_at
        return self._is_waiting and deadline is not None and deadline <= self.now

    @property
    def _is_waiting(self) -> bool:
        """Whether it waits for a worker to take it, or for something before that."""
        return self.job.state in WAITING and not self.job.is_reserved

    @property
    def is_early(self) -> bool:
        """Whether it waits until it is due, or, when `deferred`, for another job or a signal."""
        if self.job.state == "deferred":
            return True
        return self.job.state in ("scheduled", "retryable") and self.job.due_at > self.now

    @property
    def is_due(self) -> bool:
        """Whether it could run now, if nothing but the job itself decided."""
        return self._is_waiting and not self.is_early and not self.is_overdue

    @property
    def is_held_back(self) -> bool:
        """Whether a pause of its queue or task stops it: it is not dispatched yet, and not past its deadline.

        A wait is never dispatched.
        """
        if self.step is not None and self.step.kind == "wait":
            return False
        return self.job.state in WAITING and self.job.state != "queued" and not self.is_overdue

    @property
    def is_paused(self) -> bool:
        """Whether its queue is paused or drains, or its task is paused."""
        return self.queue.is_paused or self.pause is not None

    @property
    def alive(self) -> Sequence[Listener]:
        """The live workers that listen to its queue."""
        return [listener for listener in self.listeners if listener.is_alive]

    @property
    def runs_without_redis(self) -> bool:
        """Whether a live worker takes jobs of its queue from Postgres; a plain RQ worker does not."""
        return any(listener.kind == "pool" for listener in self.alive)

    @property
    def busy(self) -> Sequence[Listener]:
        """The live workers whose children all run a job, the longest running job first."""
        running = [listener for listener in self.alive if listener.running is not None]
        return sorted(running, key=lambda listener: listener.running or self.now)

    @property
    def childless(self) -> Sequence[Listener]:
        """The live workers that have no child, because none starts."""
        return [listener for listener in self.alive if listener.no_child is not None]

    @property
    def is_lost(self) -> bool:
        """Whether its delivery is lost: dispatched, but nowhere in Redis, or where a worker died.

        It counts as lost only when Redis answers and `lost_seconds` have passed since the dispatch: Postgres
        was read just before Redis, and a job that has just been dispatched may not have been pushed yet.
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
        """After how many seconds a missing delivery counts as lost. The recall loop uses the same time."""
        is_parked = self.redis is not None and self.redis.is_parked
        return self.settings.recall_seconds * (PARKED_GRACES if is_parked else 1)

    @property
    def is_abandoned(self) -> bool:
        """Whether a worker has it, but no longer sends heartbeats (a stuck job)."""
        return self.job.is_with_worker and not (self.worker and self.worker.is_alive)

    @property
    def is_not_advanced(self) -> bool:
        """Whether it waits for its run to be advanced, and for nothing else."""
        step = self.step
        if step is None or self.is_overdue or self.job.state not in WAITING:
            return False
        if step.run_state == "canceling":
            return True
        is_deferred = self.job.state == "deferred" and not step.is_open_wait
        return is_deferred and not step.has_steps_before

    def is_loop_running(self, loop: str) -> bool:
        """Whether the loop has run recently. False when it is not known."""
        found = (self.loops or {}).get(loop)
        return found is not None and found.is_running

    def say_start_of(self, loop: str) -> str:
        """What somebody must do before this loop does anything: empty while it runs."""
        return "" if self.is_loop_running(loop) else "Start the loops: `flask opsjobs run`. "


@dataclass(frozen=True)
class RunEvidence:
    """What was read of a run of a workflow. `frontier` are a few steps that wait for no other step, and
    the first of them most likely holds the run up.

    `removed` names the oldest few unsettled steps whose jobs were deleted. `state_of_step` is the state of
    the step that ended the run.
    """

    id: int
    name: str
    state: str
    steps: int
    settled: int
    trouble: str | None
    ended_by: str | None = None
    ended_by_step: str | None = None
    canceled: int = 0
    cancel_requested_by: str | None = None
    cancel_reason: str | None = None
    state_of_step: str | None = None
    removed: Sequence[str] = ()
    frontier: Sequence[FrontierStep] = ()

    @property
    def is_final(self) -> bool:
        """Whether the run has ended."""
        return self.state not in ("running", "canceling")


@dataclass(frozen=True)
class StoredBatch:
    """The rows of a batch that decide. `members` are its oldest member of each state that is not final."""

    batch: BatchRow
    callbacks: Sequence[CallbackOfBatch]
    members: Sequence[JobEvidence]


@dataclass(frozen=True)
class BatchEvidence:
    """What was read of a batch at `now`. `members` are those of `StoredBatch`.

    `callbacks` are those of its callbacks that failed or were canceled. `fold` is the loop that counts
    members; None when it has never run.
    """

    now: datetime
    batch: BatchRow
    fold: LoopRow | None = None
    last_added_at: datetime | None = None
    members: Sequence[Evidence] = ()
    callbacks: Sequence[CallbackOfBatch] = ()

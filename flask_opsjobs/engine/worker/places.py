"""Holds what a worker's main thread knows of each child: its process, what it was given, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ...core.outage import Backoff
from ...core.steady_clock import steady_seconds
from ...jobs.perform.backoff import backoff_seconds
from ...jobs.perform.outcomes import Outcome
from ...jobs.record.declaration import TaskDeclaration
from .children import ChildProcess, Death
from .frames import RQ_WORK_ID, JobOrder, Key, PlainRun, RQWork
from .heartbeat import CANCELED, LOST, Progress
from .left_children import LeaveReason
from .reserved import ReservedJob
from .rq_link import ShownPlace


@dataclass
class Sent:
    """What a child was given: a managed job, or work of RQ with its number.

    `is_written`: its start was handed to the taker. `is_started`: the row of the job says so, and `progress`
    waits for that. `limit_seconds`: how long the work of RQ may take. `why_killed`: why its child was killed.
    """

    at: float
    job: ReservedJob | None = None
    rq_work: RQWork | None = None
    number: int = 0
    limit_seconds: float | None = None
    is_written: bool = False
    is_started: bool = False
    progress: Progress | None = None
    why_killed: str | None = None

    @property
    def key(self) -> Key | None:
        """Return the delivery of a managed job."""
        return self.job.key if self.job is not None else None

    @property
    def plain(self) -> PlainRun | None:
        """Return the plain RQ job, if it is one."""
        return self.rq_work if isinstance(self.rq_work, PlainRun) else None

    def for_rq(self, child: ChildProcess, begun_before: float) -> PlainRun | JobOrder | None:
        """Return the job that RQ's records show: a managed one only if it began before this moment."""
        if self.job is None:
            return self.plain
        began = self.began(child)
        return self.job.order if began is not None and began < begun_before else None

    def began(self, child: ChildProcess) -> float | None:
        """Return when the child began it; None while it has not."""
        page = child.page.read()
        key = self.key or (RQ_WORK_ID, self.number)
        return page[1] if page is not None and page[0] == key else None


@dataclass
class Place:
    """A place for a child. The child that replaces another has the same number.

    `promised` is a job that is claimed for the child and not sent yet. `leaving` are the reasons why the
    child takes no more jobs. `ended_at` is when it ended its last job; the host's teardown may still run.
    `fork_at` is when the next child is forked, after one that did not become ready; else 0.
    `finished` and `failed` are the managed jobs that ended here.
    """

    number: int
    child: ChildProcess | None = None
    is_ready: bool = False
    sent: Sent | None = None
    promised: Key | None = None
    leaving: list[LeaveReason] | None = None
    leaving_at: float = 0.0
    alone_until: float = 0.0
    ended_at: float = 0.0
    fork_at: float = 0.0
    finished: int = 0
    failed: int = 0
    backoff: Backoff = field(default_factory=lambda: Backoff(shortest=0.1, longest=30.0))

    @property
    def is_idle(self) -> bool:
        """Return whether its child waits for a job."""
        return self.is_ready and self.leaving is None and not self.is_busy

    @property
    def is_busy(self) -> bool:
        """Return whether its child has a job, or gets the one that is claimed for it."""
        return self.sent is not None or self.promised is not None

    def count(self, outcome: Outcome) -> None:
        """Count a managed job that has ended here."""
        if outcome.kind == "returned":
            self.finished += 1
        else:
            self.failed += 1

    def for_rq(self, begun_before: float) -> ShownPlace:
        """Return what RQ's records show of the place."""
        sent, job = self.sent, None
        if sent is not None and self.child is not None:
            job = sent.for_rq(self.child, begun_before)
        return ShownPlace(self.is_busy, job, self.finished, self.failed)

    @property
    def is_alone(self) -> bool:
        """Return whether no other child may get a job now: this one may kill the worker."""
        return self.is_busy and steady_seconds() < self.alone_until

    def in_teardown_since(self) -> float | None:
        """Return since when the host's teardown after the last job has been running; None when it is not."""
        if self.child is None or self.child.page.read() is None:
            return None
        has_begun = self.sent is not None and self.sent.began(self.child) is not None
        return None if has_begun else self.ended_at


def outcome_of_death(
    sent: Sent, death: Death, log_tail: str | None, tasks: Mapping[str, TaskDeclaration]
) -> Outcome:
    """Return the outcome of a managed job whose child ended in the middle of it."""
    outcome = _outcome(sent, death, tasks)
    return replace(outcome, log_tail=log_tail, max_rss_kb=death.max_rss_kb)


def _outcome(sent: Sent, death: Death, tasks: Mapping[str, TaskDeclaration]) -> Outcome:
    why, words = sent.why_killed, death.words
    if why == LOST:
        return Outcome(kind="lost", error=f"its process was killed: {LOST}")
    if why == CANCELED:
        reason = "stopped while it ran"
        return Outcome(kind="canceled", reason=reason, error=reason, cause_of_death=words)
    assert sent.job is not None
    order = sent.job.order
    delay = backoff_seconds(tasks.get(order.task), order.attempt)
    if why == "timed_out":
        error = f"ran longer than {order.timeout_seconds} s and its time limit could not stop it"
        cause = f"time-out, {words}"
        return Outcome("timed_out", error, cause_of_death=cause, delay_seconds=delay)
    known = why or ("out of memory" if death.is_out_of_memory else "unknown")
    error, cause = f"its process died: {words}", f"{known}, {words}"
    return Outcome("died", error, cause_of_death=cause, delay_seconds=delay)

"""Holds what a worker's main thread knows of each child: its process, what it was given, and how it ended."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ...core.outage import Backoff
from ...core.steady_clock import steady_seconds
from ...jobs.failure_key import key_of_end
from ...jobs.perform.backoff import backoff_seconds
from ...jobs.perform.outcomes import Outcome
from ...jobs.record.declaration import TaskDeclaration
from .children import ChildProcess, Death
from .claim import LimitedLane
from .frames import RQ_WORK_ID, Errand, JobOrder, Key, PlainRun, RQWork
from .heartbeat import CANCELED, LOST, Progress
from .left_children import LeaveReason
from .reserved import SOON_SECONDS, ReservedJob
from .rq_link import ShownPlace

# What costs more is sent only to a child that has nothing, and nothing is sent behind it. In microseconds.
MOST_AHEAD = round(SOON_SECONDS * 1e6)
# What an order costs that must be alone, or of which nothing is known.
ALONE = 10**9
# A job that runs for less than this is short: its start is never written, since its end says when it began.
SHORT_SECONDS = 0.05


@dataclass(slots=True)
class Sent:
    """What a child was sent: a managed job, or work of RQ with its number.

    `cost` is how long it is expected to run, in microseconds. `is_written`: its start was handed to the
    taker. `is_started`: the row of the job says so, and `progress` waits for that. `limit_seconds`: how long
    an errand may take. `why_killed`: why its child was killed.
    """

    at: float
    job: ReservedJob | None = None
    rq_work: RQWork | None = None
    number: int = 0
    cost: int = ALONE
    limit_seconds: float = math.inf
    is_written: bool = False
    is_started: bool = False
    progress: Progress | None = None
    why_killed: str | None = None

    @property
    def key(self) -> Key:
        """Return the delivery of a managed job, or what stands for it."""
        return self.job.key if self.job is not None else (RQ_WORK_ID, self.number)

    @property
    def plain(self) -> PlainRun | None:
        """Return the plain RQ job, if it is one."""
        return self.rq_work if isinstance(self.rq_work, PlainRun) else None

    @property
    def errand(self) -> Errand | None:
        """Return the errand, if it is one."""
        return None if isinstance(self.rq_work, PlainRun) else self.rq_work

    @property
    def begin_after(self) -> float:
        """Return when it may begin."""
        return self.job.order.begin_after if self.job is not None else 0.0


@dataclass
class Place:
    """A place for a child. The child that replaces another has the same number.

    `sent` are the orders that the child has not ended, in order; it has received at most the first of them
    that was not taken back. `load` is their cost. `owes_since` is since when the child should have said
    something; 0 when it has nothing to do. `is_silent`: it needs too long, so it is sent nothing more.

    `promised` is a job that is claimed for the child and not sent yet, or the lane of which it gets the next
    job; `is_promised_alone`: no other child may get a job meanwhile. `leaving` are the reasons why the child
    takes no more jobs. `ended_at` is when it ended its last job; the host's teardown may still run.
    `fork_at` is when the next child is forked, after one that did not become ready; else 0.
    `finished` and `failed` are the managed jobs that ended here.
    """

    number: int
    child: ChildProcess | None = None
    is_ready: bool = False
    sent: dict[Key, Sent] = field(default_factory=dict)
    load: int = 0
    owes_since: float = 0.0
    is_silent: bool = False
    promised: Key | LimitedLane | None = None
    leaving: list[LeaveReason] | None = None
    leaving_at: float = 0.0
    is_promised_alone: bool = False
    ended_at: float = 0.0
    fork_at: float = 0.0
    finished: int = 0
    failed: int = 0
    backoff: Backoff = field(default_factory=lambda: Backoff(shortest=0.1, longest=30.0))

    @property
    def is_idle(self) -> bool:
        """Return whether its child waits for a job."""
        return self._is_open and not self.owes_since and not self.is_busy

    @property
    def is_busy(self) -> bool:
        """Return whether its child has a job, or gets the one that is claimed for it."""
        return bool(self.sent) or self.promised is not None

    @property
    def takes_more(self) -> bool:
        """Return whether another order may be sent behind those that the child has."""
        return self._is_open and bool(self.sent) and self.load < MOST_AHEAD

    @property
    def _is_open(self) -> bool:
        """Return whether the child may be sent anything."""
        is_going = self.leaving is not None or self.child is None or self.child.is_killed
        return self.is_ready and not self.is_silent and not is_going

    @property
    def has_special(self) -> bool:
        """Return whether its child's only order is more than a reserved job, which others could have."""
        only = next(iter(self.sent.values())) if len(self.sent) == 1 else None
        return only is not None and (only.job is None or only.is_started)

    def add(self, sent: Sent) -> None:
        """Note that an order was sent."""
        if not self.owes_since:
            self.owes_since = max(sent.at, sent.begin_after)
        self.sent[sent.key] = sent
        self.load += sent.cost

    def remove(self, key: Key) -> Sent | None:
        """Note that an order has ended, or was taken back; None when it was not here."""
        sent = self.sent.pop(key, None)
        if sent is not None:
            self.load -= sent.cost
        return sent

    def hear(self, now: float) -> None:
        """Note that the child has come further."""
        self.owes_since = now if self.sent else 0.0
        self.is_silent = False

    def current(self) -> tuple[Sent | None, float | None]:
        """Return the order that the child runs and since when, or else the first that it has not begun."""
        if not self.sent or self.child is None:
            return None, None
        page = self.child.page.read()
        if page is not None and (running := self.sent.get(page[0])) is not None:
            return running, page[1]
        return next(iter(self.sent.values())), None

    def began(self, key: Key) -> float | None:
        """Return when its child began this order; None while it has not."""
        page = self.child.page.read() if self.child is not None else None
        return page[1] if page is not None and page[0] == key else None

    def forget_child(self) -> None:
        """Note that the child is gone, and everything that was sent to it."""
        self.child, self.is_ready, self.leaving = None, False, None
        self.sent, self.load = {}, 0
        self.owes_since, self.is_silent = 0.0, False

    def count(self, outcome: Outcome) -> None:
        """Count a managed job that has ended here."""
        if outcome.kind == "returned":
            self.finished += 1
        else:
            self.failed += 1

    def for_rq(self, begun_before: float) -> ShownPlace:
        """Return what RQ's records show of the place."""
        sent, began = self.current()
        job: PlainRun | JobOrder | None = sent.plain if sent is not None else None
        if sent is not None and sent.job is not None and began is not None and began < begun_before:
            job = sent.job.order
        return ShownPlace(self.is_busy, job, self.finished, self.failed)

    @property
    def is_alone(self) -> bool:
        """Return whether no other child may get a job now: this one may kill the worker."""
        if not self.sent:
            return self.promised is not None and self.is_promised_alone
        first = next(iter(self.sent.values()))
        if first.job is None or not first.job.must_be_alone:
            return False
        began = self.began(first.key)
        return began is None or steady_seconds() - began <= SHORT_SECONDS

    def in_teardown_since(self) -> float | None:
        """Return since when the host's teardown after the last job has been running; None when it is not."""
        page = self.child.page.read() if self.child is not None else None
        return None if page is None or page[0] in self.sent else self.ended_at


def outcome_of_death(
    sent: Sent, death: Death, log_tail: str | None, tasks: Mapping[str, TaskDeclaration]
) -> Outcome:
    """Return the outcome of a managed job whose child ended in the middle of it."""
    outcome = _outcome(sent, death, tasks)
    told = sent.progress
    progress = None if told is None else (told.done, told.total, told.note)
    return replace(outcome, log_tail=log_tail, progress=progress, max_rss_kb=death.max_rss_kb)


def _outcome(sent: Sent, death: Death, tasks: Mapping[str, TaskDeclaration]) -> Outcome:
    why, words, facts = sent.why_killed, death.words, death.facts
    if why == LOST:
        return Outcome(kind="lost", error=f"its process was killed: {LOST}")
    if why == CANCELED:
        reason = "stopped while it ran"
        outcome = Outcome(kind="canceled", reason=reason, error=reason, cause_of_death=words)
        return replace(outcome, death="stopped", death_facts=facts | {"by": "an operator"})
    assert sent.job is not None
    order = sent.job.order
    delay = backoff_seconds(tasks.get(order.task), order.attempt)
    if why == "timed_out":
        error = f"ran longer than {order.timeout_seconds} s and its time limit could not stop it"
        cause, kind, word = f"time-out, {words}", "timed_out", "timed_out"
        facts = facts | {"limit_seconds": order.timeout_seconds}
    else:
        known = why or ("out of memory" if death.is_out_of_memory else None)
        error, kind = f"its process died: {words}", "died"
        cause = f"{known}, {words}" if known else words
        word = "stopped" if why else death.cause
        facts = facts | {"by": why} if why else facts
    return Outcome(
        kind,
        error,
        delay_seconds=delay,
        cause_of_death=cause,
        death=word,
        death_facts=facts,
        failure_key=key_of_end(order.task, kind, word),
    )

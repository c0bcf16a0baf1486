"""Decides how many jobs a worker takes ahead of its children, and keeps those that wait, in order. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from .frames import JobOrder, Key

# Reserved arguments are bounded in bytes too; one job is always allowed.
MOST_BYTES = 4_000_000
# A worker holds at most so many jobs that it took and whose end is not written yet.
MOST_HELD = 800
# The mean run time rises fast and falls slowly: a median would hide the one long job in twenty.
_RISE, _FALL = 0.2, 0.05
# A mean below this is no more than the cost of a job itself; with a process per job, of a fork.
SHORTEST_SECONDS = 20e-6
FRESH_SECONDS = 0.01
# Jobs that begin within this are taken ahead at once, and are sent ahead to a child that runs another one.
SOON_SECONDS = 0.01
# A child that runs its job for longer than this, and than so many times its mean, is stuck in it.
STUCK_SECONDS = 0.02
_LATE_MEANS = 2.0


Rank = tuple[int, int, float, int, int]


@dataclass(slots=True)
class ReservedJob:
    """A job that this worker has taken. `place` is its queue's place among those the worker was given.

    `must_be_alone`: a worker died with it before, so all outcomes and its own start are written before it
    is sent, and no other child gets a job until it has been running for a moment.
    """

    order: JobOrder
    place: int
    priority: int
    due_at: float
    must_be_alone: bool = False

    @property
    def key(self) -> Key:
        """Return the delivery: (job id, dispatch number)."""
        return self.order.id, self.order.dispatch_no

    @property
    def size(self) -> int:
        """Return the bytes of its arguments, about."""
        return len(self.order.args)

    @property
    def rank(self) -> Rank:
        """Return what orders it among the jobs that wait."""
        return self.place, self.priority, self.due_at, *self.key


@dataclass
class WaitingJobs:
    """The jobs that wait in the parent. An urgent one passes those that came before it."""

    _heap: list[tuple[Rank, ReservedJob]] = field(default_factory=list)
    bytes: int = 0

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[ReservedJob]:
        """Yield them, in no order."""
        return (job for _, job in self._heap)

    def add(self, job: ReservedJob) -> None:
        """Let a job wait."""
        heapq.heappush(self._heap, (job.rank, job))
        self.bytes += job.size

    @property
    def first(self) -> ReservedJob:
        """Return the first job."""
        return self._heap[0][1]

    def pop(self) -> ReservedJob:
        """Return the first job, which waits no more."""
        _, job = heapq.heappop(self._heap)
        self.bytes -= job.size
        return job

    def take_out(self, keys: set[Key] | None = None) -> list[ReservedJob]:
        """Return the waiting jobs among these, or all: they wait no more."""
        out = [job for job in self if keys is None or job.key in keys]
        gone = {job.key for job in out}
        self._heap = [entry for entry in self._heap if entry[1].key not in gone]
        heapq.heapify(self._heap)
        self.bytes -= sum(job.size for job in out)
        return out

    def take_out_of(self, queues: Sequence[str], tasks: Sequence[str]) -> list[ReservedJob]:
        """Return the waiting jobs of these queues and tasks: they wait no more."""
        wanted = {job.key for job in self if job.order.queue in queues or job.order.task in tasks}
        return self.take_out(wanted)


class RunTimes:
    """The mean run times of the last jobs, by task, by queue, and of all."""

    def __init__(self) -> None:
        self._of_task: dict[str, float] = {}
        self._of_queue: dict[str, float] = {}
        self.mean: float | None = None

    def note(self, task: str, queue: str, seconds: float) -> None:
        """Note how long a job ran; plain RQ jobs are one task without a name."""
        self._of_task[task] = _moved(self._of_task.get(task), seconds)
        self._of_queue[queue] = _moved(self._of_queue.get(queue), seconds)
        self.mean = _moved(self.mean, seconds)

    def expected(self, task: str, queue: str) -> float | None:
        """Return the mean of a task; while it is unknown, that of its queue; None when both are."""
        return self._of_task.get(task, self._of_queue.get(queue))

    def is_over(self, order: JobOrder | None, seconds: float, least: float) -> bool:
        """Return whether a child needs `seconds` for this job, over `least` and over twice what is expected.

        Of a plain RQ job, None, nothing is known.
        """
        expected = (order and self.expected(order.task, order.queue)) or 0.0
        return seconds > max(least, _LATE_MEANS * expected)


def _moved(mean: float | None, seconds: float) -> float:
    if mean is None:
        return seconds
    return mean + (seconds - mean) * (_RISE if seconds > mean else _FALL)


@dataclass(frozen=True)
class ReserveBudget:
    """How much a worker takes ahead: `seconds` of expected work for each child, at most `most` jobs.

    A job counts with at least `least_seconds`: what a child costs that performs only one.
    """

    children: int
    seconds: float
    most: int
    least_seconds: float = SHORTEST_SECONDS

    def size(self, mean: float | None) -> int:
        """Return how many jobs the worker may have in hand, running ones included.

        >>> ReserveBudget(children=2, seconds=0.1, most=400).size(0.05)
        6
        >>> ReserveBudget(children=2, seconds=0.1, most=400).size(None)
        2
        """
        if mean is None:
            return min(self.most, self.children)
        ahead = self.children * self.seconds / max(mean, self.least_seconds)
        return max(self.children, min(self.most, self.children + int(ahead)))

    def runs_soon(self, mean: float | None) -> int:
        """Return how many jobs the children run in `SOON_SECONDS`.

        >>> ReserveBudget(children=2, seconds=0.1, most=400).runs_soon(0.001)
        20
        """
        return (
            0 if mean is None else int(self.children * SOON_SECONDS / max(mean, self.least_seconds))
        )

    def missing(self, in_hand: int, waiting: int, idle: int, mean: float | None) -> int:
        """Return how many jobs to take now: up to the size, when half of it is used or a child has none."""
        size = self.size(mean)
        if in_hand * 2 <= size or waiting < idle:
            return max(0, size - in_hand)
        return 0

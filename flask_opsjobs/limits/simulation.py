"""Simulates a limiter with simulated time. The function that admits real jobs decides every start."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from .bucket import CONCURRENCY, Admission, BucketLevel, Shape, admit, settle

_START = datetime(2000, 1, 1, tzinfo=UTC)
# With longer times, a float cannot add one microsecond any more, and simulated time would stand still.
_LONGEST_SECONDS = 100 * 366 * 86_400


class TooLong(ValueError):
    """The last job would start in more than a hundred years; the message is a sentence."""

    def __init__(self) -> None:
        super().__init__(
            "the last job would start in more than 100 years: try fewer jobs, or a higher limit"
        )


@dataclass(frozen=True)
class SimulatedJob:
    """A job of a simulation: after how many seconds it is due, and its weight."""

    arrives: float
    weight: int = 1


@dataclass(frozen=True)
class Simulated:
    """The result of a simulation.

    `starts` and `waits` are in seconds, one per job that started, in their order. `never` counts jobs that
    can never start. `blocked` holds how long the first waiting job waited for each reason: a code of
    `bucket`, or `no_worker`.
    """

    starts: Sequence[float]
    waits: Sequence[float]
    never: int
    ended: float
    most_at_once: int
    blocked: dict[str, float]


NO_WORKER = "no_worker"


def simulate(
    shape: Shape,
    jobs: Sequence[SimulatedJob],
    *,
    run_seconds: float,
    workers: int | None = None,
    standing: BucketLevel | None = None,
    now: datetime = _START,
) -> Simulated:
    """Start the jobs from one bucket in the order of arrival; each runs for `run_seconds` on one of `workers`.

    The simulation steps from event to event: an arrival, an end, a token. `standing` is the bucket at the
    beginning:
    its queued jobs count as started, and all its leases end `run_seconds` after `now`. Raises `TooLong`.
    """
    return _Run(shape, run_seconds, workers, standing or BucketLevel(), now).all_of(jobs)


class _Run:
    def __init__(
        self,
        shape: Shape,
        run_seconds: float,
        workers: int | None,
        standing: BucketLevel,
        now: datetime,
    ) -> None:
        self._shape, self._run, self._workers, self._epoch = shape, run_seconds, workers, now
        self._standing = settle(shape, standing, now)
        # A heap of (end, weight) of the running jobs, the first end first.
        self._running: list[tuple[float, int]] = []
        if self._standing.in_use:
            heapq.heappush(self._running, (run_seconds, self._standing.in_use))
        self._blocked: dict[str, float] = {}

    def all_of(self, jobs: Sequence[SimulatedJob]) -> Simulated:
        starts, waits, never, most, clock, ended = [], [], 0, 0, 0.0, 0.0
        for job in sorted(jobs, key=lambda job: job.arrives):
            if self._shape.most is not None and job.weight > self._shape.most:
                never += 1
                continue
            clock = self._start(job, max(clock, job.arrives))
            starts.append(clock)
            waits.append(clock - job.arrives)
            ended = max(ended, clock + self._run)
            most = max(most, len(self._running))
        return Simulated(starts, waits, never, ended, most, self._blocked)

    def _start(self, job: SimulatedJob, clock: float) -> float:
        """Move the clock until the job is admitted, and start it; returns the time of the start."""
        while True:
            self._end_until(clock)
            if self._workers is not None and len(self._running) >= self._workers:
                clock = self._wait(NO_WORKER, clock, self._running[0][0])
                continue
            now = self._at(clock)
            verdict = self._ask(job, now)
            if verdict.is_admitted:
                # A job that takes a token early starts when the token comes.
                return self._take(job, clock + verdict.wait_seconds, verdict.tokens, now)
            block = verdict.blocks[0]
            if block.code == CONCURRENCY:
                clock = self._wait(block.code, clock, self._running[0][0])
            else:
                assert block.until is not None  # `all_of` skips jobs that are too heavy
                until = (block.until - self._epoch).total_seconds()
                # Times are whole microseconds: add at least one, so that time moves on.
                clock = self._wait(block.code, clock, max(until, clock + 1e-6))

    def _ask(self, job: SimulatedJob, now: datetime) -> Admission:
        try:
            return admit(self._shape, self._standing, job.weight, now)
        except OverflowError as error:  # the token would come after the last year of `datetime`
            raise TooLong from error

    def _take(self, job: SimulatedJob, clock: float, tokens: float | None, now: datetime) -> float:
        in_use = self._standing.in_use + job.weight
        refilled_at = None if tokens is None else now
        self._standing = replace(
            self._standing, tokens=tokens, refilled_at=refilled_at, in_use=in_use
        )
        heapq.heappush(self._running, (clock + self._run, job.weight))
        return clock

    def _end_until(self, clock: float) -> None:
        while self._running and self._running[0][0] <= clock:
            _, weight = heapq.heappop(self._running)
            self._standing = replace(self._standing, in_use=self._standing.in_use - weight)

    def _wait(self, code: str, clock: float, until: float) -> float:
        if not until <= _LONGEST_SECONDS:
            raise TooLong
        self._blocked[code] = self._blocked.get(code, 0.0) + until - clock
        return until

    def _at(self, clock: float) -> datetime:
        return self._epoch + timedelta(seconds=clock)

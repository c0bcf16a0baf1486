"""Simulates a limiter with simulated time: a trial of a changed limit, a trace of arrivals, and the outcome.

The function that admits real jobs decides every start.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from ..core.round_trips import start_reading
from . import queries, stored_buckets
from .bucket import CONCURRENCY, Admission, BucketLevel, Shape, admit, settle
from .limit import Limit
from .queries import LimiterRow

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
    can never start. `blocked` holds, for each reason, how long the next job in line waited, added up over
    all jobs. A reason is a code of `bucket`, or `no_worker`.
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
    level: BucketLevel | None = None,
    now: datetime = _START,
) -> Simulated:
    """Start the jobs from one bucket in order of arrival; each runs for `run_seconds` on one of `workers`.

    The simulation steps from event to event: an arrival, an end, a token. `level` is the bucket at the
    beginning:
    its queued jobs count as started, and all its leases end `run_seconds` after `now`. Raises `TooLong`.
    """
    return _Run(shape, run_seconds, workers, level or BucketLevel(), now).all_of(jobs)


class _Run:
    def __init__(
        self,
        shape: Shape,
        run_seconds: float,
        workers: int | None,
        level: BucketLevel,
        now: datetime,
    ) -> None:
        self._shape, self._run, self._workers, self._epoch = shape, run_seconds, workers, now
        self._level = settle(shape, level, now)
        # A heap of (end, weight) of the running jobs, the first end first.
        self._running: list[tuple[float, int]] = []
        if self._level.in_use:
            heapq.heappush(self._running, (run_seconds, self._level.in_use))
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
            return admit(self._shape, self._level, job.weight, now)
        except OverflowError as error:  # the token would come after the last year of `datetime`
            raise TooLong from error

    def _take(self, job: SimulatedJob, clock: float, tokens: float | None, now: datetime) -> float:
        in_use = self._level.in_use + job.weight
        refilled_at = None if tokens is None else now
        self._level = replace(self._level, tokens=tokens, refilled_at=refilled_at, in_use=in_use)
        heapq.heappush(self._running, (clock + self._run, job.weight))
        return clock

    def _end_until(self, clock: float) -> None:
        while self._running and self._running[0][0] <= clock:
            _, weight = heapq.heappop(self._running)
            self._level = replace(self._level, in_use=self._level.in_use - weight)

    def _wait(self, code: str, clock: float, until: float) -> float:
        if not until <= _LONGEST_SECONDS:
            raise TooLong
        self._blocked[code] = self._blocked.get(code, 0.0) + until - clock
        return until

    def _at(self, clock: float) -> datetime:
        return self._epoch + timedelta(seconds=clock)


@dataclass(frozen=True)
class TrialOutcome:
    """The result of a trial, in seconds from its beginning or of waiting; None where no job starts.

    `never` counts the jobs that are too heavy to start. `half` is the time when half of the others have
    started.
    `blocked` holds, by code, how long the next job in line was blocked, added up over all jobs; the longest
    time comes first.
    """

    starts: Sequence[float]
    never: int
    first: float | None
    half: float | None
    last: float | None
    ended: float
    most_at_once: int
    wait_median: float | None
    wait_p95: float | None
    wait_most: float | None
    blocked: Sequence[tuple[str, float]]

    @property
    def started(self) -> int:
        """The number of jobs that start."""
        return len(self.starts)


def make_outcome(found: Simulated) -> TrialOutcome:
    """The numbers of a simulation."""
    starts, waits = sorted(found.starts), sorted(found.waits)
    return TrialOutcome(
        starts=starts,
        never=found.never,
        first=starts[0] if starts else None,
        half=_percentile(starts, 50),
        last=starts[-1] if starts else None,
        ended=found.ended,
        most_at_once=found.most_at_once,
        wait_median=_percentile(waits, 50),
        wait_p95=_percentile(waits, 95),
        wait_most=_percentile(waits, 100),
        blocked=sorted(found.blocked.items(), key=lambda pair: -pair[1]),
    )


def _percentile(values: Sequence[float], percent: int) -> float | None:
    """The smallest of the sorted values that `percent` of them do not exceed; None without values."""
    return values[-(-len(values) * percent // 100) - 1] if values else None


MOST_WAITING = 10_000


@dataclass(frozen=True)
class LimitChange:
    """The changes of a limit to try; None keeps the declared value."""

    rate: float | None = None
    per: float | None = None
    burst: int | None = None
    concurrency: int | None = None


@dataclass(frozen=True)
class Live:
    """The state of a real bucket at `now`, and the jobs that waited for it, the next one first."""

    level: BucketLevel
    waiting: Sequence[SimulatedJob]
    now: datetime


@dataclass(frozen=True)
class Trial:
    """The jobs that arrive, after those that wait in `live`.

    Each runs for `run_seconds` on one of `workers`.
    """

    jobs: Sequence[SimulatedJob]
    run_seconds: float
    workers: int | None = None
    live: Live | None = None

    def under(self, shape: Shape) -> TrialOutcome:
        """The outcome of the trial with a limiter of this shape. Raises `TooLong`."""
        begin: dict[str, Any] = {"run_seconds": self.run_seconds, "workers": self.workers}
        if self.live is None:
            return make_outcome(simulate(shape, self.jobs, **begin))
        begin |= {"level": self.live.level, "now": self.live.now}
        return make_outcome(simulate(shape, [*self.live.waiting, *self.jobs], **begin))


def change_limit(declared: Limit | None, change: LimitChange, name: str) -> Limit:
    """The declared limit with this change; without a declared limit, a new limit called `name`.

    Checks it like a declaration: raises `BadLimit`.
    """
    tried = {what: value for what, value in asdict(change).items() if value is not None}
    kept: dict[str, Any] = {}
    if declared is not None:
        kept = {what: getattr(declared, what) for what in asdict(change)}
        if change.rate is not None:
            # The declared burst belongs to the declared rate: a new rate gets its default burst.
            kept["burst"] = None
    return Limit(
        declared.name if declared else name, **{**kept, **tried}, weight=weight_of(declared)
    )


def weight_of(declared: Limit | None) -> int:
    """The declared weight of a job; 1 when the weight depends on the job's arguments."""
    return declared.weight if declared is not None and isinstance(declared.weight, int) else 1


def limit_of(row: LimiterRow) -> Limit:
    """The limit of the limiter's last declaration, without partition and weight."""
    shape = row.shape
    return Limit(
        row.name,
        rate=shape.rate,
        per=shape.per_seconds,
        burst=shape.burst,
        concurrency=shape.concurrency,
    )


def read_live(session: Session, limiter: str, partition: str, most: int = MOST_WAITING) -> Live:
    """The state of a bucket and its waiting jobs, at most `most`."""
    waiting = start_reading(session, queries.list_waiters, limiter, partition, most)
    seen = stored_buckets.get_bucket(session.connection(), limiter, partition)
    jobs = [SimulatedJob(0.0, waiter.weight) for waiter in waiting.value]
    return Live(seen.level, jobs, seen.now)


MOST_JOBS = 1_000_000


class BadTrace(ValueError):
    """A line of a trace cannot be read; the message has its number."""


def read_trace(lines: Iterable[str]) -> list[SimulatedJob]:
    """The jobs of a trace. Ignores empty lines, and text after a `#`. Raises `BadTrace`."""
    jobs: list[SimulatedJob] = []
    for number, line in enumerate(lines, 1):
        fields = line.partition("#")[0].split()
        if not fields:
            continue
        if len(jobs) >= MOST_JOBS:
            raise BadTrace(f"line {number}: a trace has at most {MOST_JOBS:,} jobs")
        jobs.append(_job(number, fields))
    return jobs


def _job(number: int, fields: list[str]) -> SimulatedJob:
    try:
        arrives, weight = float(fields[0]), int(fields[1]) if len(fields) > 1 else 1
    except ValueError:
        arrives, weight = math.nan, 0
    if len(fields) > 2 or not 0 <= arrives <= 1e9 or not 1 <= weight < 2**31:
        text = " ".join(fields)[:40]
        raise BadTrace(
            f"line {number}: {text!r} is not an arrival: "
            "write the seconds since the start, and a weight if it is not 1"
        )
    return SimulatedJob(arrives, weight)

"""Declares a trial of a limiter: the limit that is tried, the jobs that arrive, and the bucket at their arrival."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from . import page_queries, queries
from .bucket import BucketLevel, Shape
from .limit import Limit
from .outcome import TrialOutcome, make_outcome
from .page_queries import LimiterRow
from .simulation import SimulatedJob, simulate

MOST_WAITING = 10_000


@dataclass(frozen=True)
class LimitChange:
    """What of a limit is tried otherwise; None leaves it."""

    rate: float | None = None
    per: float | None = None
    burst: int | None = None
    concurrency: int | None = None


@dataclass(frozen=True)
class Live:
    """What stood in a bucket at `now`, and the jobs that waited for it, the next one first."""

    standing: BucketLevel
    waiting: Sequence[SimulatedJob]
    now: datetime


@dataclass(frozen=True)
class Trial:
    """The jobs that come, in their order behind what waits in `live`; each runs for so long, on so many workers."""

    jobs: Sequence[SimulatedJob]
    run_seconds: float
    workers: int | None = None
    live: Live | None = None

    def under(self, shape: Shape) -> TrialOutcome:
        """What becomes of them under a limiter of this shape. Raises `TooLong`."""
        begin: dict[str, Any] = {"run_seconds": self.run_seconds, "workers": self.workers}
        if self.live is None:
            return make_outcome(simulate(shape, self.jobs, **begin))
        begin |= {"standing": self.live.standing, "now": self.live.now}
        return make_outcome(simulate(shape, [*self.live.waiting, *self.jobs], **begin))


def change_limit(declared: Limit | None, change: LimitChange, name: str) -> Limit:
    """The declared limit with that change, checked as a declaration is; one of this `name` where none is declared.

    Raises `BadLimit`.
    """
    tried = {what: value for what, value in asdict(change).items() if value is not None}
    kept: dict[str, Any] = {}
    if declared is not None:
        kept = {what: getattr(declared, what) for what in asdict(change)}
        if change.rate is not None:
            # The burst of another rate says nothing about this one.
            kept["burst"] = None
    return Limit(
        declared.name if declared else name, **{**kept, **tried}, weight=weight_of(declared)
    )


def weight_of(declared: Limit | None) -> int:
    """What a job weighs as far as the declaration says it; 1 where its arguments do."""
    return declared.weight if declared is not None and isinstance(declared.weight, int) else 1


def limit_of(row: LimiterRow) -> Limit:
    """A limiter as it was declared last, for jobs of any weight."""
    shape = row.shape
    return Limit(
        row.name,
        rate=shape.rate,
        per=shape.per_seconds,
        burst=shape.burst,
        concurrency=shape.concurrency,
    )


def read_live(session: Session, limiter: str, partition: str, most: int = MOST_WAITING) -> Live:
    """What stands in a bucket and what waits there, so many jobs at most."""
    seen = queries.get_bucket(session.connection(), limiter, partition)
    waiters = page_queries.list_waiters(session, limiter, partition, most)
    return Live(seen.standing, [SimulatedJob(0.0, waiter.weight) for waiter in waiters], seen.now)

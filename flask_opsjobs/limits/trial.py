"""Declares a trial of a limiter: the limit to try, the jobs that arrive, and the bucket at the beginning."""

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
    """The changes of a limit to try; None keeps the declared value."""

    rate: float | None = None
    per: float | None = None
    burst: int | None = None
    concurrency: int | None = None


@dataclass(frozen=True)
class Live:
    """The state of a real bucket at `now`, and the jobs that waited for it, the next one first."""

    standing: BucketLevel
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
        begin |= {"standing": self.live.standing, "now": self.live.now}
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
    seen = queries.get_bucket(session.connection(), limiter, partition)
    waiters = page_queries.list_waiters(session, limiter, partition, most)
    return Live(seen.standing, [SimulatedJob(0.0, waiter.weight) for waiter in waiters], seen.now)

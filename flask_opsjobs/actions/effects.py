"""Declares what an action does outside Postgres after its commit, as values. `Operator` runs them.

If an effect fails, a loop or a worker's heartbeat does the same later; only RQ is not asked a second time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar


@dataclass(frozen=True)
class Dispatch:
    """Dispatch the lanes, given as (lane, queue), in which jobs became due."""

    lanes: tuple[tuple[str, str], ...]
    otherwise: ClassVar = "the dispatch loop dispatches what is due"


@dataclass(frozen=True)
class Recall:
    """Recall the deliveries of a paused queue, or of a paused task, from Redis."""

    queue: str | None = None
    task: str | None = None
    otherwise: ClassVar = "the recall loop recalls its deliveries"


@dataclass(frozen=True)
class Resync:
    """Compare a queue with Redis: recall what is lost, remove orphan deliveries, dispatch what is due."""

    queue: str
    otherwise: ClassVar = "the recall loop and the dispatch loop repair it"


@dataclass(frozen=True)
class Forget:
    """Remove the deliveries (queue, id, dispatch_no) of jobs that ended while they waited for a worker."""

    deliveries: tuple[tuple[str, int, int], ...]
    otherwise: ClassVar = "a worker that takes such a delivery refuses it"


@dataclass(frozen=True)
class AnnounceStop:
    """Ask a worker on the Redis of `queue` to look now which of its jobs shall stop."""

    queue: str
    worker: str
    otherwise: ClassVar = "the worker stops it at its next heartbeat"


@dataclass(frozen=True)
class AnnounceDrain:
    """Ask a worker on the Redis of `queue` to look now whether somebody asked it to leave."""

    queue: str
    worker: str
    otherwise: ClassVar = "the worker reads it with its next heartbeat"


@dataclass(frozen=True)
class StopWorker:
    """Ask a worker on the Redis of `queue` to stop, and to kill what still runs after `grace` seconds.

    Without a grace RQ's own command is sent, for a plain RQ worker: it ends its job first.
    """

    queue: str
    worker: str
    grace: int | None
    otherwise: ClassVar = "one of ours ends its jobs first, a plain RQ worker goes on: ask again"


@dataclass(frozen=True)
class Advance:
    """Advance these runs of workflows, and dispatch the steps that it releases."""

    runs: tuple[int, ...]
    otherwise: ClassVar = "the advance loop advances it"


@dataclass(frozen=True)
class Fold:
    """Fold these batches: count ends, stop members of canceled ones, and end those that are complete."""

    batches: tuple[int, ...]
    otherwise: ClassVar = "the fold loop folds it"


@dataclass(frozen=True)
class AnnounceResolved:
    """Log that these incidents were resolved, and send the signal `incident_resolved`."""

    incidents: tuple[int, ...]
    otherwise: ClassVar = "your application is not told"


@dataclass(frozen=True)
class AskRq:
    """Ask RQ to retry, cancel, discard or delete (`what`) a plain job. No loop repeats it.

    `place` names its Redis. `created_at` tells it from other jobs that had or get the same id.
    """

    what: str
    job: int
    place: str
    queue: str
    rq_id: str
    created_at: datetime | None
    otherwise: ClassVar = "RQ was perhaps not asked: see what becomes of the job, and ask again"


# Each effect has `otherwise`: what happens instead when it fails, for the receipt.
Effect = (
    Dispatch
    | Recall
    | Resync
    | Forget
    | AnnounceStop
    | AnnounceDrain
    | StopWorker
    | Advance
    | Fold
    | AnnounceResolved
    | AskRq
)

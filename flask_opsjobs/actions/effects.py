"""Declares what an action does in Redis after its commit, as values. `Operator` runs them.

If an effect fails, a loop or a worker's heartbeat does the same later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Dispatch:
    """Dispatch the lanes, given as (lane, queue), in which jobs became due."""

    lanes: tuple[tuple[str, str], ...]
    otherwise: ClassVar = "the dispatch loop dispatches what is due"


@dataclass(frozen=True)
class Recall:
    """Recall the deliveries of a paused queue from Redis."""

    queue: str
    otherwise: ClassVar = "the recall loop recalls its deliveries"


@dataclass(frozen=True)
class Forget:
    """Remove the deliveries (queue, id, dispatch_no) of jobs that ended while they waited for a worker."""

    deliveries: tuple[tuple[str, int, int], ...]
    otherwise: ClassVar = "a worker that takes such a delivery refuses it"


@dataclass(frozen=True)
class RequestHeartbeat:
    """Ask a worker on the Redis of `queue` to send a heartbeat now, which tells it which job to stop."""

    queue: str
    worker: str
    otherwise: ClassVar = "the worker stops it at its next heartbeat"


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


# Each effect has `otherwise`: what happens instead when it fails, for the receipt.
Effect = Dispatch | Recall | Forget | RequestHeartbeat | Advance | Fold

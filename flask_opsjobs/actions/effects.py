"""Lists what must happen outside Postgres once an action is committed, as values; the operator runs them.

None of them is needed for the outcome: what fails here, the loops and the workers' heartbeats mend.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Dispatch:
    """Dispatch lanes, each with its queue, on which jobs became due."""

    lanes: tuple[tuple[str, str], ...]
    otherwise: ClassVar = "the dispatch loop dispatches what is due"


@dataclass(frozen=True)
class Recall:
    """Recall what lies in Redis of a paused queue."""

    queue: str
    otherwise: ClassVar = "the recall loop recalls what is there"


@dataclass(frozen=True)
class Forget:
    """Remove the deliveries (queue, id, dispatch_no) of jobs that ended while they waited for a worker."""

    deliveries: tuple[tuple[str, int, int], ...]
    otherwise: ClassVar = "what lies there is refused by the worker that meets it"


@dataclass(frozen=True)
class RequestBeat:
    """Ask a worker on the Redis of `queue` to send a heartbeat now: it then sees which job shall stop."""

    queue: str
    worker: str
    otherwise: ClassVar = "the worker stops it at its next heartbeat"


# Each has `otherwise`: what is true when it fails, for the receipt.
Effect = Dispatch | Recall | Forget | RequestBeat

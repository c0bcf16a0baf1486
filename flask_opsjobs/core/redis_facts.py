"""What was read of Redis, as plain values: the engine fills them, explain and the detectors judge them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

# In the intermediate list a delivery waits for its worker's claim, milliseconds. A worker that died there never comes
# back for it, and nothing says so: it counts as lost after so many times the usual grace.
PARKED_GRACES = 6


@dataclass(frozen=True)
class RedisFacts:
    """Where one job's delivery stands in Redis, read at `read_at`.

    `said` is why Redis could not be asked, None when it answered; the rest then means nothing. `position` counts from 0
    at the head of the list; None when the delivery is not in it. `queue_length` includes plain jobs. With
    `is_suspended` somebody told all workers of this Redis, by RQ's own flag, to take nothing.
    """

    read_at: datetime
    said: str | None = None
    queue_length: int = 0
    position: int | None = None
    is_intermediate: bool = False
    is_running: bool = False
    rq_status: str | None = None
    is_suspended: bool = False

    @property
    def is_reachable(self) -> bool:
        """Whether Redis answered."""
        return self.said is None

    @property
    def is_there(self) -> bool:
        """Whether the delivery was seen anywhere in Redis where RQ would find it."""
        return self.position is not None or self.is_intermediate or self.is_running

    @property
    def is_parked(self) -> bool:
        """Whether it was seen only where it lies between a worker's pop and that worker's claim."""
        return self.is_intermediate and self.position is None and not self.is_running


@dataclass(frozen=True)
class SilentRedis:
    """A Redis that does not answer, and which of the queues that were asked about live there.

    `since` is when this process first saw it silent, `answered_at` its last answer: it fell silent in between.
    """

    queues: tuple[str, ...]
    since: datetime
    answered_at: datetime | None


@dataclass(frozen=True)
class PlainJob:
    """An RQ job that host code enqueued itself. `function` is what it calls by RQ's description, without arguments."""

    rq_id: str
    queue: str
    status: str
    function: str | None
    moment: datetime | None


@dataclass(frozen=True)
class PlainJobs:
    """The plain jobs in RQ, read at `read_at`: how many, by RQ's word, and a few, the failed ones first.

    `said` is why Redis could not be asked. `silent` are the queues whose Redis did not answer while another one did.
    With `is_cut` there are more: only so many of each registry were read. With `is_suspended` somebody told all workers
    of a Redis, by RQ's own flag, to take nothing.
    """

    read_at: datetime
    said: str | None = None
    by_status: Mapping[str, int] = field(default_factory=dict)
    is_cut: bool = False
    examples: Sequence[PlainJob] = ()
    is_suspended: bool = False
    silent: Sequence[str] = ()

    @property
    def number(self) -> int:
        """All of them together."""
        return sum(self.by_status.values())

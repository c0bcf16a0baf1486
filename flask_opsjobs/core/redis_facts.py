"""Holds what the engine read from Redis, as plain values for `explain`, the overview and the loops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

# A delivery waits in the intermediate list for its worker's claim, usually for milliseconds. When the worker
# dies, the delivery stays there and nothing reports it: it counts as lost after this many times the usual
# grace.
PARKED_GRACES = 6


@dataclass(frozen=True)
class RedisFacts:
    """Where one job's delivery is in Redis, read at `read_at`.

    `problem` is why Redis could not be read, and then the other values mean nothing; None when it answered.
    `position` counts from 0 at the head of the list; None when the delivery is not in it. `queue_length`
    includes plain jobs. `is_suspended`: somebody suspended all workers of this Redis with RQ's own flag.
    """

    read_at: datetime
    problem: str | None = None
    queue_length: int = 0
    position: int | None = None
    is_intermediate: bool = False
    is_running: bool = False
    rq_status: str | None = None
    is_suspended: bool = False

    @property
    def is_reachable(self) -> bool:
        """Whether Redis answered."""
        return self.problem is None

    @property
    def is_there(self) -> bool:
        """Whether the delivery was found in any place where RQ looks for it."""
        return self.position is not None or self.is_intermediate or self.is_running

    @property
    def is_parked(self) -> bool:
        """Whether it was found only in the intermediate list: popped by a worker, and not yet claimed."""
        return self.is_intermediate and self.position is None and not self.is_running


@dataclass(frozen=True)
class DeliveryPlace:
    """Where a delivery was, with the dispatch number that was looked for.

    `place` is `listed`, `parked` (popped by a worker, and not yet claimed), `running`, `held` (a worker's
    heartbeat names it), `nowhere`, or `unknown`, because its Redis did not answer. A delivery that was looked
    for without its job may also be `kept`: only RQ's record of it is left. Redis names its `queue` then.
    """

    dispatch_no: int
    place: str
    queue: str | None = None


@dataclass(frozen=True)
class QueueInRedis:
    """How a queue and its list in Redis differ: what `queue.resync` would repair.

    `lost`: queued jobs whose deliveries are nowhere, of `queued` in all that no worker has reserved.
    `orphans`: deliveries in Redis that no job needs. `due`: lanes with due jobs. `is_cut`: the list was too
    long to be read whole. None of it is known while `is_silent`: its Redis did not answer.
    """

    queued: int = 0
    lost: int = 0
    orphans: int = 0
    due: int = 0
    is_silent: bool = False


@dataclass(frozen=True)
class UnreachableRedis:
    """A Redis that does not answer, and the queues in question that it holds.

    `place` is its name in incidents. `answered_at` is its last answer, `since` when this process first got
    none: it stopped in between.
    """

    place: str
    queues: tuple[str, ...]
    since: datetime
    answered_at: datetime | None


@dataclass(frozen=True)
class PlainJob:
    """An RQ job that host code enqueued itself.

    `function` is its function in RQ's description, without arguments.
    """

    rq_id: str
    queue: str
    status: str
    function: str | None
    moment: datetime | None


@dataclass(frozen=True)
class PlainJobs:
    """The plain jobs in RQ, read at `read_at`: how many by RQ's status, and examples, failed ones first.

    `unreachable` are the queues whose Redis did not answer. `problem` is why no Redis could be read, and
    then the numbers mean nothing. `is_cut`: there are more, since only the first jobs of each registry were
    read. `is_suspended`: somebody suspended all workers of a Redis with RQ's own flag.
    """

    read_at: datetime
    problem: str | None = None
    by_status: Mapping[str, int] = field(default_factory=dict)
    is_cut: bool = False
    examples: Sequence[PlainJob] = ()
    is_suspended: bool = False
    unreachable: Sequence[str] = ()

    @property
    def number(self) -> int:
        """How many plain jobs there are in all statuses together."""
        return sum(self.by_status.values())

"""What was read of Redis, as plain values: the engine fills them, explain and the detectors judge them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class RedisFacts:
    """Where one job's delivery stands in Redis, read at `read_at`.

    `said` is why Redis could not be asked, None when it answered; the rest then means nothing. `position` counts from 0
    at the head of the list; None when the delivery is not in it. `queue_length` includes what is not ours.
    """

    read_at: datetime
    said: str | None = None
    queue_length: int = 0
    position: int | None = None
    is_intermediate: bool = False
    is_running: bool = False
    rq_status: str | None = None

    @property
    def is_reachable(self) -> bool:
        """Whether Redis answered."""
        return self.said is None

    @property
    def is_there(self) -> bool:
        """Whether the delivery was seen anywhere in Redis where RQ would find it."""
        return self.position is not None or self.is_intermediate or self.is_running

"""Writes a job's lane as text: `queue`, or `queue|limiter|partition`.

Names of queues and limiters have no bar.
"""

from __future__ import annotations

from typing import NamedTuple

_BAR = "|"


class LimitPlace(NamedTuple):
    """The place of a job in its limit: the limiter, the partition ('' without one) and the job's weight."""

    limiter: str
    partition: str
    weight: int


def lane_of(queue: str, place: LimitPlace | None) -> str:
    """The lane of a job in this queue."""
    return queue if place is None else _BAR.join((queue, place.limiter, place.partition))


def bucket_of(lane: str) -> tuple[str, str] | None:
    """The limiter and partition of the bucket that limits a lane; None for a lane without a limit."""
    parts = lane.split(_BAR, 2)
    return (parts[1], parts[2]) if len(parts) == 3 else None

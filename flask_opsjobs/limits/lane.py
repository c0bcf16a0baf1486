"""Writes a job's lane as text: `queue`, or `queue|limiter|partition`; queues and limiters may not hold the bar."""

from __future__ import annotations

from typing import NamedTuple

_BAR = "|"


class LimitPlace(NamedTuple):
    """Where a limited job waits and what it costs: its limiter, the partition ('' without one) and its weight."""

    limiter: str
    partition: str
    weight: int


def lane_of(queue: str, place: LimitPlace | None) -> str:
    """The lane of a job in this queue."""
    return queue if place is None else _BAR.join((queue, place.limiter, place.partition))


def bucket_of(lane: str) -> tuple[str, str] | None:
    """The limiter and the partition that a lane draws from; None for a queue's own lane."""
    parts = lane.split(_BAR, 2)
    return (parts[1], parts[2]) if len(parts) == 3 else None

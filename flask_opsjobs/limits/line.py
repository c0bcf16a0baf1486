"""The line of a job as text: its queue, or `queue|limiter|partition`; no queue and no limiter may hold the bar."""

from __future__ import annotations

from typing import NamedTuple

_BAR = "|"


class Place(NamedTuple):
    """Where a limited job waits and what it costs: its limiter, the partition ('' without one) and its weight."""

    limiter: str
    partition: str
    weight: int


def line_of(queue: str, place: Place | None) -> str:
    """The line of a job in this queue."""
    return queue if place is None else _BAR.join((queue, place.limiter, place.partition))


def bucket_of(line: str) -> tuple[str, str] | None:
    """The limiter and the partition that a line draws from; None for a queue's own line."""
    parts = line.split(_BAR, 2)
    return (parts[1], parts[2]) if len(parts) == 3 else None

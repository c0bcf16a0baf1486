"""Declares the states of a queue and the arrows between them, as data."""

from __future__ import annotations

from ..core.arrow import Arrow

MEANINGS = {
    "open": "due jobs are dispatched",
    "draining": "nothing more is dispatched; jobs that are in Redis or reserved by a worker still run",
    "paused": "nothing is dispatched; jobs in Redis are recalled, and workers give back what they have "
    "reserved, so up to OPSJOBS_RESERVE_SECONDS of work may still begin",
}
STATES = tuple(MEANINGS)

# A queue without a row is open. One of these statements writes the row.
BEGUN_BY = ("create_queues",)

ARROWS = (
    Arrow(
        "pause",
        sources=("open", "draining"),
        targets=("paused",),
        by="operator",
        meaning="dispatch nothing, and recall the jobs in Redis",
        made_by=("hold_queues",),
    ),
    Arrow(
        "resume",
        sources=("draining", "paused"),
        targets=("open",),
        by="operator",
        meaning="dispatch due jobs again",
        made_by=("resume_queues",),
    ),
    Arrow(
        "drain",
        sources=("open",),
        targets=("draining",),
        by="operator",
        meaning="dispatch nothing more, but let dispatched jobs run",
        made_by=("hold_queues",),
    ),
    Arrow(
        "set_prefetch",
        sources=STATES,
        targets=(),
        by="operator",
        meaning="set how many of its jobs may be in Redis",
    ),
    Arrow(
        "resync",
        sources=STATES,
        targets=(),
        by="operator",
        meaning="compare it with Redis, and repair what differs",
    ),
)


def state_of(is_paused: bool, is_draining: bool) -> str:
    """The state of a queue, from the two columns of its row."""
    if not is_paused:
        return "open"
    return "draining" if is_draining else "paused"


def sources_of(name: str) -> tuple[str, ...]:
    """The states from which the arrow `name` may leave."""
    return next(arrow.sources for arrow in ARROWS if arrow.name == name)

"""Declares the states of a task and the arrows between them, as data."""

from __future__ import annotations

from ..core.arrow import Arrow

MEANINGS = {
    "open": "its due jobs are dispatched",
    "paused": "none of its jobs is dispatched; jobs in Redis are recalled, and workers give back what they "
    "have reserved, so up to OPSJOBS_RESERVE_SECONDS of work may still begin",
}
STATES = tuple(MEANINGS)

ARROWS = (
    Arrow(
        "pause",
        sources=("open",),
        targets=("paused",),
        by="operator",
        meaning="dispatch none of its jobs, and recall those in Redis; other tasks of its queue go on",
        made_by=("pause_tasks",),
    ),
    Arrow(
        "resume",
        sources=("paused",),
        targets=("open",),
        by="operator",
        meaning="dispatch its due jobs again",
        made_by=("resume_tasks",),
    ),
)


def sources_of(name: str) -> tuple[str, ...]:
    """The states from which the arrow `name` may leave."""
    return next(arrow.sources for arrow in ARROWS if arrow.name == name)

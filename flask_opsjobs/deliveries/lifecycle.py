"""Declares the states of a delivery in Redis and the arrows between them, as data."""

from __future__ import annotations

from ..core.arrow import Arrow

MEANINGS = {
    "needed": "its job is queued or started under its dispatch number, or a worker has reserved it",
    "running": "RQ says that a worker runs it",
    "orphan": "no job needs it: the job is deleted, or has moved on",
    "unknown": "its Redis does not answer",
}
STATES = tuple(MEANINGS)

ARROWS = (
    Arrow(
        "push",
        sources=(),
        targets=("needed",),
        by="dispatcher",
        meaning="push it to RQ, after the commit of its job",
    ),
    Arrow(
        "remove",
        sources=("orphan",),
        targets=(),
        by="operator",
        meaning="remove it and all that RQ stores about it, as the recall loop does",
    ),
)


def sources_of(name: str) -> tuple[str, ...]:
    """The states from which the arrow `name` may leave."""
    return next(arrow.sources for arrow in ARROWS if arrow.name == name)

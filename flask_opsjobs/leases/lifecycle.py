"""Declares the states of a lease and the arrows between them, as data."""

from __future__ import annotations

from ..core.arrow import Arrow

MEANINGS = {
    "held": "its attempt runs, or was claimed a moment ago",
    "leaked": "its attempt does not run, and the place stays taken",
}
STATES = tuple(MEANINGS)

ARROWS = (
    Arrow(
        "take",
        sources=(),
        targets=("held",),
        by="worker",
        meaning="take a place for an attempt at its claim",
        made_by=("claim_limited_jobs",),
    ),
    Arrow(
        "end",
        sources=("held",),
        targets=(),
        by="worker",
        meaning="give the place back with the end of the attempt",
        made_by=("free_leases", "give_back_tokens"),
    ),
    Arrow(
        "release",
        sources=("leaked",),
        targets=(),
        by="operator",
        meaning="give back the place of an attempt that does not run",
        made_by=("free_leases",),
    ),
)


def state_of(is_leaked: bool) -> str:
    """The state of a lease: it is read from the lease and its job, and never stored."""
    return "leaked" if is_leaked else "held"


def sources_of(name: str) -> tuple[str, ...]:
    """The states from which the arrow `name` may leave."""
    return next(arrow.sources for arrow in ARROWS if arrow.name == name)

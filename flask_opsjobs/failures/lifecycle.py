"""Declares the states of a failure and the arrows between them, and who marks a deploy, as data."""

from __future__ import annotations

from ..core.arrow import Arrow

MEANINGS = {
    "open": "somebody should look at it",
    "resolved": "somebody said that it is fixed: in a deploy, or in the next one",
    "ignored": "somebody said that it may go on, until a time, a count or a rate",
}
STATES = tuple(MEANINGS)

# A failure is resolved in this deploy or in the next one: so no version is called so.
THIS, NEXT = "this", "next"
# Who may have marked a deploy.
SOURCES = ("command", "worker")

# A failure begins `open`, written by this statement.
BEGUN_BY = ("count_failures",)

ARROWS = (
    Arrow(
        "resolve",
        sources=STATES,
        targets=("resolved",),
        by="operator",
        meaning="it is fixed: in a deploy, in the next one, or in the workers that start from now on",
        made_by=("resolve_failures",),
    ),
    Arrow(
        "ignore",
        sources=STATES,
        targets=("ignored",),
        by="operator",
        meaning="it may go on, until a time, a count or a rate",
        made_by=("ignore_failures",),
    ),
    Arrow(
        "regress",
        sources=("resolved",),
        targets=("open",),
        by="roll_up",
        meaning="it failed again on a worker that has the fix",
        made_by=("regress_failures",),
    ),
    Arrow(
        "lapse",
        sources=("ignored", "resolved"),
        targets=("open",),
        by="roll_up",
        meaning="the time, the count or the rate was reached, or no deploy came within 14 days",
        made_by=("lapse_failures",),
    ),
)


def sources_of(name: str) -> tuple[str, ...]:
    """The states from which the arrow `name` may leave."""
    return next(arrow.sources for arrow in ARROWS if arrow.name == name)

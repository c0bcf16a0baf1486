"""Declares the states of a batch and the legal moves between them, as data."""

from __future__ import annotations

from ..core.arrow import Arrow

OPEN = ("open", "running")
FINAL = ("finished", "failed", "canceled")
STATES = (*OPEN, *FINAL)

MEANINGS = {
    "open": "members may still be added",
    "running": "it is closed, and members have not ended yet",
    "finished": "all members have ended, and none failed or was lost",
    "failed": "no member is open, and one or more failed or were lost",
    "canceled": "it was canceled before all members had ended",
}

# A batch begins in `open`, written by this statement.
BEGUN_BY = ("insert_batch",)

ARROWS = (
    Arrow(
        "close",
        sources=("open",),
        targets=("running",),
        by="host or operator",
        meaning="no member can be added any more",
        made_by=("close_batches",),
    ),
    Arrow(
        "end",
        sources=("running",),
        targets=FINAL,
        by="fold",
        meaning="all its members have ended",
        made_by=("end_batch",),
    ),
    Arrow(
        "reopen",
        sources=FINAL,
        targets=("running",),
        by="operator",
        meaning="a member is retried",
        made_by=("retry_jobs",),
    ),
    Arrow(
        "delete",
        sources=FINAL,
        targets=(),
        by="retain",
        meaning="the time that the settings say has passed since its end",
        made_by=("retain_batches",),
    ),
)


def sources_of(name: str) -> tuple[str, ...]:
    """The states from which the arrow `name` may leave."""
    return next(arrow.sources for arrow in ARROWS if arrow.name == name)

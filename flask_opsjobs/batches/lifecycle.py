"""Declares the states of a batch and the legal moves between them, as data."""

from __future__ import annotations

from dataclasses import dataclass

OPEN = ("open", "running")
FINAL = ("finished", "failed", "canceled")
STATES = (*OPEN, *FINAL)

MEANINGS = {
    "open": "members may still be added",
    "running": "it is closed, and members have not ended yet",
    "finished": "all members have ended, and none failed",
    "failed": "all members have ended, and one or more failed",
    "canceled": "it was canceled before all members had ended",
}


@dataclass(frozen=True)
class BatchArrow:
    """A legal move of a batch, from any of `sources` to one of `targets`. Without targets its row is deleted.

    `made_by` names the statements that set the state, or insert or delete the row.
    """

    name: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    by: str
    meaning: str
    made_by: tuple[str, ...]


# A batch begins in `open`, written by this statement.
BEGUN_BY = ("insert_batch",)

ARROWS = (
    BatchArrow(
        "close",
        sources=("open",),
        targets=("running",),
        by="host or operator",
        meaning="no member can be added any more",
        made_by=("close_batches",),
    ),
    BatchArrow(
        "end",
        sources=("running",),
        targets=FINAL,
        by="fold",
        meaning="all its members have ended",
        made_by=("end_batch",),
    ),
    BatchArrow(
        "reopen",
        sources=FINAL,
        targets=("running",),
        by="operator",
        meaning="a member is retried",
        made_by=("retry_jobs",),
    ),
    BatchArrow(
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

"""Declares the states of a queue and the arrows between them, as data."""

from __future__ import annotations

from dataclasses import dataclass

MEANINGS = {
    "open": "due jobs are dispatched",
    "draining": "nothing more is dispatched; jobs that are in Redis still run",
    "paused": "nothing is dispatched; jobs that were in Redis were recalled",
}
STATES = tuple(MEANINGS)


@dataclass(frozen=True)
class QueueArrow:
    """An action that an operator may do on a queue in one of `sources`.

    With `target` None the state stays. `made_by` names the statements that set it.
    """

    name: str
    sources: tuple[str, ...]
    target: str | None
    meaning: str
    made_by: tuple[str, ...] = ()


# A queue without a row is open. One of these statements writes the row.
BEGUN_BY = ("create_queues",)

ARROWS = (
    QueueArrow(
        "pause",
        sources=("open", "draining"),
        target="paused",
        meaning="dispatch nothing, and recall the jobs in Redis",
        made_by=("hold_queues",),
    ),
    QueueArrow(
        "resume",
        sources=("draining", "paused"),
        target="open",
        meaning="dispatch due jobs again",
        made_by=("resume_queues",),
    ),
    QueueArrow(
        "drain",
        sources=("open",),
        target="draining",
        meaning="dispatch nothing more, but let dispatched jobs run",
        made_by=("hold_queues",),
    ),
    QueueArrow(
        "set_prefetch",
        sources=STATES,
        target=None,
        meaning="set how many of its jobs may be in Redis",
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

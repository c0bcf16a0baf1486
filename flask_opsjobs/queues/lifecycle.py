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

    With `target` None the state stays.
    """

    name: str
    sources: tuple[str, ...]
    target: str | None
    meaning: str


ARROWS = (
    QueueArrow("pause", ("open", "draining"), "paused", "dispatch nothing, and recall the jobs in Redis"),
    QueueArrow("resume", ("draining", "paused"), "open", "dispatch due jobs again"),
    QueueArrow("drain", ("open",), "draining", "dispatch nothing more, but let dispatched jobs run"),
    QueueArrow("set_prefetch", STATES, None, "set how many of its jobs may be in Redis"),
)  # fmt: skip


def state_of(is_paused: bool, is_draining: bool) -> str:
    """The state of a queue, from the two columns of its row."""
    if not is_paused:
        return "open"
    return "draining" if is_draining else "paused"


def sources_of(name: str) -> tuple[str, ...]:
    """The states from which the arrow `name` may leave."""
    return next(arrow.sources for arrow in ARROWS if arrow.name == name)

"""Declares the states of a queue and the arrows between them, as data."""

from __future__ import annotations

from dataclasses import dataclass

MEANINGS = {
    "open": "due jobs are dispatched",
    "draining": "nothing more is dispatched; what lies in Redis already still runs",
    "paused": "nothing is dispatched, and what was in Redis was recalled",
}
STATES = tuple(MEANINGS)


@dataclass(frozen=True)
class QueueArrow:
    """What an operator may do with a queue in one of `sources`; `target` None leaves its state as it is."""

    name: str
    sources: tuple[str, ...]
    target: str | None
    meaning: str


ARROWS = (
    QueueArrow("pause", ("open", "draining"), "paused", "dispatch nothing, and recall what waits in Redis"),
    QueueArrow("resume", ("draining", "paused"), "open", "dispatch due jobs again"),
    QueueArrow("drain", ("open",), "draining", "dispatch nothing more, let what was dispatched run"),
    QueueArrow("set_prefetch", STATES, None, "decide how much of it may lie in Redis"),
)  # fmt: skip


def state_of(is_paused: bool, is_draining: bool) -> str:
    """The state that the two columns of a queue's row stand for."""
    if not is_paused:
        return "open"
    return "draining" if is_draining else "paused"


def sources_of(name: str) -> tuple[str, ...]:
    """The states in which the arrow `name` may be drawn."""
    return next(arrow.sources for arrow in ARROWS if arrow.name == name)

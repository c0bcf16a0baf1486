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
    """An action that an operator may do on a queue in one of `sources`.

    With `target` None the state stays.
    """

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
    """The state of a queue, from the two columns of its row."""
    if not is_paused:
        return "open"
    return "draining" if is_draining else "paused"


def sources_of(name: str) -> tuple[str, ...]:
    """The states from which the arrow `name` may leave."""
    return next(arrow.sources for arrow in ARROWS if arrow.name == name)

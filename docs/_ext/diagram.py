"""The states of a job and the arrows between them, drawn as SVG from `flask_opsjobs.jobs.lifecycle`.

Only the places of the states are chosen here. An arrow that leaves every waiting state is drawn
once, from the frame around them; one that leaves `queued` only when its claim was forgotten is
drawn from `started` alone. An operator's arrow that stays among the waiting states is in the table
only, and so is `observe`, by which an adopted job follows RQ.
"""

from __future__ import annotations

import math
from collections import defaultdict
from html import escape

from flask_opsjobs.core.arrow import Arrow
from flask_opsjobs.jobs.lifecycle import ARROWS, FINAL, STATES, WAITING

WIDTH, HEIGHT = 980, 460
BOX = (96, 34)
PLACES = {
    "retryable": (90, 100),
    "deferred": (90, 200),
    "scheduled": (90, 300),
    "available": (290, 200),
    "queued": (480, 200),
    "started": (690, 200),
    "finished": (900, 100),
    "failed": (900, 300),
    "canceled": (900, 430),
    "unknown": (90, 430),
}
# Around the waiting states: left, top, right, bottom; and where the arrows from all of them begin.
FRAME = (20, 30, 550, 360)
DOORS = {"failed": (550, 315), "canceled": (500, 360), "unknown": (90, 360)}
# How far an arrow leans off the straight line, as a share of its length, where it would cross others.
LEAN = {
    ("available", "queued"): 0.14,
    ("queued", "available"): 0.14,
    ("started", "retryable"): -0.17,
    ("started", "available"): -0.12,
    ("started", "scheduled"): 0.18,
    ("failed", "available"): 0.1,
    ("canceled", "available"): 0.1,
}

Point = tuple[float, float]


def svg() -> str:
    """The picture, with a title and a description for who cannot see it."""
    drawn = [_frame(), *(_line(*end, names) for end, names in _grouped().items())]
    drawn += [_state(state) for state in STATES]
    return (
        f'<svg class="states" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="states-title">'
        '<title id="states-title">The states of a job; the tables below say the same in words</title>'
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8"'
        ' orient="auto"><path class="tip" d="M0 0 10 5 0 10z"/></marker></defs>'
        + "".join(drawn)
        + "</svg>"
    )


def _grouped() -> dict[tuple[str, str], list[Arrow]]:
    """The arrows by where they begin and end; `waiting` stands for all waiting states."""
    groups: dict[tuple[str, str], list[Arrow]] = defaultdict(list)
    for arrow in ARROWS:
        if arrow.name == "observe":
            continue
        if (
            arrow.by == "operator"
            and arrow.targets
            and {*arrow.sources, *arrow.targets} <= set(WAITING)
        ):
            continue
        from_all = set(WAITING) <= set(arrow.sources)
        drawn_elsewhere = set(WAITING) if from_all else set()
        if "started" in arrow.sources:
            drawn_elsewhere.add("queued")
        sources = [state for state in arrow.sources if state not in drawn_elsewhere]
        for source in ["waiting"] * from_all + sources:
            for target in arrow.targets:
                groups[source, target].append(arrow)
    return groups


def _frame() -> str:
    left, top, right, bottom = FRAME
    return (
        f'<rect class="waiting" x="{left}" y="{top}" width="{right - left}" height="{bottom - top}"'
        f' rx="12"/><text class="waiting-name" x="{left + 12}" y="{top + 20}">waiting</text>'
    )


def _state(state: str) -> str:
    x, y = PLACES[state]
    width, height = BOX
    kind = "state final" if state in FINAL else "state"
    return (
        f'<g class="{kind}"><rect x="{x - width / 2}" y="{y - height / 2}" width="{width}"'
        f' height="{height}" rx="6"/><text x="{x}" y="{y + 5}">{escape(state)}</text></g>'
    )


def _line(source: str, target: str, arrows: list[Arrow]) -> str:
    """A curve from edge to edge, with the arrows' names at its middle."""
    start = DOORS[target] if source == "waiting" else PLACES[source]
    end = PLACES[target]
    middle = _leaning(start, end, LEAN.get((source, target), 0.0))
    if source != "waiting":
        start = _edge(start, middle)
    end = _edge(end, middle)
    # The curve's own middle lies halfway to its control point.
    x, y = ((start[i] + end[i]) / 4 + middle[i] / 2 for i in (0, 1))
    kind = "arrow by-operator" if all(arrow.by == "operator" for arrow in arrows) else "arrow"
    names = escape(", ".join(arrow.name for arrow in arrows))
    return (
        f'<path class="{kind}" marker-end="url(#tip)" d="M{start[0]:.0f} {start[1]:.0f}'
        f' Q{middle[0]:.0f} {middle[1]:.0f} {end[0]:.0f} {end[1]:.0f}"/>'
        f'<text class="label" x="{x:.0f}" y="{y + 4:.0f}">{names}</text>'
    )


def _leaning(start: Point, end: Point, lean: float) -> Point:
    """The control point: the middle, moved sideways by twice `lean` of the length."""
    across, down = end[0] - start[0], end[1] - start[1]
    return (
        (start[0] + end[0]) / 2 + 2 * lean * down,
        (start[1] + end[1]) / 2 - 2 * lean * across,
    )


def _edge(center: Point, toward: Point) -> Point:
    """Where the line from a box's centre leaves the box, a little outside."""
    across, down = toward[0] - center[0], toward[1] - center[1]
    width, height = BOX[0] / 2 + 3, BOX[1] / 2 + 3
    reach = min(
        width / abs(across) if across else math.inf, height / abs(down) if down else math.inf
    )
    return center[0] + across * reach, center[1] + down * reach

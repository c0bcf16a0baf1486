"""Writes the graph of a run as SVG. Pure.

Shapes come from the symbols of the page, colours and dashes from its style sheet. Each node is a link.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from markupsafe import Markup

from ...core.visible_text import on_one_line
from ...core.words import counted
from ...workflows.graph import NODE_WIDTH, Drawing, DrawnEdge, DrawnNode
from .short_text import cut, units, width_of

# In letters: what fits behind the shape of a node.
_NAME, _DETAIL = 17, 22
# Around the drawing: for the line of focus, and for the cards below a stack.
_MARGIN, _BELOW = 4, 10
_BAR_WIDTH = 130.0
# A part of the bar of a stack stays visible.
_NARROWEST = 3.0
# In which order a stack names and draws the states of its steps; others are between.
_FIRST, _LAST = "finished", "failed"


def draw_graph(
    drawing: Drawing,
    href: Callable[[DrawnNode], str],
    details: Mapping[int, str],
    current: int | None = None,
) -> Markup:
    """The drawing as an `<svg>`, which says what it is but leaves the steps to its links.

    `href` gives the address of a node. `details` says by step id what the line below a name says; without it
    the line says the state. `current` is the step that the page shows; its node is marked.
    """
    steps, layers = counted(drawing.steps, "step"), counted(drawing.layers, "layer")
    width, height = drawing.width + _MARGIN + _BELOW, drawing.height + _MARGIN + _BELOW
    edges = sorted(drawing.edges, key=lambda edge: (edge.is_critical, edge.is_hit))
    return Markup(
        '<svg class="pic dag" viewBox="-{margin} -{margin} {width} {height}" width="{width}"'
        ' height="{height}" role="group" aria-label="{label}">'
        '<g aria-hidden="true">{edges}</g>{nodes}</svg>'
    ).format(
        margin=_MARGIN,
        width=units(width),
        height=units(height),
        label=f"{steps} in {layers}; the table below says the same",
        edges=Markup("").join(map(_edge, edges)),
        nodes=Markup("").join(
            _node(node, href(node), details.get(node.id), current in node.ids)
            for node in drawing.nodes
        ),
    )


def _edge(edge: DrawnEdge) -> Markup:
    words = (
        "edge",
        "on" * (edge.on_failure == "continue"),
        "crit" * edge.is_critical,
        "hit" * edge.is_hit,
    )
    return Markup('<path class="{}" d="{}"/>').format(" ".join(filter(None, words)), _path(edge))


def _path(edge: DrawnEdge) -> str:
    """A curve from layer to layer, level in between."""
    (x, y), *others = edge.points
    path = f"M{units(x)} {units(y)}"
    for at, (right, below) in enumerate(others):
        if at % 2:
            path += f"H{units(right)}"
        else:
            middle = units((x + right) / 2)
            path += f"C{middle} {units(y)} {middle} {units(below)} {units(right)} {units(below)}"
        x, y = right, below
    return path


def _node(node: DrawnNode, href: str, detail: str | None, is_current: bool) -> Markup:
    x, y = node.x, node.y
    number = f" × {sum(node.counts.values()):,}" if node.is_stack else ""
    name = node.name or "steps"
    shape = "signal" if node.kind == "wait" and node.state == "deferred" else node.state
    return Markup(
        '<a class="node" href="{href}" data-is="{state}"{current}><title>{title}</title>{under}'
        '<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>'
        '<use href="#g-{shape}" x="{left}" y="{top}" width="12" height="12"/>'
        '<text x="{text}" y="{line}">{name}</text>{below}</a>'
    ).format(
        href=href,
        state=node.state,
        current=Markup(' aria-current="true"') if is_current else "",
        title=on_one_line(f"{name}{number}: {_in_words(node, detail)}"),
        under=_cards(node) if node.is_stack else "",
        x=units(x),
        y=units(y),
        width=units(NODE_WIDTH),
        height=units(node.height),
        shape=shape,
        left=units(x + 10),
        top=units(y + 12),
        text=units(x + 28),
        line=units(y + 22),
        name=cut(name, _NAME - width_of(number)) + number,
        below=_stack(node) if node.is_stack else _line(x, y + 38, detail or node.state),
    )


def _in_words(node: DrawnNode, detail: str | None) -> str:
    """The state of a node in words: `deferred, waits for billing`, or the counts of a stack."""
    if node.is_stack:
        return ", ".join(f"{number:,} {state}" for state, number in _parts(node))
    if detail is None or detail.startswith(node.state):
        return detail or node.state
    return f"{node.state}, {detail}"


def _line(x: float, y: float, text: str) -> Markup:
    return Markup('<text class="sub" x="{}" y="{}">{}</text>').format(
        units(x + 28), units(y), cut(text, _DETAIL)
    )


def _cards(node: DrawnNode) -> Markup:
    """Two more cards below a stack."""
    return Markup("").join(
        Markup('<rect class="under" x="{}" y="{}" width="{}" height="{}" rx="6"/>').format(
            units(node.x + by), units(node.y + by), units(NODE_WIDTH), units(node.height)
        )
        for by in (6, 3)
    )


def _stack(node: DrawnNode) -> Markup:
    """The counts of a stack: in words, those that failed in a line of their own, and as a bar."""
    x, y = node.x, node.y
    parts = _parts(node)
    line = ""
    for state, number in parts:
        longer = f"{line}, {number:,} {state}" if line else f"{number:,} {state}"
        if state != _LAST and width_of(longer) <= _DETAIL:
            line = longer
    failed = Markup("")
    if number := node.counts.get(_LAST, 0):
        failed = Markup(
            '<g data-is="failed"><use href="#g-failed" x="{}" y="{}" width="10" height="10"/>'
            '<text class="sub word" x="{}" y="{}">{} failed</text></g>'
        ).format(units(x + 28), units(y + 45), units(x + 42), units(y + 54), f"{number:,}")
    return (_line(x, y + 38, line) if line else Markup("")) + failed + _bar(node, parts)


def _bar(node: DrawnNode, parts: list[tuple[str, int]]) -> Markup:
    total = sum(node.counts.values())
    widths = [max(_NARROWEST, _BAR_WIDTH * number / total) for _, number in parts]
    shrink = _BAR_WIDTH / sum(widths)
    left = node.x + 10
    drawn = []
    for (state, _), width in zip(parts, widths, strict=True):
        drawn.append(
            Markup(
                '<rect class="mapbar" data-is="{}" x="{}" y="{}" width="{}" height="4"/>'
            ).format(state, units(left), units(node.y + 61), units(width * shrink))
        )
        left += width * shrink
    return Markup("").join(drawn)


def _parts(node: DrawnNode) -> list[tuple[str, int]]:
    """The counts of a stack: finished first, failed last, and the most of the others first."""
    rank = {_FIRST: 0, _LAST: 2}
    return sorted(node.counts.items(), key=lambda part: (rank.get(part[0], 1), -part[1], part[0]))

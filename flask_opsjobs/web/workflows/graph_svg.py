"""Writes the graph of a run as SVG. Pure.

Shapes come from the symbols of the page, colours and dashes from its style sheet. Each node is a link.
Plain strings are joined, because `Markup.format` takes five times as long. So each name, address and sentence
passes `escape` here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from markupsafe import Markup, escape

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
    nodes = (
        _node(node, href(node), details.get(node.id), current in node.ids) for node in drawing.nodes
    )
    return Markup(
        f'<svg class="pic dag" viewBox="-{_MARGIN} -{_MARGIN} {units(width)} {units(height)}"'
        f' width="{units(width)}" height="{units(height)}" role="group"'
        f' aria-label="{steps} in {layers}; the table below says the same">'
        f'<g aria-hidden="true">{"".join(map(_edge, edges))}</g>{"".join(nodes)}</svg>'
    )


def _edge(edge: DrawnEdge) -> str:
    words = (
        "edge",
        "on" * (edge.on_failure == "continue"),
        "crit" * edge.is_critical,
        "hit" * edge.is_hit,
    )
    return f'<path class="{" ".join(filter(None, words))}" d="{_path(edge)}"/>'


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


def _node(node: DrawnNode, href: str, detail: str | None, is_current: bool) -> str:
    x, y = node.x, node.y
    number = f" × {sum(node.counts.values()):,}" if node.is_stack else ""
    name = node.name or "steps"
    shape = "signal" if node.kind == "wait" and node.state == "deferred" else node.state
    current = ' aria-current="true"' if is_current else ""
    title = escape(on_one_line(f"{name}{number}: {_in_words(node, detail)}"))
    shown = escape(cut(name, _NAME - width_of(number)) + number)
    below = _stack(node) if node.is_stack else _line(x, y + 38, detail or node.state)
    return (
        f'<a class="node" href="{escape(href)}" data-is="{node.state}"{current}><title>{title}</title>'
        f"{_cards(node) if node.is_stack else ''}"
        f'<rect x="{units(x)}" y="{units(y)}" width="{units(NODE_WIDTH)}"'
        f' height="{units(node.height)}" rx="6"/>'
        f'<use href="#g-{shape}" x="{units(x + 10)}" y="{units(y + 12)}" width="12" height="12"/>'
        f'<text x="{units(x + 28)}" y="{units(y + 22)}">{shown}</text>{below}</a>'
    )


def _in_words(node: DrawnNode, detail: str | None) -> str:
    """The state of a node in words: `deferred, waits for billing`, or the counts of a stack."""
    if node.is_stack:
        return ", ".join(f"{number:,} {state}" for state, number in _parts(node))
    if detail is None or detail.startswith(node.state):
        return detail or node.state
    return f"{node.state}, {detail}"


def _line(x: float, y: float, text: str) -> str:
    return (
        f'<text class="sub" x="{units(x + 28)}" y="{units(y)}">{escape(cut(text, _DETAIL))}</text>'
    )


def _cards(node: DrawnNode) -> str:
    """Two more cards below a stack."""
    return "".join(
        f'<rect class="under" x="{units(node.x + by)}" y="{units(node.y + by)}"'
        f' width="{units(NODE_WIDTH)}" height="{units(node.height)}" rx="6"/>'
        for by in (6, 3)
    )


def _stack(node: DrawnNode) -> str:
    """The counts of a stack: in words, those that failed in a line of their own, and as a bar."""
    x, y = node.x, node.y
    parts = _parts(node)
    line = ""
    for state, number in parts:
        longer = f"{line}, {number:,} {state}" if line else f"{number:,} {state}"
        if state != _LAST and width_of(longer) <= _DETAIL:
            line = longer
    failed = ""
    if number := node.counts.get(_LAST, 0):
        failed = (
            f'<g data-is="failed"><use href="#g-failed" x="{units(x + 28)}" y="{units(y + 45)}"'
            f' width="10" height="10"/><text class="sub word" x="{units(x + 42)}"'
            f' y="{units(y + 54)}">{number:,} failed</text></g>'
        )
    return (_line(x, y + 38, line) if line else "") + failed + _bar(node, parts)


def _bar(node: DrawnNode, parts: list[tuple[str, int]]) -> str:
    total = sum(node.counts.values())
    widths = [max(_NARROWEST, _BAR_WIDTH * number / total) for _, number in parts]
    shrink = _BAR_WIDTH / sum(widths)
    left = node.x + 10
    drawn = ""
    for (state, _), width in zip(parts, widths, strict=True):
        drawn += (
            f'<rect class="mapbar" data-is="{state}" x="{units(left)}" y="{units(node.y + 61)}"'
            f' width="{units(width * shrink)}" height="4"/>'
        )
        left += width * shrink
    return drawn


def _parts(node: DrawnNode) -> list[tuple[str, int]]:
    """The counts of a stack: finished first, failed last, and the most of the others first."""
    rank = {_FIRST: 0, _LAST: 2}
    return sorted(node.counts.items(), key=lambda part: (rank.get(part[0], 1), -part[1], part[0]))

"""Lays out the graph of a run: its order, layers and critical path, folded until it can be drawn. Pure.

Layers stand from left to right. The method is that of K. Sugiyama, S. Tagawa and M. Toda, "Methods for Visual
Understanding of Hierarchical System Structures" (IEEE Transactions on Systems, Man, and Cybernetics, 1981):
put each node into a layer, give an edge over several layers a place in each of them, order each layer by the
barycentres of its neighbours, and choose coordinates last.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from itertools import pairwise

# A drawing with more nodes is slow to read.
MOST_NODES = 150
# Down the layers and up again, twice: to order the layers, and to place what is in them.
ORDER_SWEEPS = PLACE_SWEEPS = 4

# In units of the drawing. A stack is a node that stands for several steps.
NODE_WIDTH, NODE_HEIGHT, STACK_HEIGHT = 150.0, 48.0, 74.0
LAYER_GAP, NODE_GAP, LANE_GAP = 56.0, 24.0, 12.0

# A stack shows the first of these states that one of its steps is in.
SHOWN_FIRST = (
    "started",
    "retryable",
    "queued",
    "available",
    "scheduled",
    "failed",
    "deferred",
    "canceled",
    "finished",
)

# Each node with the nodes right before it. A node comes after all that are before it.
Before = Mapping[int, Collection[int]]


@dataclass(frozen=True)
class GraphStep:
    """One step. `map_of` is the map that added it. `seconds` is how long it took; None when not known."""

    id: int
    name: str
    state: str
    kind: str = "job"
    map_of: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class GraphEdge:
    """`to_id` waits for `from_id`. `on_failure` is `cancel` or `continue`."""

    from_id: int
    to_id: int
    on_failure: str = "cancel"


@dataclass(frozen=True)
class DrawnNode:
    """A step, or a stack of steps, with its place: `x` and `y` are the upper left corner.

    `ids` are all its steps; `id` is the first of them, or the map that added the others. `counts` says how
    many steps are in each state, without the map's own job when it added members. `name` is empty when the
    names of the steps differ in more than their numbers.
    """

    id: int
    ids: tuple[int, ...]
    name: str
    kind: str
    state: str
    counts: Mapping[str, int]
    is_critical: bool
    layer: int
    x: float
    y: float
    height: float

    @property
    def is_stack(self) -> bool:
        """Whether it stands for several steps."""
        return len(self.ids) > 1


@dataclass(frozen=True)
class DrawnEdge:
    """A line between two nodes. `points` are its begin, both ends of each level part, and its end.

    `on_failure` is `continue` when all edges that it stands for say so. `is_hit`: a failure went this way.
    """

    from_id: int
    to_id: int
    on_failure: str
    is_critical: bool
    is_hit: bool
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Drawing:
    """A graph with its coordinates. `steps` is the number of steps that the nodes stand for.

    The nodes are in the order in which one reads them: layer by layer, from top to bottom.
    """

    nodes: tuple[DrawnNode, ...]
    edges: tuple[DrawnEdge, ...]
    layers: int
    steps: int
    width: float
    height: float


def lay_out(
    steps: Iterable[GraphStep], edges: Iterable[GraphEdge], most: int = MOST_NODES
) -> Drawing:
    """Draw a run with at most `most` nodes, which must be 1 or more. Each edge leads to a later layer.

    Each step is in exactly one node. A map is one node with its members. Others are folded only when there
    are too many: first equal siblings, then the steps of a layer, then neighbouring layers, and of each the
    largest group first. An edge of an unknown step is left out. Raises `graphlib.CycleError` for a circle.
    """
    # A map before its members, since it is the first of their group.
    known = {step.id: step for step in sorted(steps, key=lambda step: step.map_of is not None)}
    edges = [edge for edge in edges if edge.from_id in known and edge.to_id in known]
    maps = _Folded.of(_join([(id,) for id in known], lambda ids: _map_of(known[ids[0]])), edges)
    path = critical_path(maps.before, {id: _seconds(maps, id, known) for id in maps.before})
    folded = maps if len(maps.before) <= most else _fold(maps, known, most, edges)
    return _draw(folded, known, [folded.node_of[id] for id in path])


# --- order, layers, critical path


def in_order(ids: Iterable[int], edges: Iterable[tuple[int, int]]) -> dict[int, list[int]]:
    """Each node with the nodes before it, in topological order; `edges` are pairs (from, to).

    Raises `graphlib.CycleError`, whose second argument is the circle, for edges in a circle.

    >>> in_order([3, 1, 2], [(1, 3), (3, 2), (1, 2)])
    {1: [], 3: [1], 2: [3, 1]}
    """
    before: dict[int, list[int]] = {id: [] for id in ids}
    for source, target in edges:
        before[target].append(source)
    return {id: before[id] for id in TopologicalSorter(before).static_order()}


def layers_of(before: Before) -> dict[int, int]:
    """The layer of each node: how many edges the longest path to it has.

    >>> layers_of({1: [], 3: [1], 2: [3, 1]})
    {1: 0, 3: 1, 2: 2}
    """
    layers: dict[int, int] = {}
    for id, sources in before.items():
        layers[id] = max([layers[source] for source in sources], default=-1) + 1
    return layers


def critical_path(before: Before, seconds: Mapping[int, float | None]) -> list[int]:
    """The nodes of the path that takes longest. An unknown duration counts as none.

    Of paths that take equally long, it is one with the most nodes.

    >>> critical_path({1: [], 2: [1], 3: [1], 4: [2, 3]}, {1: 1.0, 2: 5.0, 3: None, 4: None})
    [1, 2, 4]
    """
    longest: dict[int, tuple[float, int]] = {}
    came_from: dict[int, int] = {}
    for id, sources in before.items():
        so_far = (0.0, 0)
        if sources:
            came_from[id] = max(sources, key=longest.__getitem__)
            so_far = longest[came_from[id]]
        longest[id] = so_far[0] + (seconds[id] or 0.0), so_far[1] + 1
    path = [max(longest, key=longest.__getitem__)] if longest else []
    while path and path[-1] in came_from:
        path.append(came_from[path[-1]])
    return path[::-1]


# --- folding

_Group = tuple[int, ...]


@dataclass(frozen=True)
class _Folded:
    """A graph of groups of steps. A node is the first step of its group.

    Each edge holds the edges between steps that it stands for.
    """

    groups: Mapping[int, _Group]
    node_of: Mapping[int, int]
    edges: Mapping[tuple[int, int], Sequence[GraphEdge]]
    before: Before

    @classmethod
    def of(cls, groups: Iterable[_Group], edges: Iterable[GraphEdge]) -> _Folded:
        """The graph of these groups; edges within a group are left out."""
        named = {group[0]: group for group in groups}
        node_of = {id: node for node, group in named.items() for id in group}
        between: dict[tuple[int, int], list[GraphEdge]] = defaultdict(list)
        for edge in edges:
            source, target = node_of[edge.from_id], node_of[edge.to_id]
            if source != target:
                between[source, target].append(edge)
        return cls(named, node_of, between, in_order(named, between))


def _map_of(step: GraphStep) -> int:
    return step.id if step.map_of is None else step.map_of


def _join(
    groups: Iterable[_Group], key: Callable[[_Group], Hashable], most: int = 0
) -> list[_Group]:
    """Join groups of the same key, those with the most groups first, until at most `most` are left."""
    same: dict[Hashable, list[_Group]] = defaultdict(list)
    for group in groups:
        same[key(group)].append(group)
    left = sum(map(len, same.values()))
    joined: list[_Group] = []
    for found in sorted(same.values(), key=len, reverse=True):
        if left > most:
            joined.append(tuple(id for group in found for id in group))
            left -= len(found) - 1
        else:
            joined += found
    return joined


def _fold(
    graph: _Folded, known: Mapping[int, GraphStep], most: int, edges: Iterable[GraphEdge]
) -> _Folded:
    """Fold steps of one layer, then whole layers, until at most `most` nodes are left.

    So folded, a graph stays without circles. Failed steps stay apart as long as layers do.
    """
    layers = layers_of(graph.before)
    number = max(layers.values()) + 1
    after: dict[int, list[int]] = defaultdict(list)
    for source, target in graph.edges:
        after[source].append(target)
    looks = {id: (layers[id], known[id].kind, _stem(known[id].name)) for id in layers}

    def equal(group: _Group) -> Hashable:
        id = group[0]
        sides = (graph.before[id], after[id])
        return looks[id], *(frozenset(looks[other] for other in side) for side in sides)

    def same_layer(group: _Group) -> Hashable:
        return layers[group[0]], any(known[id].state == "failed" for id in group)

    def near_layer(group: _Group) -> Hashable:
        return layers[group[0]] * most // max(number, most)

    groups = list(graph.groups.values())
    for key in (equal, same_layer, near_layer):
        groups = _join(groups, key, most)
    return _Folded.of(groups, edges)


def _stem(name: str) -> str:
    """The name with `#` for each number: `import_#`."""
    return re.sub(r"\d+", "#", name)


def _seconds(graph: _Folded, node: int, known: Mapping[int, GraphStep]) -> float | None:
    """How long the longest step of a node took."""
    times = [known[id].seconds for id in graph.groups[node]]
    return max((time for time in times if time is not None), default=None)


# --- places


@dataclass
class _Slot:
    """A place in a layer: of a node, or of an edge that runs level through the layer.

    `before` and `after` are the slots in the layers beside it that it is joined with. `centre` is its height.
    """

    layer: int
    height: float = 0.0
    before: list[_Slot] = field(default_factory=list)
    after: list[_Slot] = field(default_factory=list)
    rank: float = 0.0
    centre: float = 0.0


class _Slots:
    """The slots of a graph, layer by layer.

    Edges out of one node share their slots: they run level together, and each bends before its target.
    """

    def __init__(self, graph: _Folded) -> None:
        layers = layers_of(graph.before)
        self.of_node = {id: _Slot(layer, _height(graph.groups[id])) for id, layer in layers.items()}
        self.layers: list[list[_Slot]] = [[] for _ in range(max(layers.values(), default=-1) + 1)]
        for slot in self.of_node.values():
            self.layers[slot.layer].append(slot)
        self._lanes: dict[int, list[_Slot]] = {id: [] for id in layers}
        for source, target in graph.edges:
            self._join(source, self.of_node[target])
        for row in self.layers:
            _number(row)

    def way(self, source: int, target: int) -> list[_Slot]:
        """The slots through which an edge runs, from the slot of its source to that of its target."""
        begin, end = self.of_node[source], self.of_node[target]
        return [begin, *self._lanes[source][: end.layer - begin.layer - 1], end]

    def _join(self, source: int, end: _Slot) -> None:
        begin, lanes = self.of_node[source], self._lanes[source]
        while begin.layer + len(lanes) + 1 < end.layer:
            lane = _Slot(begin.layer + len(lanes) + 1)
            self.layers[lane.layer].append(lane)
            _link(lanes[-1] if lanes else begin, lane)
            lanes.append(lane)
        steps = end.layer - begin.layer - 1
        _link(lanes[steps - 1] if steps else begin, end)

    def order(self) -> None:
        """Sort each layer by the barycentres of its neighbours, so that few edges cross.

        The first two sweeps look at the layer that they come from, the others at the layers on both sides:
        this leaves a third fewer crossings.
        """
        for sweep in range(ORDER_SWEEPS):
            for row, beside in self._sweep(sweep):
                for slot in row:
                    others = beside(slot) if sweep < 2 else slot.before + slot.after
                    if others:
                        slot.rank = sum([other.rank for other in others]) / len(others)
                row.sort(key=lambda slot: slot.rank)
                _number(row)

    def place(self) -> None:
        """Give each slot a height near those in the layer that a sweep comes from, so edges get level."""
        for sweep in range(PLACE_SWEEPS):
            for row, beside in self._sweep(sweep):
                wanted = [_middle(beside(slot), slot.centre) for slot in row]
                for slot, centre in zip(row, _spread(wanted, row), strict=True):
                    slot.centre = centre

    def _sweep(self, number: int) -> Iterator[tuple[list[_Slot], Callable[[_Slot], list[_Slot]]]]:
        """Each layer, with what gives the slots beside it in the layer before: down, the next time up."""
        if number % 2 == 0:
            return ((row, _before) for row in self.layers)
        return ((row, _after) for row in reversed(self.layers))


def _before(slot: _Slot) -> list[_Slot]:
    return slot.before


def _after(slot: _Slot) -> list[_Slot]:
    return slot.after


def _link(slot: _Slot, later: _Slot) -> None:
    slot.after.append(later)
    later.before.append(slot)


def _number(row: Sequence[_Slot]) -> None:
    """Rank the slots of a layer from 0 to 1, so that layers of any size can be compared."""
    for place, slot in enumerate(row):
        slot.rank = (place + 0.5) / len(row)


def _middle(slots: Sequence[_Slot], alone: float) -> float:
    """The mean height of these slots; `alone` when there are none."""
    return sum([slot.centre for slot in slots]) / len(slots) if slots else alone


def _spread(wanted: Sequence[float], row: Sequence[_Slot]) -> list[float]:
    """The centres nearest to those wanted (least squares) that keep the order and the gaps between slots.

    Without the gaps this is an isotonic regression, and pooling neighbours in the wrong order solves it (Ayer
    et al., "An Empirical Distribution Function for Sampling with Incomplete Information", 1955).
    """
    offsets = [0.0]
    for slot, later in pairwise(row):
        gap = NODE_GAP if slot.height and later.height else LANE_GAP
        offsets.append(offsets[-1] + (slot.height + later.height) / 2 + gap)
    pools: list[tuple[float, int]] = []
    for centre, offset in zip(wanted, offsets, strict=True):
        total, number = centre - offset, 1
        while pools and pools[-1][0] / pools[-1][1] >= total / number:
            earlier, more = pools.pop()
            total, number = total + earlier, number + more
        pools.append((total, number))
    means = [total / number for total, number in pools for _ in range(number)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=True)]


def _height(group: _Group) -> float:
    return STACK_HEIGHT if len(group) > 1 else NODE_HEIGHT


# --- the drawing


def _draw(graph: _Folded, known: Mapping[int, GraphStep], path: Sequence[int]) -> Drawing:
    """The drawing of a graph; `path` are the nodes on the critical path, in order."""
    slots = _Slots(graph)
    slots.order()
    slots.place()
    everywhere = [slot for row in slots.layers for slot in row]
    top = min([slot.centre - slot.height / 2 for slot in everywhere], default=0.0)
    bottom = max([slot.centre + slot.height / 2 for slot in everywhere], default=0.0)
    on_path, on_path_after = set(path), set(pairwise(path))
    nodes = [
        _node([known[id] for id in group], slots.of_node[node], top, node in on_path)
        for node, group in graph.groups.items()
    ]
    edges = [
        DrawnEdge(
            *pair,
            "continue" if all(edge.on_failure == "continue" for edge in found) else "cancel",
            pair in on_path_after,
            any(_is_hit(edge, known) for edge in found),
            _points(slots.way(*pair), top),
        )
        for pair, found in graph.edges.items()
    ]
    number = len(slots.layers)
    width = max(0.0, _left(number) - LAYER_GAP)
    nodes.sort(key=lambda node: (node.layer, node.y))
    return Drawing(tuple(nodes), tuple(edges), number, len(known), width, _rounded(bottom - top))


def _node(steps: Sequence[GraphStep], slot: _Slot, top: float, is_critical: bool) -> DrawnNode:
    first, *others = steps
    is_map = first.kind == "map" and bool(others)
    counts = Counter(step.state for step in (others if is_map else steps))
    names = [first.name] if is_map else [step.name for step in steps]
    return DrawnNode(
        first.id,
        tuple(step.id for step in steps),
        _shared_name(names),
        first.kind,
        min(counts, key=_urgency),
        counts,
        is_critical,
        slot.layer,
        _left(slot.layer),
        _rounded(slot.centre - slot.height / 2 - top),
        slot.height,
    )


def _urgency(state: str) -> int:
    return SHOWN_FIRST.index(state) if state in SHOWN_FIRST else len(SHOWN_FIRST)


def _shared_name(names: Sequence[str]) -> str:
    """The part of the names before their numbers; empty when they differ in more than numbers."""
    if len(names) == 1:
        return names[0]
    if len(set(map(_stem, names))) > 1:
        return ""
    return _stem(names[0]).partition("#")[0].rstrip("_-.:[( ")


def _is_hit(edge: GraphEdge, known: Mapping[int, GraphStep]) -> bool:
    return (
        edge.on_failure == "cancel"
        and known[edge.from_id].state in ("failed", "canceled")
        and known[edge.to_id].state == "canceled"
    )


def _points(way: Sequence[_Slot], top: float) -> tuple[tuple[float, float], ...]:
    begin, *lanes, end = way
    points = [(_left(begin.layer) + NODE_WIDTH, _rounded(begin.centre - top))]
    for lane in lanes:
        height = _rounded(lane.centre - top)
        points += [(_left(lane.layer), height), (_left(lane.layer) + NODE_WIDTH, height)]
    return *points, (_left(end.layer), _rounded(end.centre - top))


def _left(layer: int) -> float:
    return layer * (NODE_WIDTH + LAYER_GAP)


def _rounded(value: float) -> float:
    return round(value, 1)

"""The graph of a run: layers, critical path, folding and coordinates, for any graph without circles."""

from __future__ import annotations

import doctest
import random
from collections import Counter
from graphlib import CycleError
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_opsjobs.jobs.lifecycle import STATES
from flask_opsjobs.workflows import graph
from flask_opsjobs.workflows.graph import (
    MOST_NODES,
    NODE_WIDTH,
    Drawing,
    DrawnNode,
    GraphEdge,
    GraphStep,
    critical_path,
    in_order,
    lay_out,
)
from tools.bench_graph import crossings, random_graph

Run = tuple[list[GraphStep], list[GraphEdge]]


_KINDS = st.sampled_from(["job", "wait", "map"])
_NAMES = st.sampled_from(["load", "resize", "send"])
_STATES = st.sampled_from(STATES)
_SECONDS = st.none() | st.floats(0, 1e6)
_ON_FAILURE = st.sampled_from(["cancel", "continue"])


@st.composite
def runs(draw: st.DrawFn) -> Run:
    """A run of up to 40 steps, some added by maps. Its ids are in no order."""
    number = draw(st.integers(1, 40))
    ids = draw(st.permutations(range(1, number + 1)))
    steps: list[GraphStep] = []
    edges: list[GraphEdge] = []
    for at, id in enumerate(ids):
        maps = [None, *(step for step in steps if step.kind == "map")]
        # Numbers are drawn much faster than members of a new list.
        source = maps[draw(st.integers(0, len(maps) - 1))]
        kind = "member" if source else draw(_KINDS)
        steps.append(
            GraphStep(
                id,
                f"{draw(_NAMES)}_{id}",
                draw(_STATES),
                kind,
                source.id if source else None,
                draw(_SECONDS),
            )
        )
        before = [source] if source else [step for step in steps[:at] if step.kind != "member"]
        most = draw(st.integers(0, min(4, len(before))))
        for other in {draw(st.integers(0, len(before) - 1)) for _ in range(most)}:
            edges.append(GraphEdge(before[other].id, id, draw(_ON_FAILURE)))
    return draw(st.permutations(steps)), edges


def wide_and_deep(seed: int) -> Run:
    """10,000 steps in one of four shapes: a random graph, a chain, a fan, a thousand chains side by side."""
    steps, edges = random_graph(10_000, random.Random(seed).choice([2, 20, 900]), seed)
    states = random.Random(seed).choices(STATES, [1] * len(STATES), k=10_000)
    steps = [GraphStep(s.id, s.name, state) for s, state in zip(steps, states, strict=True)]
    if seed % 4 == 1:
        edges = [GraphEdge(*pair) for pair in pairwise(range(10_000))]
    if seed % 4 == 2:
        edges = [GraphEdge(0, id) for id in range(1, 9_999)]
        edges += [GraphEdge(id, 9_999) for id in range(1, 9_999)]
    if seed % 4 == 3:
        edges = [GraphEdge(id, id + 1000) for id in range(9_000)]
    return steps, edges


def check(run: Run, drawing: Drawing, most: int) -> None:
    """What holds for every drawing."""
    steps, edges = run
    nodes = {node.id: node for node in drawing.nodes}
    node_of = {id: node for node in drawing.nodes for id in node.ids}
    assert len(drawing.nodes) <= most
    assert sorted(id for node in drawing.nodes for id in node.ids) == sorted(s.id for s in steps)
    assert drawing.steps == len(steps)
    # Every edge leads to a later layer, in the drawing too, and each edge between two nodes is drawn.
    for edge in drawing.edges:
        source, target = nodes[edge.from_id], nodes[edge.to_id]
        assert source.layer < target.layer < drawing.layers
        assert len(edge.points) == 2 * (target.layer - source.layer)
        begin, end = edge.points[0], edge.points[-1]
        assert (begin[0], end[0]) == (source.x + NODE_WIDTH, target.x)
        assert begin[1] == pytest.approx(source.y + source.height / 2, abs=0.2)
        assert end[1] == pytest.approx(target.y + target.height / 2, abs=0.2)
        assert all(a[0] < b[0] for a, b in pairwise(edge.points))
    between = {(node_of[e.from_id].id, node_of[e.to_id].id) for e in edges}
    drawn = [(edge.from_id, edge.to_id) for edge in drawing.edges]
    assert sorted(drawn) == sorted(pair for pair in between if pair[0] != pair[1])
    # No step is lost from the counts, above all none that failed.
    state_of = {step.id: step for step in steps}
    for node in drawing.nodes:
        held = [state_of[id] for id in node.ids]
        is_map = node.kind == "map" and node.is_stack
        assert node.counts == Counter(s.state for s in (held[1:] if is_map else held))
        assert node.state in node.counts
    # Nodes of a layer do not overlap, and all are inside of the drawing.
    for layer in range(drawing.layers):
        column = sorted((n for n in drawing.nodes if n.layer == layer), key=lambda node: node.y)
        assert all(upper.y + upper.height < lower.y for upper, lower in pairwise(column))
        assert column
    assert all(n.y >= 0 and n.y + n.height <= drawing.height + 0.2 for n in drawing.nodes)
    assert all(n.x + NODE_WIDTH <= drawing.width for n in drawing.nodes)


@pytest.mark.slow
@settings(deadline=None)
@given(runs(), st.integers(1, 12))
def test_any_run_is_drawn_with_as_many_nodes_as_one_asks_for(run: Run, most: int) -> None:
    check(run, lay_out(*run, most), most)


@pytest.mark.slow
@settings(deadline=None)
@given(runs())
def test_the_critical_path_is_drawn_from_its_first_step_to_its_last(run: Run) -> None:
    drawing = lay_out(*run)
    critical = sorted((n for n in drawing.nodes if n.is_critical), key=lambda node: node.layer)
    marked = {(edge.from_id, edge.to_id) for edge in drawing.edges if edge.is_critical}
    assert marked == {(a.id, b.id) for a, b in pairwise(critical)}
    # No other way through the graph takes longer.
    longest: dict[int, float] = {}
    seconds = {s.id: s.seconds or 0.0 for s in run[0]}
    for node in sorted(drawing.nodes, key=lambda node: node.layer):
        before = [longest[e.from_id] for e in drawing.edges if e.to_id == node.id]
        longest[node.id] = max(before, default=0.0) + max(seconds[id] for id in node.ids)
    taken = sum(max(seconds[id] for id in node.ids) for node in critical)
    assert taken == pytest.approx(max(longest.values()))


@pytest.mark.parametrize("seed", range(8))
def test_ten_thousand_steps_are_drawn_with_150_nodes(seed: int) -> None:
    """Case 31: a browser gets 150 nodes, whatever the size of the run."""
    run = wide_and_deep(seed)
    drawing = lay_out(*run)
    check(run, drawing, MOST_NODES)
    failed = sum(node.counts.get("failed", 0) for node in drawing.nodes)
    assert failed == sum(step.state == "failed" for step in run[0]) > 0


@settings(max_examples=30, deadline=None)
@given(runs())
def test_the_same_run_is_drawn_the_same_way(run: Run) -> None:
    assert lay_out(*run) == lay_out(*run)


def test_a_circle_names_its_steps() -> None:
    steps = [GraphStep(id, f"step {id}", "deferred") for id in (1, 2, 3)]
    with pytest.raises(CycleError) as raised:
        lay_out(steps, [GraphEdge(1, 2), GraphEdge(2, 3), GraphEdge(3, 2)])
    assert set(raised.value.args[1]) == {2, 3}


def test_nothing_is_drawn_of_nothing() -> None:
    assert lay_out([], []) == Drawing((), (), 0, 0, 0.0, 0.0)


def test_an_edge_of_a_deleted_step_is_left_out() -> None:
    drawing = lay_out([GraphStep(1, "a", "finished")], [GraphEdge(7, 1), GraphEdge(1, 9)])
    assert (len(drawing.nodes), drawing.edges) == (1, ())


def nodes(run: Run, most: int = MOST_NODES) -> dict[str, DrawnNode]:
    return {node.name: node for node in lay_out(*run, most).nodes}


def map_of(*states: str) -> Run:
    """A map of one member per state, with a step before and a step after it."""
    steps = [
        GraphStep(1, "fetch", "finished", seconds=3),
        GraphStep(2, "resize", "finished", "map", seconds=0.1),
        GraphStep(3, "index", "deferred"),
        *(
            GraphStep(9 + at, f"resize[{at}]", state, "member", 2, 10 + at)
            for at, state in enumerate(states)
        ),
    ]
    edges = [GraphEdge(1, 2), GraphEdge(2, 3, "continue")]
    return steps, edges + [GraphEdge(step.id, 3, "continue") for step in steps[3:]]


def test_a_map_is_one_stack_with_the_counts_of_its_members() -> None:
    found = nodes(map_of(*["finished"] * 45, "started", "started", "failed"))
    resize = found["resize"]
    assert (len(found), resize.id, len(resize.ids)) == (3, 2, 49)
    assert resize.counts == {"finished": 45, "started": 2, "failed": 1}
    assert (resize.state, resize.is_stack, resize.height) == ("started", True, 74)
    assert [node.layer for node in found.values()] == [0, 1, 2]


def test_a_map_without_members_is_an_ordinary_node() -> None:
    resize = nodes(map_of())["resize"]
    assert (resize.counts, resize.is_stack, resize.height) == ({"finished": 1}, False, 48)


def siblings(number: int) -> Run:
    """`split` before, and `join` after, these equal siblings; one of them failed."""
    steps = [
        GraphStep(0, "split", "finished"),
        *(GraphStep(id, f"import_{id}", "finished") for id in range(1, number)),
        GraphStep(number, f"import_{number}", "failed"),
        GraphStep(number + 1, "join", "canceled"),
    ]
    edges = [GraphEdge(0, id) for id in range(1, number + 1)]
    return steps, edges + [GraphEdge(id, number + 1) for id in range(1, number + 1)]


def test_equal_siblings_are_folded_when_there_are_too_many_only() -> None:
    assert len(nodes(siblings(100))) == 102
    found = nodes(siblings(300))
    assert list(found) == ["split", "import", "join"]
    assert found["import"].counts == {"finished": 299, "failed": 1}
    assert found["import"].state == "failed"


def test_unlike_steps_of_a_layer_are_folded_without_a_name_and_the_failed_ones_apart() -> None:
    names = ["alpha", "beta", "gamma", "delta"]
    steps = [GraphStep(0, "split", "finished")]
    steps += [
        GraphStep(id, name, "failed" if name == "beta" else "started")
        for id, name in enumerate(names, 1)
    ]
    drawing = lay_out(steps, [GraphEdge(0, id) for id in (1, 2, 3, 4)], 3)
    found = {(n.name, len(n.ids), n.state) for n in drawing.nodes}
    assert found == {("split", 1, "finished"), ("beta", 1, "failed"), ("", 3, "started")}


def test_a_failure_marks_the_edges_that_it_went_along() -> None:
    steps = [
        GraphStep(1, "a", "failed"),
        GraphStep(2, "b", "canceled"),
        GraphStep(3, "c", "canceled"),
        GraphStep(4, "d", "finished"),
    ]
    edges = [GraphEdge(1, 2), GraphEdge(2, 3), GraphEdge(1, 4, "continue")]
    drawn = lay_out(steps, edges).edges
    assert [(e.from_id, e.to_id) for e in drawn if e.is_hit] == [(1, 2), (2, 3)]
    assert [e.on_failure for e in drawn] == ["cancel", "cancel", "continue"]


def test_the_critical_path_counts_known_durations_and_then_steps() -> None:
    before = in_order([1, 2, 3, 4, 5], [(1, 2), (2, 5), (1, 3), (3, 4), (4, 5)])
    unknown = dict.fromkeys(before)
    assert critical_path(before, unknown) == [1, 3, 4, 5]
    assert critical_path(before, {**unknown, 2: 0.5}) == [1, 2, 5]
    assert critical_path({}, {}) == []


def test_a_name_of_200_emoji_is_kept_whole() -> None:
    name = "\N{PACKAGE}\N{ZERO WIDTH JOINER}\N{SPARKLES}1" * 50
    steps = [GraphStep(id, name.replace("1", str(id)), "finished") for id in range(1, 4)]
    assert [node.name for node in lay_out(steps, []).nodes] == [step.name for step in steps]
    (stack,) = lay_out(steps, [], 1).nodes
    assert stack.name == "\N{PACKAGE}\N{ZERO WIDTH JOINER}\N{SPARKLES}"


def test_an_edge_over_several_layers_runs_beside_the_nodes_between() -> None:
    steps = [GraphStep(id, f"s{id}", "finished") for id in range(1, 5)]
    edges = [GraphEdge(1, 2), GraphEdge(2, 3), GraphEdge(3, 4), GraphEdge(1, 4)]
    drawing = lay_out(steps, edges)
    long = next(edge for edge in drawing.edges if (edge.from_id, edge.to_id) == (1, 4))
    assert len(long.points) == 6
    for (left, height), (right, same) in pairwise(long.points[1:-1]):
        if height == same and right - left == NODE_WIDTH:
            (node,) = (n for n in drawing.nodes if n.x == left)
            assert not node.y - 5 <= height <= node.y + node.height + 5


def test_the_sweeps_leave_far_fewer_crossings(monkeypatch: pytest.MonkeyPatch) -> None:
    run = random_graph(150, 7, seed=3)
    ordered = crossings(lay_out(*run))
    monkeypatch.setattr(graph, "ORDER_SWEEPS", 0)
    assert ordered < crossings(lay_out(*run)) / 2


def test_the_examples_run() -> None:
    assert doctest.testmod(graph).failed == 0

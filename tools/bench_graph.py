"""Measures how much processor time the drawing of a run's graph takes, and prints it."""

from __future__ import annotations

import random
from time import process_time

from flask_opsjobs.workflows.graph import Drawing, GraphEdge, GraphStep, lay_out

# Steps of the graph, and how many nodes are drawn of it.
CASES = ((150, 150), (1000, 1000), (1000, 150), (10_000, 150))


def random_graph(number: int, per_layer: int, seed: int) -> tuple[list[GraphStep], list[GraphEdge]]:
    """Steps in layers, each behind one to three steps, of ten mostly of the layer before it."""
    dice = random.Random(seed)
    edges = set()
    for target in range(per_layer, number):
        begin = target // per_layer * per_layer
        for _ in range(dice.randint(1, 3)):
            back = 1 if dice.random() < 0.9 else dice.randint(1, 5)
            source = max(0, begin - back * per_layer) + dice.randrange(per_layer)
            edges.add((source, target))
    steps = [GraphStep(id, f"step_{id}", "finished", seconds=dice.random()) for id in range(number)]
    return steps, [GraphEdge(*pair) for pair in sorted(edges)]


def crossings(drawing: Drawing) -> int:
    """How often two edges cross between two layers."""
    between: dict[float, set[tuple[float, float]]] = {}
    for edge in drawing.edges:
        points = edge.points
        for (x, y), (_, later) in zip(points[::2], points[1::2], strict=True):
            between.setdefault(x, set()).add((y, later))
    return sum(
        (a - c) * (b - d) < 0
        for lines in between.values()
        for number, (a, b) in enumerate(sorted(lines))
        for c, d in sorted(lines)[:number]
    )


def main() -> None:
    """Print a line for each case: the shortest of nine times."""
    for number, most in CASES:
        steps, edges = random_graph(number, max(7, number // 40), seed=number)
        taken = []
        for _ in range(9):
            begin = process_time()
            drawing = lay_out(steps, edges, most)
            taken.append(process_time() - begin)
        print(
            f"{number:>6,} steps {len(edges):>6,} edges: {len(drawing.nodes):>5,} nodes drawn in"
            f" {min(taken) * 1000:.1f} ms, {crossings(drawing):,} crossings"
        )


if __name__ == "__main__":
    main()

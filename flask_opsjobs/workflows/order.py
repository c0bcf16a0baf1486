"""Orders the steps of a graph so that each comes after those that it waits for, and finds cycles. Pure.

A step is a position, from 0 on; `before[position]` lists the positions that it waits for.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush

Before = Sequence[Sequence[int]]


def topological_order(before: Before) -> list[int]:
    """The positions, each after those that it waits for, and otherwise in ascending order.

    A. B. Kahn's algorithm. Leaves out the steps of cycles and those behind them.
    """
    waits_for = [len(positions) for positions in before]
    behind: list[list[int]] = [[] for _ in before]
    for position, positions in enumerate(before):
        for other in positions:
            behind[other].append(position)
    free = [position for position, number in enumerate(waits_for) if not number]
    heapify(free)
    order = []
    while free:
        position = heappop(free)
        order.append(position)
        for other in behind[position]:
            waits_for[other] -= 1
            if not waits_for[other]:
                heappush(free, other)
    return order


def find_cycles(before: Before, most: int) -> list[list[int]]:
    """At most `most` cycles. No two of them share a step; one that shares a step with another is left out."""
    cycles: list[list[int]] = []
    while len(cycles) < most and (cycle := find_cycle(before, topological_order(before))):
        cycles.append(cycle)
        broken = set(cycle)
        before = [() if number in broken else positions for number, positions in enumerate(before)]
    return cycles


def find_cycle(before: Before, order: Sequence[int]) -> list[int]:
    """A cycle among the steps that `topological_order` left out: each waits for the one before it, the first
    for the last. Empty when it left out none.
    """
    left = set(range(len(before))) - set(order)
    if not left:
        return []
    # Each of these waits for another of them, so that this walk must come back to where it was.
    seen: dict[int, int] = {}
    position = min(left)
    while position not in seen:
        seen[position] = len(seen)
        position = next(other for other in before[position] if other in left)
    cycle = [other for other, number in seen.items() if number >= seen[position]]
    # In the order in which they would run, the first defined first.
    cycle.reverse()
    first = cycle.index(min(cycle))
    return cycle[first:] + cycle[:first]

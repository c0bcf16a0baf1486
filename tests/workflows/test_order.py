"""The order of a graph, and the path of a cycle."""

from __future__ import annotations

import random

from flask_opsjobs.workflows.order import find_cycle, find_cycles, topological_order


def test_steps_without_edges_keep_their_order() -> None:
    assert topological_order([[], [], []]) == [0, 1, 2]
    assert topological_order([]) == []


def test_a_step_comes_after_those_that_it_waits_for_and_else_as_early_as_it_was_built() -> None:
    assert topological_order([[3], [], [0, 1], [1]]) == [1, 3, 0, 2]


def test_any_graph_without_a_cycle_is_ordered_whole() -> None:
    for seed in range(200):
        chance = random.Random(seed)
        names = list(range(chance.randint(1, 60)))
        chance.shuffle(names)
        before: list[list[int]] = [[] for _ in names]
        for number, name in enumerate(names):
            some = chance.sample(names[:number], chance.randint(0, min(number, 5)))
            before[name] = some
        order = topological_order(before)
        assert sorted(order) == list(range(len(names))), seed
        place = {name: number for number, name in enumerate(order)}
        assert all(place[a] < place[b] for b, some in enumerate(before) for a in some), seed
        assert find_cycle(before, order) == []
        assert find_cycles(before, 10) == []


def test_a_cycle_is_found_behind_and_before_other_steps() -> None:
    # 0 → 1 → 2 → 3 → 1, and 4 behind it.
    before = [[], [0, 3], [1], [2], [3]]
    order = topological_order(before)
    assert order == [0]
    assert find_cycle(before, order) == [1, 2, 3]


def test_a_step_that_waits_for_itself_is_a_cycle() -> None:
    assert find_cycle([[0]], topological_order([[0]])) == [0]


def test_every_cycle_is_found_once_up_to_a_number() -> None:
    # 0 ⇄ 1, 2 → 2 behind it, 3 ⇄ 4, and 5 behind all.
    before = [[1], [0], [1, 2], [4], [3], [2, 4]]
    assert find_cycles(before, 10) == [[0, 1], [2], [3, 4]]
    assert find_cycles(before, 2) == [[0, 1], [2]]


def test_without_the_steps_of_the_cycles_that_are_found_the_others_have_an_order() -> None:
    for seed in range(200):
        chance = random.Random(seed)
        size = chance.randint(2, 40)
        before = [chance.sample(range(size), chance.randint(0, 2)) for _ in range(size)]
        cycles = find_cycles(before, size)
        found = [step for cycle in cycles for step in cycle]
        assert len(found) == len(set(found)), seed
        rest = [[] if step in found else before[step] for step in range(size)]
        assert len(topological_order(rest)) == size, seed
        for cycle in cycles:
            for earlier, later in zip(cycle, cycle[1:] + cycle[:1], strict=True):
                assert earlier in before[later], seed


def test_each_step_of_a_cycle_waits_for_the_one_before_it() -> None:
    for seed in range(200):
        chance = random.Random(seed)
        size = chance.randint(2, 40)
        before = [chance.sample(range(size), chance.randint(0, 2)) for _ in range(size)]
        order = topological_order(before)
        cycle = find_cycle(before, order)
        assert bool(cycle) == (len(order) < size), seed
        for earlier, later in zip(cycle, cycle[1:] + cycle[:1], strict=True):
            assert earlier in before[later], seed

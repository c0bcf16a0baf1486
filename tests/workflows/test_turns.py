"""A turn of `advance` is bounded, also where one step ends before many, and runs only what it needs."""

from __future__ import annotations

import itertools
import random
from functools import partial
from typing import Any

import psycopg
import pytest

from flask_opsjobs.core import sql
from flask_opsjobs.core.db import _END_IF_FROZEN
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.endings import EndedAttempt, pending_runs, write_outcomes
from flask_opsjobs.endings.advance import advance
from flask_opsjobs.endings.pending_runs import PendingRuns
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.workflows import transitions
from flask_opsjobs.workflows.checks import checks
from tests.support import graphs
from tests.support.engine import Bench
from tests.support.graphs import Graph, begin, settle_all
from tests.support.waiting import wait_until
from tests.workflows.test_reopen import reopen

# A turn passes ends on over three edges here, so that small graphs need several turns.
MOST = 3


def turn(graph: Graph) -> bool:
    """Make one turn; returns whether there is more to do."""
    done = advance(graph.connection, graph.run, 1_000_000, most=MOST)
    assert done is not None
    return done.has_more


def settle(graph: Graph) -> None:
    """Make turns until there is nothing more to do."""
    while turn(graph):
        pass
    assert checks(graph.connection) == []


def available(graph: Graph) -> str:
    """The steps that were released, in the order of their names."""
    return " ".join(sorted(name for name, state in graph.states().items() if state == "available"))


def test_a_turn_of_a_run_that_is_being_canceled_releases_nothing(bench: Bench) -> None:
    """Not even a step behind one that finished, which the turn has not stopped yet."""
    graph = Graph.make(bench.connection, "a u v w b x", ["x u", "x v", "x w", "a b"])
    graph.end("a")
    now = read_clock(bench.connection)
    transitions.cancel(bench.connection, [graph.run], "anna", "a test", now)
    done = advance(bench.connection, graph.run, 1_000_000, most=MOST)
    assert done is not None
    assert (done.has_more, done.lanes) == (True, ())
    # Which three it stops first depends on the plan; `b` is not among them.
    assert graph.states()["b"] == "deferred"
    settle(graph)
    assert graph.states() == {"a": "finished", **dict.fromkeys("uvwbx", "canceled")}


def test_a_step_in_front_of_many_releases_them_in_turns(bench: Bench) -> None:
    graph = Graph.make(bench.connection, "a b c d e f g h", [f"a {name}" for name in "bcdefgh"])
    graph.end("a")
    assert turn(graph)
    assert available(graph) == "b c d"
    assert turn(graph)
    assert available(graph) == "b c d e f g"
    turn(graph)
    assert available(graph) == "b c d e f g h"
    settle_all(bench.connection)


def test_ends_of_several_statements_are_settled_in_turns(bench: Bench) -> None:
    """An event names all steps that a statement ended, so two events may name more than a turn settles."""
    graph = Graph.make(bench.connection, "a b c d e", [])
    for ended in ("ab", "cde"):
        now = read_clock(bench.connection)
        outcomes = [
            EndedAttempt(begin(graph, name), 1, None, "worker", Outcome("returned"))
            for name in ended
        ]
        assert len(write_outcomes(bench.connection, outcomes, now)) == len(ended)
    events = bench.rows("SELECT cardinality(job_ids) AS steps FROM opsjobs.workflow_end_events")
    assert [event["steps"] for event in events] == [2, 3]
    assert turn(graph)
    assert graph.row()["settled"] == 2
    assert not turn(graph)
    assert graph.row()["settled"] == 5
    settle_all(bench.connection)


def test_an_event_of_more_steps_than_a_turn_settles_is_taken_whole(bench: Bench) -> None:
    graph = Graph.make(bench.connection, "a b c d", [])
    now = read_clock(bench.connection)
    outcomes = [
        EndedAttempt(begin(graph, name), 1, None, "worker", Outcome("returned")) for name in "abcd"
    ]
    write_outcomes(bench.connection, outcomes, now)
    turn(graph)
    assert graph.row()["settled"] == 4
    settle_all(bench.connection)


def test_what_waits_for_two_such_steps_is_released_when_both_were_passed_on(bench: Bench) -> None:
    edges = [f"{source} {name}" for source in "ab" for name in "cdefg"]
    graph = Graph.make(bench.connection, "a b c d e f g", edges)
    graph.end("a")
    graph.end("b")
    for expected in ("", "c", "c d e f", "c d e f g"):
        turn(graph)
        assert available(graph) == expected
    settle_all(bench.connection)


def test_the_events_of_steps_that_the_limit_cut_off_are_kept(bench: Bench) -> None:
    """Three steps end at once; the edges of the second are cut, and those of the third not read."""
    edges = ["a d", "a e", "b d", "b e", "b f", "c f", "c g"]
    graph = Graph.make(bench.connection, "a b c d e f g", edges)
    for name in "cab":
        graph.end(name)
    assert turn(graph)
    passed = "SELECT name, passed_to FROM opsjobs.steps WHERE settled IS NOT NULL ORDER BY job_id"
    assert [row["passed_to"] for row in bench.rows(passed)] == [None, graph.ids["d"], 0]
    settle(graph)
    assert available(graph) == "d e f g"
    settle_all(bench.connection)


def test_a_step_that_is_retried_before_its_end_was_passed_on_to_all_releases_each_once(
    bench: Bench,
) -> None:
    edges = [f"{source} {name} continue" for source in "ab" for name in "cdefg"]
    graph = Graph.make(bench.connection, "a b c d e f g", edges)
    graph.end("a", "failed")
    assert turn(graph)
    reopen(graph, "a")
    settle(graph)
    graph.end("b")
    settle(graph)
    assert available(graph) == "a", "not c, d and e, to which the first end was passed on"
    graph.end("a")
    settle(graph)
    assert available(graph) == "c d e f g"


def test_what_is_reopened_counts_an_end_that_is_still_on_its_way(bench: Bench) -> None:
    """Step g was canceled behind b, and is reopened with it before the end of a was passed on to g."""
    graph = Graph.make(bench.connection, "a b c d e f g", [*(f"a {x}" for x in "cdefg"), "b g"])
    graph.end("b", "failed")
    settle(graph)
    graph.end("a")
    assert turn(graph)
    reopen(graph, "b")
    settle(graph)
    assert available(graph) == "b c d e f"
    graph.end("b")
    settle(graph)
    assert available(graph) == "c d e f g"


def test_what_is_behind_many_failed_steps_is_canceled_to_the_last(bench: Bench) -> None:
    """More steps than a turn cancels wait for one step, and others behind those."""
    names = "bcdefgh"
    edges = [*(f"a {name}" for name in names), *(f"{name} {name}2" for name in names)]
    steps = " ".join(["a", *names, *(f"{name}2" for name in names)])
    graph = Graph.make(bench.connection, steps, edges)
    graph.end("a", "failed")
    settle(graph)
    settle_all(bench.connection)
    assert set(graph.states().values()) == {"failed", "canceled"}
    assert graph.row()["state"] == "failed"


def test_all_steps_that_wait_are_canceled_by_the_cancel_of_their_run(bench: Bench) -> None:
    """None of them because of another, though the cancel needs several turns."""
    graph = Graph.make(bench.connection, "a b c d e f g", [f"a {name}" for name in "bcdefg"])
    now = read_clock(bench.connection)
    transitions.cancel(bench.connection, [graph.run], "anna", "because it is a test", now)
    settle(graph)
    rows = bench.rows("SELECT DISTINCT ended_by FROM opsjobs.jobs")
    assert [row["ended_by"] for row in rows] == ["canceled"]
    assert graph.row()["state"] == "canceled"


@pytest.mark.parametrize("seed", range(12))
def test_a_random_graph_ends_alike_in_small_turns_and_in_one(
    seed: int, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its steps end in an order of their own, some fail, and turns come between them."""
    found = []
    for most in (1_000, 1 + seed % 4):
        monkeypatch.setattr(graphs, "advance", partial(advance, most=most))
        found.append(_play(bench, random.Random(seed)))
    assert found[0] == found[1], f"seed {seed}"


def _play(bench: Bench, dice: random.Random) -> tuple[dict[str, str], str]:
    names = [f"s{number}" for number in range(14)]
    edges = [
        f"{source} {target} {dice.choice(['cancel', 'continue'])}"
        for position, target in enumerate(names)
        for source in names[:position]
        if dice.random() < 0.35
    ]
    fails = {name for name in names if dice.random() < 0.25}
    graph = Graph.make(bench.connection, " ".join(names), edges)
    while running := [name for name, state in graph.states().items() if state == "available"]:
        for name in dice.sample(running, dice.randint(1, len(running))):
            graph.end(name, "failed" if name in fails else "finished")
        settle_all(bench.connection)
    return graph.states(), graph.row()["state"]


def test_a_turn_runs_only_the_statements_that_it_needs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = Graph.make(bench.connection, "a b c", ["a c", "b c"])
    settle_all(bench.connection)
    names = {sql.load(name): name for name in sql._FILES} | {f"BEGIN; {_END_IF_FROZEN}": "begin"}
    for ends, expected in (
        ("a", ["begin", "lock_workflow", "settle_steps"]),
        ("b", ["begin", "lock_workflow", "settle_steps", "release_steps"]),
        ("c", ["begin", "lock_workflow", "settle_steps", "end_workflow"]),
    ):
        graph.end(ends)
        seen: list[str] = []
        execute = psycopg.Cursor.execute

        def note(*args: Any, seen: list[str] = seen, execute: Any = execute, **options: Any) -> Any:
            seen.append(names[args[1]])
            return execute(*args, **options)

        with monkeypatch.context() as watched:
            watched.setattr(psycopg.Cursor, "execute", note)
            turn(graph)
        assert seen == expected


def test_turns_get_smaller_while_they_take_long_and_larger_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"s{number}" for number in range(18)]
    graph = Graph.make(bench.connection, " ".join(["a", *names]), [f"a {name}" for name in names])
    graph.end("a")
    monkeypatch.setattr(pending_runs, "MOST_STEPS", 8)
    monkeypatch.setattr(pending_runs, "_FEWEST_STEPS", 1)
    pending, released = PendingRuns(1_000_000), [0]
    for long_seconds in (0.0, 0.0, 60.0, 60.0):
        monkeypatch.setattr(pending_runs, "_LONG_SECONDS", long_seconds)
        pending.add([graph.run])
        wait_until(lambda: pending.due_in() == 0, what="the run may be advanced")
        pending.advance(bench.connection)
        released.append(len(available(graph).split()))
    assert [b - a for a, b in itertools.pairwise(released)] == [8, 4, 2, 4]
    settle_all(bench.connection)

"""Advancing a run: releases, cascades and ends come from committed end events only, and exactly once."""

from __future__ import annotations

from itertools import pairwise

import pytest

from flask_opsjobs import endings
from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.endings import EndedAttempt
from flask_opsjobs.endings.advance import MOST_STEPS, advance
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.workflows.checks import checks
from tests.support.engine import Bench
from tests.support.graphs import CALLBACK, Graph, begin

MOST_BYTES = 1_000_000


def settle(graph: Graph) -> int:
    """Advance until there is nothing more to do; returns the number of calls."""
    for number in range(1, 200):
        done = advance(graph.connection, graph.run, MOST_BYTES)
        assert done is not None
        if not done.has_more:
            assert checks(graph.connection) == []
            return number
    raise AssertionError("it never comes to rest")


def test_a_step_is_released_when_its_last_parent_has_finished(bench: Bench) -> None:
    graph = Graph.make(bench.connection, "a b c", ["a c", "b c"])
    graph.end("a")
    settle(graph)
    assert graph.states() == {"a": "finished", "b": "available", "c": "deferred"}
    graph.end("b")
    done = advance(bench.connection, graph.run, MOST_BYTES)
    assert done is not None
    assert done.lanes == (("default", "default"),)
    assert graph.states()["c"] == "available"


def test_a_failure_cancels_what_is_behind_it_to_any_depth(bench: Bench) -> None:
    graph = Graph.make(bench.connection, "a b c d e", ["a b", "b c", "c d continue"])
    graph.end("a", "failed")
    settle(graph)
    assert graph.states() == {
        "a": "failed",
        "b": "canceled",
        "c": "canceled",
        "d": "available",
        "e": "available",
    }
    rows = bench.connection.execute(
        "SELECT name, settled_by FROM opsjobs.steps WHERE settled_by IS NOT NULL ORDER BY name"
    )
    assert dict(rows.fetchall()) == {"b": graph.ids["a"], "c": graph.ids["a"]}


def test_a_run_ends_with_its_last_step_and_names_the_culprit(bench: Bench) -> None:
    graph = Graph.make(bench.connection, "a b c", ["a b"])
    graph.end("c")
    graph.end("a", "failed")
    settle(graph)
    row = graph.row()
    assert (row["state"], row["ended_by"], row["ended_by_step"], row["end_no"]) == (
        "failed",
        "step",
        "a",
        1,
    )
    assert (row["settled"], row["finished"], row["failed"], row["canceled"]) == (3, 1, 1, 1)


def test_a_failure_does_not_end_the_run_while_other_steps_go_on(bench: Bench) -> None:
    """Case 12: nobody is called back before the last step has ended, and no step is left behind the end."""
    graph = Graph.make(bench.connection, "a b c d", ["a b", "c d"], on_end=CALLBACK)
    for name, state in (("a", "failed"), ("c", "finished")):
        graph.end(name, state)
        settle(graph)
        assert (graph.row()["state"], graph.row()["ended_at"]) == ("running", None)
    assert graph.states() == {"a": "failed", "b": "canceled", "c": "finished", "d": "available"}
    assert bench.rows("SELECT * FROM opsjobs.callbacks") == []
    graph.end("d")
    settle(graph)
    assert graph.row()["state"] == "failed"
    assert len(bench.rows("SELECT * FROM opsjobs.callbacks")) == 1


def test_a_job_that_ends_twice_counts_once(bench: Bench) -> None:
    """Case 2: a late end meets the fence and leaves no event, and an event is a hint, not a number."""
    graph = Graph.make(bench.connection, "a b c", ["a c", "b c"])
    ending = EndedAttempt(begin(graph, "a"), 1, None, "worker", Outcome("returned"))
    for number in (1, 0):
        now = read_clock(bench.connection)
        assert len(endings.write_outcomes(bench.connection, [ending], now)) == number
        events = bench.rows("SELECT job_ids FROM opsjobs.workflow_end_events")
        assert events == [{"job_ids": [graph.ids["a"]]}] * number
        settle(graph)
    bench.connection.execute(
        "INSERT INTO opsjobs.workflow_end_events SELECT %s, %s FROM generate_series(1, 3)",
        [graph.run, [graph.ids["a"]] * 2],
    )
    settle(graph)
    assert graph.states()["c"] == "deferred"
    assert (graph.row()["settled"], graph.row()["finished"]) == (1, 1)


def test_a_step_that_may_fail_does_not_fail_the_run(bench: Bench) -> None:
    graph = Graph.make(bench.connection, "a b", ["a b continue"], may_fail=["a"])
    graph.end("a", "failed")
    settle(graph)
    graph.end("b")
    settle(graph)
    assert graph.row()["state"] == "finished"


def test_an_event_whose_step_is_not_final_now_is_dropped(bench: Bench) -> None:
    """Case 15: a step failed, an operator retried it, then the event is read."""
    graph = Graph.make(bench.connection, "a b", ["a b"])
    graph.end("a", "failed")
    bench.connection.execute(
        "UPDATE opsjobs.jobs SET state = 'available', ended_at = NULL, ended_by = NULL WHERE id = %s",
        [graph.ids["a"]],
    )
    settle(graph)
    assert graph.states() == {"a": "available", "b": "deferred"}
    graph.end("a")
    settle(graph)
    assert graph.states()["b"] == "available"


@pytest.mark.parametrize("edges", ["chain", "fan"])
def test_a_long_cascade_comes_in_turns(bench: Bench, edges: str) -> None:
    """Case 19: it stops at no number of levels."""
    names = [f"s{number}" for number in range(2 * MOST_STEPS + 500)]
    pairs = {
        "chain": [f"{a} {b}" for a, b in pairwise(names)],
        "fan": [f"s0 {name}" for name in names[1:]],
    }
    graph = Graph.make(bench.connection, " ".join(names), pairs[edges])
    graph.end("s0", "failed")
    assert settle(graph) >= 3
    assert set(graph.states().values()) == {"failed", "canceled"}
    assert graph.row()["state"] == "failed"


def test_many_releases_come_in_turns(bench: Bench) -> None:
    names = [f"s{number}" for number in range(2 * MOST_STEPS + 500)]
    graph = Graph.make(bench.connection, " ".join(names), [f"s0 {name}" for name in names[1:]])
    graph.end("s0")
    assert settle(graph) == 3
    assert list(graph.states().values()).count("available") == len(names) - 1


EDGES_READ = """
    SELECT coalesce(sum(seq_tup_read + idx_tup_fetch), 0) AS number
    FROM pg_stat_xact_user_tables WHERE relname = 'edges'
"""


def test_each_edge_is_read_once_in_the_life_of_a_run(bench: Bench) -> None:
    """Case 6: no end looks at all the parents of what waits for it."""
    parents = [f"parent{number}" for number in range(100)]
    graph = Graph.make(bench.connection, " ".join([*parents, "all"]), [f"{p} all" for p in parents])
    bench.connection.execute("ANALYZE opsjobs.edges, opsjobs.steps, opsjobs.jobs")
    with bench.connection.transaction():
        # Of so small a table Postgres reads all, in one way or another.
        bench.connection.execute("SET LOCAL plan_cache_mode = force_custom_plan")
        for way in ("seqscan", "mergejoin", "hashjoin"):
            bench.connection.execute(f"SET LOCAL enable_{way} = off")
        # A session counts on until it has told the server, also over transactions.
        before = bench.row(EDGES_READ)["number"]
        for name in parents:
            graph.end(name)
            advance(bench.connection, graph.run, MOST_BYTES)
        read = bench.row(EDGES_READ)["number"] - before
    assert read == 100
    assert graph.states()["all"] == "available"


def test_a_locked_run_is_left_to_the_one_who_locked_it(bench: Bench) -> None:
    graph = Graph.make(bench.connection, "a b", ["a b"])
    graph.end("a")
    with connect_apart(bench.host.engine) as other, other.transaction():
        other.execute("SELECT FROM opsjobs.workflows WHERE id = %s FOR NO KEY UPDATE", [graph.run])
        assert advance(bench.connection, graph.run, MOST_BYTES) is None
    assert advance(bench.connection, graph.run, MOST_BYTES) is not None
    assert graph.states()["b"] == "available"

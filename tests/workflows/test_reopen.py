"""Retry and skip reopen exactly what a step doomed, and the run ends again."""

from __future__ import annotations

from collections.abc import Iterable

from flask_opsjobs import endings
from flask_opsjobs.core.db import Connection
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.endings.advance import advance
from flask_opsjobs.jobs import transitions as job_transitions
from flask_opsjobs.workflows import transitions
from flask_opsjobs.workflows.checks import checks
from tests.support.engine import Bench
from tests.support.graphs import Graph


def settle(graph: Graph) -> None:
    """Advance until there is nothing more to do."""
    while (done := advance(graph.connection, graph.run, 1_000_000)) is not None and done.has_more:
        pass
    assert checks(graph.connection) == []


def reopen(graph: Graph, names: Iterable[str]) -> None:
    """Retry steps, as the action does."""
    connection: Connection = graph.connection
    with connection.transaction():
        assert transitions.lock(connection, [graph.run]) == [graph.run]
        now, ids = read_clock(connection), [graph.ids[name] for name in names]
        transitions.reopen(connection, graph.run, ids, now)
        job_transitions.retry(connection, ids, now)


def skip(graph: Graph, name: str) -> None:
    """Skip a step with a result, as the action does."""
    connection = graph.connection
    with connection.transaction():
        transitions.lock(connection, [graph.run])
        now = read_clock(connection)
        transitions.reopen(connection, graph.run, [graph.ids[name]], now)
        endings.skip(connection, [graph.ids[name]], now, "42", "known to be well")


def test_a_retry_reopens_what_the_step_doomed_and_the_run_ends_again(bench: Bench) -> None:
    graph = Graph.make(bench.connection, "a b c d", ["a b", "b c", "c d"])
    graph.end("a")
    settle(graph)
    graph.end("b", "failed")
    settle(graph)
    assert (graph.row()["state"], graph.row()["end_no"]) == ("failed", 1)
    reopen(graph, "b")
    settle(graph)
    assert graph.states() == {"a": "finished", "b": "available", "c": "deferred", "d": "deferred"}
    assert graph.row()["state"] == "running"
    for name in "bcd":
        graph.end(name)
        settle(graph)
    row = graph.row()
    assert (row["state"], row["end_no"], row["ended_by"]) == ("finished", 2, "finished")


def test_a_step_behind_another_failure_stays_canceled(bench: Bench) -> None:
    """Case 14: what another step dooms too is not reopened."""
    graph = Graph.make(
        bench.connection, "a b both behind only", ["a both", "b both", "both behind", "a only"]
    )
    graph.end("a", "failed")
    graph.end("b", "failed")
    settle(graph)
    reopen(graph, "a")
    settle(graph)
    assert graph.states() == {
        "a": "available",
        "b": "failed",
        "both": "canceled",
        "behind": "canceled",
        "only": "deferred",
    }
    reopen(graph, "b")
    settle(graph)
    assert graph.states()["both"] == graph.states()["behind"] == "deferred"


def test_a_retry_of_both_at_once_reopens_what_both_doomed(bench: Bench) -> None:
    graph = Graph.make(bench.connection, "a b both", ["a both", "b both"])
    graph.end("a", "failed")
    graph.end("b", "failed")
    settle(graph)
    reopen(graph, "ab")
    settle(graph)
    assert graph.states()["both"] == "deferred"
    graph.end("a")
    graph.end("b")
    settle(graph)
    assert graph.states()["both"] == "available"


def test_a_skip_of_a_failed_step_lets_the_run_go_on(bench: Bench) -> None:
    graph = Graph.make(bench.connection, "a b", ["a b"])
    graph.end("a", "failed")
    settle(graph)
    skip(graph, "a")
    settle(graph)
    assert graph.states() == {"a": "finished", "b": "available"}
    output = bench.row("SELECT value FROM opsjobs.outputs WHERE job_id = %s", graph.ids["a"])
    assert output["value"] == 42


def test_a_skip_of_a_deferred_step_releases_what_is_behind_it_at_once(bench: Bench) -> None:
    graph = Graph.make(bench.connection, "a b c", ["a b", "b c"])
    skip(graph, "b")
    settle(graph)
    assert graph.states() == {"a": "available", "b": "finished", "c": "available"}
    graph.end("a")
    graph.end("c")
    settle(graph)
    assert graph.row()["state"] == "finished"


def test_a_skip_of_a_step_that_another_doomed(bench: Bench) -> None:
    graph = Graph.make(bench.connection, "a b c", ["a b", "b c"])
    graph.end("a", "failed")
    settle(graph)
    skip(graph, "b")
    settle(graph)
    assert graph.states() == {"a": "failed", "b": "finished", "c": "available"}


def test_a_step_that_went_on_behind_a_failure_is_not_released_again(bench: Bench) -> None:
    """The edge says `continue`: the step runs while the one before it is tried once more."""
    graph = Graph.make(bench.connection, "a b", ["a b continue"])
    graph.end("a", "failed")
    settle(graph)
    assert graph.states()["b"] == "available"
    reopen(graph, "a")
    settle(graph)
    graph.end("a")
    settle(graph)
    assert graph.states() == {"a": "finished", "b": "available"}
    graph.end("b")
    settle(graph)
    assert graph.row()["state"] == "finished"


def test_a_retry_before_the_end_was_passed_on(bench: Bench) -> None:
    graph = Graph.make(bench.connection, "a b", ["a b"])
    graph.end("a", "failed")
    reopen(graph, "a")
    settle(graph)
    assert graph.states() == {"a": "available", "b": "deferred"}
    assert graph.row()["settled"] == 0


def test_a_step_that_is_retried_alone_behind_a_canceled_one_is_canceled_again(bench: Bench) -> None:
    """Else its run would wait for ever: the end of the step in front of it was passed on before."""
    graph = Graph.make(bench.connection, "a b", ["a b"])
    now = read_clock(bench.connection)
    with bench.connection.transaction():
        transitions.lock(bench.connection, [graph.run])
        transitions.cancel(bench.connection, [graph.run], "anna", "not needed any more", now)
    settle(graph)
    assert graph.row()["state"] == "canceled"
    reopen(graph, "b")
    settle(graph)
    assert graph.states() == {"a": "canceled", "b": "canceled"}
    assert (graph.row()["state"], graph.row()["end_no"]) == ("failed", 2)

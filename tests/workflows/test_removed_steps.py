"""A step whose job was deleted by SQL: its run says so, and ends when it is canceled."""

from __future__ import annotations

import pytest

from flask_opsjobs.endings.advance import advance
from flask_opsjobs.workflows.checks import checks
from tests.support.engine import Bench
from tests.support.graphs import Graph


@pytest.fixture
def graph(bench: Bench) -> Graph:
    """A run whose second step lost its job."""
    graph = Graph.make(bench.connection, "a gone c d", ["a gone", "gone c", "a d"])
    graph.connection.execute("DELETE FROM opsjobs.jobs WHERE id = %s", [graph.ids["gone"]])
    graph.end("a")
    settle(graph)
    graph.end("d")
    settle(graph)
    return graph


def settle(graph: Graph) -> None:
    while (done := advance(graph.connection, graph.run, 1_000_000)) is not None and done.has_more:
        pass


def cancel(graph: Graph) -> None:
    graph.connection.execute(
        "UPDATE opsjobs.workflows SET state = 'canceling', cancel_requested_at = clock_timestamp(),"
        " cancel_requested_by = 'anna', cancel_reason = 'a step is gone' WHERE id = %s",
        [graph.run],
    )


def test_the_run_goes_on_without_it_and_the_doctor_names_it(graph: Graph) -> None:
    assert graph.states() == {"a": "finished", "c": "deferred", "d": "finished"}
    assert graph.row()["state"] == "running"
    (broken,) = checks(graph.connection)
    assert (broken.code, broken.step) == ("removed", "gone")


def test_cancel_ends_the_run(graph: Graph) -> None:
    cancel(graph)
    settle(graph)
    row = graph.row()
    assert (row["state"], row["settled"], row["canceled"]) == ("canceled", 4, 2)
    assert graph.states()["c"] == "canceled"
    assert checks(graph.connection) == []


def test_a_run_of_which_only_such_a_step_is_left_ends_as_failed(bench: Bench) -> None:
    """Cancel stopped no step, so the step that did not finish decides."""
    graph = Graph.make(bench.connection, "a gone", [])
    graph.connection.execute("DELETE FROM opsjobs.jobs WHERE id = %s", [graph.ids["gone"]])
    graph.end("a")
    settle(graph)
    cancel(graph)
    settle(graph)
    row = graph.row()
    assert (row["state"], row["ended_by"], row["ended_by_step"]) == ("failed", "step", "gone")


def test_a_started_step_is_waited_for(graph: Graph) -> None:
    graph.connection.execute(
        "UPDATE opsjobs.jobs SET state = 'started', started_at = now(), worker_id = 1, dispatch_no = 1,"
        " dispatched_at = now(), cancel_requested_at = now(), cancel_requested_by = 'anna',"
        " cancel_reason = 'a step is gone' WHERE id = %s",
        [graph.ids["c"]],
    )
    cancel(graph)
    settle(graph)
    row = graph.row()
    assert (row["state"], row["settled"], row["canceled"]) == ("canceling", 3, 1)

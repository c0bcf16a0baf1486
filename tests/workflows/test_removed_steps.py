"""A step whose job was deleted by SQL is lost: the advance loop finds it, and it counts as failed."""

from __future__ import annotations

import pytest

from flask_opsjobs.endings import advance as advancing
from flask_opsjobs.endings.advance import advance, look_for_lost_steps
from flask_opsjobs.host import Host
from flask_opsjobs.loops.advance import LOOP
from flask_opsjobs.loops.loop import Runner
from flask_opsjobs.workflows import transitions
from flask_opsjobs.workflows.checks import checks
from tests.support.engine import Bench
from tests.support.graphs import Graph, settle_all


@pytest.fixture
def graph(bench: Bench) -> Graph:
    """A run whose second step lost its job."""
    graph = Graph.make(bench.connection, "a gone c d", ["a gone", "gone c", "a d"])
    delete(graph, "gone")
    graph.end("a")
    settle(graph)
    graph.end("d")
    settle(graph)
    return graph


def settle(graph: Graph) -> None:
    """Advance the run until it has nothing to do. What contradicts the invariants is not looked for."""
    while (done := advance(graph.connection, graph.run, 1_000_000)) is not None and done.has_more:
        pass


def delete(graph: Graph, step: str) -> None:
    graph.connection.execute("DELETE FROM opsjobs.jobs WHERE id = %s", [graph.ids[step]])


def look(graph: Graph) -> None:
    """Look at all steps of all runs, as the loop does in several passes."""
    after = look_for_lost_steps(graph.connection)
    while after != (0, ""):
        after = look_for_lost_steps(graph.connection, after)
    settle_all(graph.connection)


def cancel(graph: Graph) -> None:
    graph.connection.execute(
        "UPDATE opsjobs.workflows SET state = 'canceling', cancel_requested_at = clock_timestamp(),"
        " cancel_requested_by = 'anna', cancel_reason = 'a step is gone' WHERE id = %s",
        [graph.run],
    )


def settled(graph: Graph) -> dict[str, str | None]:
    """What each step settled as."""
    rows = graph.connection.execute(
        "SELECT name, settled FROM opsjobs.steps WHERE workflow_id = %s", [graph.run]
    )
    return dict(rows.fetchall())


def test_until_the_loop_finds_it_the_run_goes_on_and_the_doctor_names_it(graph: Graph) -> None:
    assert graph.states() == {"a": "finished", "c": "deferred", "d": "finished"}
    assert graph.row()["state"] == "running"
    (broken,) = checks(graph.connection)
    assert (broken.code, broken.step) == ("removed", "gone")


def test_the_loop_finds_it_and_the_run_ends_as_failed(graph: Graph, host: Host) -> None:
    """What waits for it is canceled, and the run names it as the culprit."""
    runner = Runner(LOOP, host)
    for _ in range(3):
        runner.run_once(graph.connection)
    row = graph.row()
    assert (row["state"], row["ended_by_step"]) == ("failed", "gone")
    assert settled(graph) == {"a": "finished", "gone": "failed", "c": "canceled", "d": "finished"}
    assert checks(graph.connection) == []


def test_what_may_go_on_goes_on(bench: Bench) -> None:
    """A lost step that may fail, and one behind an edge that says `continue`."""
    graph = Graph.make(
        bench.connection, "x y b", ["x b continue", "y b continue"], may_fail=["x", "y"]
    )
    delete(graph, "x")
    delete(graph, "y")
    look(graph)
    assert graph.states() == {"b": "available"}
    graph.end("b")
    settle_all(bench.connection)
    assert graph.row()["state"] == "finished"


def test_a_started_step_whose_job_was_deleted_is_lost_too(bench: Bench) -> None:
    graph = Graph.make(bench.connection, "a b", [])
    bench.connection.execute(
        "UPDATE opsjobs.jobs SET state = 'started', started_at = now() WHERE id = %s",
        [graph.ids["a"]],
    )
    delete(graph, "a")
    graph.end("b")
    look(graph)
    assert (graph.row()["state"], graph.row()["ended_by_step"]) == ("failed", "a")


def test_a_large_run_is_looked_at_in_turns(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each turn looks at few steps, goes on where the last one ended, and then begins anew."""
    monkeypatch.setattr(advancing, "MOST_STEPS", 3)
    names = [f"s{number}" for number in range(7)]
    graphs = [Graph.make(bench.connection, " ".join(names), []) for _ in range(2)]
    seen = []
    after = (0, "")
    for _ in range(6):
        after = look_for_lost_steps(bench.connection, after)
        seen.append(after)
    first, second = (graph.run for graph in graphs)
    assert seen == [
        (first, "s2"),
        (first, "s5"),
        (second, "s1"),
        (second, "s4"),
        (second, "s6"),
        (0, ""),
    ]
    assert bench.rows("SELECT 1 FROM opsjobs.workflow_end_events") == []
    delete(graphs[1], "s3")
    look(graphs[1])
    assert [settled(graph)["s3"] for graph in graphs] == [None, "failed"]


def test_a_run_that_has_ended_may_lose_jobs(bench: Bench) -> None:
    graph = Graph.make(bench.connection, "a", [])
    graph.end("a")
    settle_all(bench.connection)
    delete(graph, "a")
    look(graph)
    assert (graph.row()["state"], settled(graph)) == ("finished", {"a": "finished"})


def test_a_job_that_was_deleted_after_its_step_settled_changes_nothing(bench: Bench) -> None:
    """A hint about such a step is dropped."""
    graph = Graph.make(bench.connection, "a b", ["a b"])
    graph.end("a")
    settle_all(bench.connection)
    delete(graph, "a")
    bench.connection.execute(
        "INSERT INTO opsjobs.workflow_end_events VALUES (%s, %s)", [graph.run, [graph.ids["a"]]]
    )
    look(graph)
    assert settled(graph) == {"a": "finished", "b": None}
    assert graph.states()["b"] == "available"


def test_a_retry_does_not_reopen_what_a_lost_step_doomed(bench: Bench) -> None:
    graph = Graph.make(bench.connection, "x gone c", ["x c", "gone c"])
    delete(graph, "gone")
    graph.end("x", "failed")
    look(graph)
    assert graph.row()["state"] == "failed"
    assert transitions.find_doomed_by(bench.connection, [graph.ids["x"]]) == []


def test_cancel_ends_the_run(graph: Graph) -> None:
    cancel(graph)
    look(graph)
    row = graph.row()
    assert (row["state"], row["settled"], row["canceled"], row["failed"]) == ("canceled", 4, 1, 1)
    assert graph.states()["c"] == "canceled"
    assert checks(graph.connection) == []


def test_a_canceled_run_of_which_only_such_a_step_is_left_ends_as_failed(bench: Bench) -> None:
    """Cancel stopped no step, so the step that did not finish decides."""
    graph = Graph.make(bench.connection, "a gone", [])
    delete(graph, "gone")
    graph.end("a")
    settle(graph)
    cancel(graph)
    look(graph)
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
    look_for_lost_steps(graph.connection)
    settle(graph)
    row = graph.row()
    assert (row["state"], row["settled"], row["canceled"]) == ("canceling", 3, 0)

"""What a commit makes of a run at once. No loop runs here: else it would do the same a second later."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from flask_opsjobs import OpsJobs
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.engine.dispatch.after_commit import AfterCommitDispatch
from flask_opsjobs.host import Host
from tests.support.engine import Bench
from tests.support.graphs import Graph, settle_all

WHY: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}
PAYMENT = ("payment", "order-1")


@pytest.fixture(autouse=True)
def dispatcher(host: Host) -> None:
    """Let the app act after commits, as it does outside of tests."""
    host.dispatcher = AfterCommitDispatch(host)


@pytest.fixture
def waiting(bench: Bench) -> Graph:
    """A run whose wait is open; `b` is behind it."""
    graph = Graph.make(bench.connection, "paid b", ["paid b"], waits={"paid": PAYMENT})
    settle_all(bench.connection)
    return graph


def outcomes(bench: Bench) -> list[str]:
    return [row["outcome"] for row in bench.rows("SELECT outcome FROM opsjobs.signals ORDER BY id")]


# --- the commit of a signal


def test_a_signal_ends_its_wait_and_the_next_step_is_dispatched(
    app: Flask, opsjobs: OpsJobs, bench: Bench, waiting: Graph
) -> None:
    other = Graph.make(bench.connection, "paid", [], waits={"paid": ("payment", "order-2")})
    settle_all(bench.connection)
    with app.app_context():
        opsjobs.signal("payment", key="order-1")
        opsjobs.signal("payment", key="order-2")
        assert waiting.states() == {"paid": "deferred", "b": "deferred"}
        opsjobs.host.session().commit()
    assert waiting.states() == {"paid": "finished", "b": "queued"}
    assert other.row()["state"] == "finished"
    assert outcomes(bench) == ["taken", "taken"]


def test_a_signal_whose_wait_ended_before_its_commit_is_late(
    app: Flask, opsjobs: OpsJobs, bench: Bench, waiting: Graph
) -> None:
    with app.app_context():
        opsjobs.signal("payment", key="order-1")
        waiting.end("paid", "failed")
        settle_all(bench.connection)
        opsjobs.host.session().commit()
    assert outcomes(bench) == ["late"]


def test_a_signal_of_the_command_line_ends_its_wait(app: Flask, waiting: Graph) -> None:
    result = app.test_cli_runner().invoke(args=["opsjobs", "signal", "payment", "--key", "order-1"])
    assert result.exit_code == 0, result.output
    assert waiting.states() == {"paid": "finished", "b": "queued"}


# --- the action of an operator


@pytest.fixture
def operator(host: Host) -> Operator:
    return Operator(host)


def test_a_skip_releases_and_dispatches_the_next_step(bench: Bench, operator: Operator) -> None:
    graph = Graph.make(bench.connection, "a b", ["a b"])
    graph.end("a", "failed")
    settle_all(bench.connection)
    assert operator.skip_step(graph.run, "a", 42, **WHY).is_done
    assert graph.states() == {"a": "finished", "b": "queued"}


def test_a_signal_of_an_operator_dispatches_the_next_step(
    operator: Operator, waiting: Graph
) -> None:
    assert operator.send_signal(waiting.run, "paid", 1, **WHY).is_done
    assert waiting.states() == {"paid": "finished", "b": "queued"}


@pytest.mark.parametrize("action", ["workflow.retry", "job.retry"])
def test_a_retried_wait_is_open_again_and_takes_what_came_meanwhile(
    app: Flask, opsjobs: OpsJobs, operator: Operator, bench: Bench, waiting: Graph, action: str
) -> None:
    waiting.end("paid", "failed")
    with app.app_context():
        opsjobs.signal("payment", key="order-1")
        opsjobs.host.session().commit()
    settle_all(bench.connection)
    target = (
        f"workflow/{waiting.run}" if action == "workflow.retry" else f"job/{waiting.ids['paid']}"
    )
    assert operator.run(action, [target], **WHY).is_done
    assert outcomes(bench) == ["taken"]
    assert waiting.states() == {"paid": "finished", "b": "queued"}


def test_a_canceled_run_has_ended(operator: Operator, waiting: Graph) -> None:
    assert operator.cancel_workflow(waiting.run, **WHY).is_done
    assert waiting.states() == {"paid": "canceled", "b": "canceled"}
    assert waiting.row()["state"] == "canceled"


@pytest.mark.parametrize("action", ["job.cancel", "job.discard"])
def test_a_step_that_an_operator_ended_ends_the_run(
    operator: Operator, waiting: Graph, action: str
) -> None:
    assert operator.run(action, [f"job/{waiting.ids['paid']}"], **WHY).is_done
    assert waiting.states()["b"] == "canceled"
    assert waiting.row()["state"] == "failed"

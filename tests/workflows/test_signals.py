"""Signals: kept early, taken once, late, ambiguous, counted when they are sent again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from flask import Flask

from flask_opsjobs import InvalidSignal, OpsJobs
from flask_opsjobs.core.db import Connection
from flask_opsjobs.endings.advance import advance, list_runs_to_advance
from flask_opsjobs.workflows.checks import checks
from flask_opsjobs.workflows.transitions import find_runs_of_signal
from tests.support.engine import Bench
from tests.support.graphs import Graph

PAYMENT = ("payment", "order-1")


@pytest.fixture
def send(app: Flask, opsjobs: OpsJobs, bench: Bench) -> Any:
    """Sends a signal, commits, and gives it to waits as the process that sent it does."""

    def send(name: str = "payment", key: str = "order-1", **options: Any) -> int:
        with app.app_context():
            sent = opsjobs.signal(name, key=key, **options)
            opsjobs.host.session().commit()
            days = opsjobs.host.settings.keep_signals_days
        find_runs_of_signal(bench.connection, sent.id, timedelta(days=days))
        return sent.id

    return send


def settle(connection: Connection) -> None:
    """Advance all runs until there is nothing more to do."""
    for _ in range(50):
        done = [advance(connection, run, 1_000_000) for run in list_runs_to_advance(connection)]
        if all(one is None or one.is_idle for one in done):
            assert checks(connection) == []
            return
    raise AssertionError("it never comes to rest")


def outcome(bench: Bench, signal: int) -> str:
    return str(bench.row("SELECT outcome FROM opsjobs.signals WHERE id = %s", signal)["outcome"])


def test_a_signal_ends_the_open_wait_and_its_payload_is_the_result(bench: Bench, send: Any) -> None:
    graph = Graph.make(bench.connection, "a paid c", ["a paid", "paid c"], waits={"paid": PAYMENT})
    graph.end("a")
    settle(bench.connection)
    signal = send(payload={"amount": 990})
    settle(bench.connection)
    assert graph.states() == {"a": "finished", "paid": "finished", "c": "available"}
    job = bench.job(graph.ids["paid"])
    assert job["ended_by"] == "signaled"
    output = bench.row("SELECT value FROM opsjobs.outputs WHERE job_id = %s", job["id"])
    assert output["value"] == {"amount": 990}
    row = bench.row("SELECT * FROM opsjobs.signals WHERE id = %s", signal)
    assert (row["outcome"], row["taken_by"]) == ("taken", job["id"])


def test_a_signal_that_comes_before_the_run_is_taken_by_the_first_wait(
    bench: Bench, send: Any
) -> None:
    """Case 22."""
    first, second = send(payload=1), send(payload=2)
    assert outcome(bench, first) == outcome(bench, second) == "early"
    graph = Graph.make(bench.connection, "one two", [], waits={"one": PAYMENT, "two": PAYMENT})
    settle(bench.connection)
    values = bench.rows("SELECT value FROM opsjobs.outputs ORDER BY job_id")
    assert [row["value"] for row in values] == [1, 2]
    assert set(graph.states().values()) == {"finished"}


def test_a_signal_after_the_wait_is_late(bench: Bench, send: Any) -> None:
    graph = Graph.make(bench.connection, "paid b", [], waits={"paid": PAYMENT})
    settle(bench.connection)
    send()
    settle(bench.connection)
    assert graph.states()["paid"] == "finished"
    assert outcome(bench, send()) == "late"


def test_a_signal_for_two_open_waits_is_ambiguous_and_changes_nothing(
    bench: Bench, send: Any
) -> None:
    one = Graph.make(bench.connection, "paid", [], waits={"paid": PAYMENT})
    two = Graph.make(bench.connection, "paid", [], waits={"paid": PAYMENT})
    settle(bench.connection)
    signal = send()
    settle(bench.connection)
    assert outcome(bench, signal) == "ambiguous"
    assert one.states() == two.states() == {"paid": "deferred"}
    send(run=two.run)
    settle(bench.connection)
    assert one.states() == {"paid": "deferred"}
    assert two.states() == {"paid": "finished"}


def test_a_signal_for_a_run_that_does_not_exist_is_refused_unless_it_was_sent_before(
    bench: Bench, send: Any
) -> None:
    graph = Graph.make(bench.connection, "paid", [], waits={"paid": PAYMENT})
    first = send(run=graph.run, dedupe="evt_1")
    for statement in ("DELETE FROM opsjobs.steps", "DELETE FROM opsjobs.workflows"):
        bench.connection.execute(statement)
    assert send(run=graph.run, dedupe="evt_1") == first
    with pytest.raises(InvalidSignal, match=f"there is no workflow {graph.run}: "):
        send(run=graph.run, dedupe="evt_2")
    assert bench.row("SELECT id, duplicates FROM opsjobs.signals") == {"id": first, "duplicates": 1}


def test_a_signal_is_sent_to_a_run_in_the_transaction_that_starts_it(
    app: Flask, opsjobs: OpsJobs, bench: Bench
) -> None:
    with app.app_context():
        flow = opsjobs.workflow("order")
        flow.wait("paid", signal="payment", key="order-1")
        run = flow.start()
        sent = opsjobs.signal("payment", key="order-1", run=run.id)
        opsjobs.host.session().commit()
    settle(bench.connection)
    assert outcome(bench, sent.id) == "taken"


def test_a_signal_for_a_run_that_has_ended_is_late(bench: Bench, send: Any) -> None:
    graph = Graph.make(bench.connection, "paid", [], waits={"paid": PAYMENT})
    graph.end("paid")
    settle(bench.connection)
    assert outcome(bench, send(run=graph.run)) == "late"


def test_an_ended_wait_makes_no_key_ambiguous(bench: Bench, send: Any) -> None:
    """Case 21: a later wait of the same key takes the next signal."""
    for amount in range(3):
        graph = Graph.make(bench.connection, "paid", [], waits={"paid": PAYMENT})
        settle(bench.connection)
        send(payload=amount)
        settle(bench.connection)
        assert graph.row()["state"] == "finished"


def test_a_signal_that_is_sent_again_is_counted_on_the_first(
    app: Flask, opsjobs: OpsJobs, bench: Bench
) -> None:
    with app.app_context():
        first = opsjobs.signal("payment", key="a", dedupe="evt_1", payload=1)
        again = opsjobs.signal("payment", key="a", dedupe="evt_1", payload=2)
        other = opsjobs.signal("payment", key="b", dedupe="evt_1")
        without = [opsjobs.signal("payment", key="a") for _ in range(2)]
        opsjobs.host.session().commit()
    assert (again.id, again.conflict) == (first.id, True)
    assert not first.conflict
    assert not other.conflict
    assert len({first.id, other.id, *(one.id for one in without)}) == 4
    row = bench.row("SELECT * FROM opsjobs.signals WHERE id = %s", first.id)
    assert (row["duplicates"], row["payload"]) == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"name": ""}, "name is empty"),
        ({"name": "x" * 201}, "name has 201 characters"),
        ({"name": "a\0b"}, "name "),
        ({"name": 7}, "name must be a text, got int"),
        ({"key": "k" * 201}, "key has 201 characters"),
        ({"run": 0}, "run must be the id of a workflow, got 0"),
        ({"payload": object()}, "payload is of type object, which JSON does not know"),
        ({"payload": "x" * 2_000_000}, "payload is 2000002 bytes as JSON, more than"),
        ({"payload": "a\0b"}, "payload "),
    ],
)
def test_a_bad_signal_is_refused(
    arguments: dict[str, Any], fault: str, app: Flask, opsjobs: OpsJobs, bench: Bench
) -> None:
    given: dict[str, Any] = {"name": "payment", **arguments}
    with app.app_context(), pytest.raises(InvalidSignal, match=fault):
        opsjobs.signal(given.pop("name"), **given)
    assert bench.rows("SELECT FROM opsjobs.signals") == []


def test_a_signal_of_a_rolled_back_transaction_never_was(
    app: Flask, opsjobs: OpsJobs, bench: Bench
) -> None:
    with app.app_context():
        opsjobs.signal("payment", key="order-1")
        opsjobs.host.session().rollback()
    assert bench.rows("SELECT FROM opsjobs.signals") == []

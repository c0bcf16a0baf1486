"""Late signals: a wait that is reopened takes the one that came for it, and no other."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from flask import Flask

from flask_opsjobs import OpsJobs, endings
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.core.db import Connection
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.host import Host
from flask_opsjobs.loops import advance as advance_loop
from flask_opsjobs.loops.loop import Runner
from flask_opsjobs.workflows.transitions import find_runs_of_signal
from tests.support.engine import Bench, race
from tests.support.graphs import Graph, settle_all

WHY: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}
PAYMENT = ("payment", "order-1")
TIMES = 40

Send = Callable[..., int]


@pytest.fixture
def operator(host: Host) -> Operator:
    return Operator(host)


@pytest.fixture
def send(app: Flask, opsjobs: OpsJobs, host: Host, bench: Bench) -> Send:
    """Sends a signal as a host does, and looks for its wait after the commit; returns its id."""

    def send(key: str = "order-1", **options: Any) -> int:
        with app.app_context():
            sent = opsjobs.signal("payment", key=key, payload=990, **options)
            host.session().commit()
        give(bench.connection, host, sent.id)
        return sent.id

    return send


def give(connection: Connection, host: Host, signal: int) -> None:
    find_runs_of_signal(connection, signal, timedelta(days=host.settings.keep_signals_days))


def start(bench: Bench, key: str = "order-1") -> Graph:
    """A run with an open wait, and a step behind it."""
    waits = {"paid": ("payment", key)}
    graph = Graph.make(bench.connection, "paid b", ["paid b"], waits=waits)
    bench.connection.execute("UPDATE opsjobs.steps SET timeout_seconds = 3600 WHERE kind = 'wait'")
    settle_all(bench.connection)
    return graph


def time_out(bench: Bench, key: str = "order-1") -> Graph:
    """A run that failed, because its wait timed out."""
    graph = start(bench, key)
    endings.expire(bench.connection, read_clock(bench.connection) + timedelta(hours=2))
    settle_all(bench.connection)
    assert graph.row()["state"] == "failed"
    return graph


def outcome(bench: Bench, signal: int) -> str:
    return str(bench.row("SELECT outcome FROM opsjobs.signals WHERE id = %s", signal)["outcome"])


def pass_of_loop(bench: Bench, host: Host) -> None:
    Runner(advance_loop.LOOP, host).run_once(bench.connection)
    settle_all(bench.connection)


@pytest.mark.parametrize("of", ["workflow", "job"])
def test_a_wait_that_is_retried_takes_the_late_signal(
    bench: Bench, operator: Operator, send: Send, of: str
) -> None:
    graph = time_out(bench)
    signal = send()
    assert outcome(bench, signal) == "late"
    target = f"workflow/{graph.run}" if of == "workflow" else f"job/{graph.ids['paid']}"
    assert operator.run(f"{of}.retry", [target], **WHY).is_done
    settle_all(bench.connection)
    assert graph.states() == {"paid": "finished", "b": "available"}
    assert outcome(bench, signal) == "taken"
    output = bench.row("SELECT value FROM opsjobs.outputs WHERE job_id = %s", graph.ids["paid"])
    assert output == {"value": 990}


@pytest.mark.parametrize("action", ["retry", "skip"])
def test_a_wait_behind_a_step_that_is_retried_or_skipped_takes_it_when_it_opens(
    bench: Bench, operator: Operator, send: Send, action: str
) -> None:
    graph = Graph.make(bench.connection, "a x paid", ["a x", "x paid"], waits={"paid": PAYMENT})
    graph.end("a", "failed")
    settle_all(bench.connection)
    signal = send()
    assert outcome(bench, signal) == "late"
    if action == "retry":
        assert operator.run("workflow.retry", [f"workflow/{graph.run}"], **WHY).is_done
        graph.end("a")
    else:
        assert operator.skip_step(graph.run, "a", None, **WHY).is_done
    settle_all(bench.connection)
    assert outcome(bench, signal) == "early"
    graph.end("x")
    settle_all(bench.connection)
    assert graph.row()["state"] == "finished"
    assert outcome(bench, signal) == "taken"


def test_a_wait_that_is_skipped_takes_no_late_signal(
    bench: Bench, host: Host, operator: Operator, send: Send
) -> None:
    graph = time_out(bench)
    signal = send()
    assert operator.skip_step(graph.run, "paid", None, **WHY).is_done
    pass_of_loop(bench, host)
    assert graph.states() == {"paid": "finished", "b": "available"}
    assert outcome(bench, signal) == "late"


def test_a_signal_that_came_before_the_run_was_started_stays_late(
    bench: Bench, host: Host, operator: Operator, send: Send
) -> None:
    """It may be for something else: the earlier run whose wait had ended."""
    time_out(bench)
    signal = send()
    graph = time_out(bench)
    assert operator.run("workflow.retry", [f"workflow/{graph.run}"], **WHY).is_done
    pass_of_loop(bench, host)
    assert graph.states()["paid"] == "deferred"
    assert outcome(bench, signal) == "late"
    assert operator.give_signal(graph.run, "paid", signal, **WHY).is_done
    assert graph.states()["paid"] == "finished"


def test_a_late_signal_for_another_key_or_run_is_not_taken(
    bench: Bench, host: Host, operator: Operator, send: Send
) -> None:
    graph, other = time_out(bench), time_out(bench)
    time_out(bench, "order-2")
    signals = [send(run=other.run), send("order-2")]
    assert operator.run("workflow.retry", [f"workflow/{graph.run}"], **WHY).is_done
    pass_of_loop(bench, host)
    assert graph.states()["paid"] == "deferred"
    assert [outcome(bench, signal) for signal in signals] == ["late", "late"]
    assert operator.run("workflow.retry", [f"workflow/{other.run}"], **WHY).is_done
    settle_all(bench.connection)
    assert other.states()["paid"] == "finished"


def test_a_late_signal_that_several_runs_could_have_taken_is_ambiguous(
    bench: Bench, host: Host, operator: Operator, send: Send
) -> None:
    one, two = time_out(bench), time_out(bench)
    signal = send()
    assert operator.run("workflow.retry", [f"workflow/{one.run}"], **WHY).is_done
    pass_of_loop(bench, host)
    assert one.states()["paid"] == "deferred"
    assert outcome(bench, signal) == "ambiguous"
    assert operator.give_signal(one.run, "paid", signal, **WHY).is_done
    assert (one.states()["paid"], two.states()["paid"]) == ("finished", "failed")


def test_of_two_late_signals_the_older_one_is_taken(
    bench: Bench, operator: Operator, send: Send
) -> None:
    graph = time_out(bench)
    signals = [send(), send()]
    assert operator.run("workflow.retry", [f"workflow/{graph.run}"], **WHY).is_done
    settle_all(bench.connection)
    assert [outcome(bench, signal) for signal in signals] == ["taken", "early"]


def test_a_late_signal_whose_host_commits_after_the_retry_is_taken_by_the_loop(
    app: Flask, opsjobs: OpsJobs, host: Host, bench: Bench, operator: Operator
) -> None:
    graph = time_out(bench)
    with app.app_context():
        sent = opsjobs.signal("payment", key="order-1")
        assert operator.run("workflow.retry", [f"workflow/{graph.run}"], **WHY).is_done
        host.session().commit()
    assert outcome(bench, sent.id) == "late"
    pass_of_loop(bench, host)
    assert outcome(bench, sent.id) == "taken"
    assert graph.states()["paid"] == "finished"


def test_a_locked_late_signal_holds_up_no_retry(
    app: Flask, opsjobs: OpsJobs, host: Host, bench: Bench, operator: Operator, send: Send
) -> None:
    """A host that sends it again holds its lock until the commit."""
    graph = time_out(bench)
    signal = send(dedupe="evt_1")
    with app.app_context():
        assert opsjobs.signal("payment", key="order-1", dedupe="evt_1").conflict
        assert operator.run("workflow.retry", [f"workflow/{graph.run}"], **WHY).is_done
        host.session().commit()
    assert outcome(bench, signal) == "late"
    pass_of_loop(bench, host)
    assert outcome(bench, signal) == "taken"


@pytest.mark.slow
def test_a_signal_against_the_retry_of_its_wait(
    app: Flask, opsjobs: OpsJobs, host: Host, bench: Bench, operator: Operator
) -> None:
    """Whichever is first, the wait takes it."""
    graphs = [time_out(bench, f"order-{number}") for number in range(TIMES)]

    def send(number: int) -> None:
        with app.app_context():
            opsjobs.signal("payment", key=f"order-{number}")
            host.session().commit()

    for number, graph in enumerate(graphs):
        target = f"workflow/{graph.run}"
        done = race(partial(send, number), partial(operator.run, "workflow.retry", [target], **WHY))
        assert [one for one in done if isinstance(one, Exception)] == []
    pass_of_loop(bench, host)
    assert {graph.states()["paid"] for graph in graphs} == {"finished"}
    outcomes = bench.rows("SELECT outcome FROM opsjobs.signals")
    assert [row["outcome"] for row in outcomes] == ["taken"] * TIMES

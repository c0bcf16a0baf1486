"""`flask opsjobs workflow …` and `flask opsjobs signal …` as a person at a shell uses them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from flask_opsjobs.actions.registry import ACTIONS
from flask_opsjobs.endings.advance import advance
from tests.support.engine import Bench
from tests.support.graphs import Graph
from tests.workflows.test_actions import send_before

REASON = ("--reason", "because it is a test")
PAYMENT = ("payment", "order-1")


@pytest.fixture
def call(app: Flask) -> Callable[..., Result]:
    def call(*words: object) -> Result:
        return app.test_cli_runner().invoke(args=["opsjobs", *map(str, words)])

    return call


@pytest.fixture
def graph(bench: Bench) -> Graph:
    """A running workflow whose step `a` failed, and whose wait `paid` is open."""
    graph = Graph.make(bench.connection, "a b paid", ["a b"], waits={"paid": PAYMENT})
    graph.end("a", "failed")
    for _ in range(3):
        advance(bench.connection, graph.run, 1_000_000)
    return graph


def test_a_step_is_skipped(bench: Bench, graph: Graph, call: Any) -> None:
    done = call("workflow", "skip", graph.run, "--step", "a", "--result", '{"n": 1}', *REASON)
    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == [
        f"Skip a step of workflow {graph.run}: done",
        f"  workflow/{graph.run}  graph",
        "    step a: failed → finished",
        '    its result: – → {"n":1}',
        "    1 step behind: canceled → deferred",
        "audit 1",
    ]
    assert graph.states() == {"a": "finished", "b": "available", "paid": "deferred"}


def test_a_wait_is_signaled(bench: Bench, graph: Graph, call: Any) -> None:
    done = call("workflow", "signal", graph.run, "--wait", "paid", *REASON)
    assert done.exit_code == 0, done.output
    assert graph.states()["paid"] == "finished"


def test_a_wait_is_given_a_signal_that_was_sent(bench: Bench, graph: Graph, call: Any) -> None:
    words = ("workflow", "give-signal", graph.run, "--wait", "paid", "--signal", send_before(bench))
    done = call(*words, *REASON)
    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == [
        f"Give a signal to workflow {graph.run}: done",
        f"  workflow/{graph.run}  graph",
        "    wait paid: deferred → finished",
        "    signal 1: ambiguous → taken",
        "    its result: – → 990",
        "audit 1",
    ]
    assert graph.states()["paid"] == "finished"
    again = call(*words, *REASON)
    assert again.exit_code == 1
    assert "it is failed; legal now: retry, skip" in again.output


def test_workflows_are_canceled_and_retried(bench: Bench, graph: Graph, call: Any) -> None:
    done = call("workflow", "cancel", graph.run, 99, *REASON)
    assert done.exit_code == 3, done.output
    assert "workflow/99  skipped, not_found: there is no workflow 99" in done.output
    assert graph.row()["state"] == "canceled"
    again = call("workflow", "cancel", graph.run, *REASON)
    assert again.exit_code == 1
    assert "it is canceled; legal now: retry, skip" in again.output
    assert call("workflow", "retry", graph.run, *REASON).exit_code == 0
    assert graph.row()["state"] == "running"


@pytest.mark.parametrize("name", [name for name in ACTIONS if name.startswith("workflow.")])
def test_a_dry_run_writes_nothing(graph: Graph, bench: Bench, call: Any, name: str) -> None:
    options = {
        "skip": ("--step", "a"),
        "signal": ("--wait", "paid"),
        "give-signal": ("--wait", "paid", "--signal", send_before(bench)),
    }
    short_name = ACTIONS[name].short_name.replace("_", "-")
    before = (graph.row(), graph.states())
    asked = call("workflow", short_name, graph.run, *options.get(short_name, ()), "--dry-run")
    assert asked.exit_code == 0, asked.output
    assert asked.output.startswith(f"{ACTIONS[name].title}: 1 of 1 can be done\n")
    assert (graph.row(), graph.states()) == before
    assert bench.rows("SELECT 1 FROM opsjobs.audit_events") == []


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("skip", 1, "--step", "a", "--result", "{", *REASON), 2, "result is JSON such as"),
        (("skip", 1, *REASON), 2, "Missing option '--step'"),
        (("signal", 1, "--wait", "a", *REASON), 1, "it has no wait a"),
        (("cancel", 0, *REASON), 2, "there is no workflow 0: an id is 1 or more"),
        (("cancel", *REASON), 2, "Missing argument"),
        (("cancel", 1), 2, "say why with --reason"),
    ],
)
def test_wrong_words_are_told(
    graph: Graph, call: Any, words: tuple[object, ...], code: int, said: str
) -> None:
    done = call("workflow", *words)
    assert (done.exit_code, said in done.output) == (code, True), done.output


@pytest.mark.parametrize("id", ["0", "-1", "x", str(2**63)])
@pytest.mark.parametrize("words", ["workflow cancel", "batch cancel", "batch close", "job cancel"])
def test_what_cannot_be_an_id_could_not_be_asked_for(
    graph: Graph, call: Any, words: str, id: str
) -> None:
    done = call(*words.split(), *REASON, "--", id)
    assert done.exit_code == 2, done.output
    assert call(*words.split(), "987654", *REASON).exit_code == 1


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("failure", "resolve", *REASON), "failure"),
        (("failure", "ignore", "--until", "2h", *REASON), "failure"),
        (("incident", "acknowledge", "--until", "2h", *REASON), "incident"),
        (("incident", "show"), "incident"),
        (("incident",), "incident"),
        (("job", "cancel", *REASON), "job"),
        (("batch", "close", *REASON), "batch"),
        (("workflow", "cancel", *REASON), "workflow"),
        (("workflow", "skip", "--step", "a", *REASON), "workflow"),
        (("signal", "payment", "--run"), "workflow"),
        (("why",), "job"),
    ],
)
def test_an_id_that_is_too_large_names_nothing_and_says_why(
    graph: Graph, call: Any, words: tuple[str, ...], kind: str
) -> None:
    done = call(*words, "9" * 20)
    assert done.exit_code == 2
    why = f"there is no {kind} {'9' * 20}: an id is at most 9223372036854775807"
    assert why in done.output
    assert "is not a target" not in done.output


def test_a_signal_is_sent_once_and_counted_again(graph: Graph, bench: Bench, call: Any) -> None:
    words = (
        "signal",
        "payment",
        "--key",
        "order-1",
        "--payload",
        '{"amount": 990}',
        "--dedupe",
        "evt",
    )
    sent = call(*words, "--run", graph.run)
    assert sent.exit_code == 0, sent.output
    (row,) = bench.rows("SELECT id, run, by, payload, duplicates FROM opsjobs.signals")
    assert sent.output == f"signal {row['id']} payment: stored\n"
    assert (row["run"], row["by"], row["payload"]) == (
        graph.run,
        "the command line",
        {"amount": 990},
    )
    again = call(*words, "--json")
    assert json.loads(again.output) == {"format": 1, "id": row["id"], "conflict": True}
    assert again.exit_code == 0
    assert bench.row("SELECT duplicates FROM opsjobs.signals")["duplicates"] == 1
    for _ in range(3):
        advance(bench.connection, graph.run, 1_000_000)
    assert graph.states()["paid"] == "finished"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("",), "name is empty"),
        (("payment", "--payload", "{"), "payload is JSON such as"),
        (("payment", "--payload", "[" * 100_000), "payload is nested too deep"),
        (("payment", "--payload", f"{'[' * 5_000}{']' * 5_000}"), "nested too deep"),
        (("payment", "--payload", '"\\u0000"'), "NUL"),
        (("payment", "--key", "x" * 2_000), "are allowed"),
        (("payment", "--dedupe", ""), "dedupe is empty"),
        (("payment", "--run", "0"), "there is no workflow 0: an id is 1 or more"),
        (
            ("payment", "--run", str(2**63)),
            "there is no workflow 9223372036854775808: an id is at most 9223372036854775807",
        ),
        (
            ("payment", "--run", "99999"),
            "there is no workflow 99999: give as run the id of a workflow",
        ),
        ((), "Missing argument"),
    ],
)
def test_a_bad_signal_is_told_and_not_written(
    bench: Bench, call: Any, words: tuple[str, ...], said: str
) -> None:
    done = call("signal", *words)
    assert (done.exit_code, said in done.output) == (2, True), done.output
    assert len(done.output) < 1_000
    assert bench.rows("SELECT 1 FROM opsjobs.signals") == []

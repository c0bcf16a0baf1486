"""`flask opsjobs queue …`: the same door for queues."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from flask_opsjobs.loops import operate
from flask_opsjobs.loops.loop import Runner
from tests.support.engine import Bench

REASON = ("--reason", "because it is a test")


@pytest.fixture
def call(app: Flask, record_job: Callable[..., int]) -> Callable[..., Result]:
    """Calls a command, on a site whose queue `default` is known."""
    record_job()

    def call(*words: str) -> Result:
        return app.test_cli_runner().invoke(args=["opsjobs", "queue", *words])

    return call


def test_a_queue_is_paused_drained_and_resumed(bench: Bench, call: Any) -> None:
    for action in ("drain", "pause", "resume"):
        done = call(action, "default", *REASON)
        assert done.exit_code == 0, done.output
        assert done.output.startswith(f"{action.capitalize()} queue default: done\n")
    found = bench.rows("SELECT action, via FROM opsjobs.audit_events ORDER BY sequence")
    assert [row["action"] for row in found] == ["queue.drain", "queue.pause", "queue.resume"]
    assert {row["via"] for row in found} == {"cli"}


def test_each_queue_is_listed_with_its_state_and_its_jobs(bench: Bench, call: Any) -> None:
    call("pause", "default", *REASON)
    assert call("list").output == "default  paused  1 available  1 worker\n"
    found = json.loads(call("list", "--json").output)["queues"]
    assert found == [
        {
            "name": "default",
            "state": "paused",
            "workers": 1,
            "workers_not_known": 0,
            "jobs": {"available": 1},
        }
    ]
    assert call("list", "--find", "FAULT").output == call("list").output
    assert call("list", "--find", "mail").output == "no queue has 'mail' in its name\n"
    bench.connection.execute("DELETE FROM opsjobs.jobs; DELETE FROM opsjobs.queues")
    assert call("list").output == "default  open  no jobs  1 worker\n"
    bench.connection.execute("UPDATE opsjobs.workers SET ended_at = now(), state = 'stopped'")
    assert call("list").output.startswith("no queue is known: ")


def test_a_prefetch_is_a_number_or_auto(bench: Bench, call: Any) -> None:
    assert "prefetch: automatic → 40" in call("set-prefetch", "default", "40", *REASON).output
    assert bench.row("SELECT prefetch FROM opsjobs.queues")["prefetch"] == 40
    done = call("set-prefetch", "default", "auto", *REASON)
    assert "Set the prefetch of queue default: done" in done.output
    assert bench.row("SELECT prefetch FROM opsjobs.queues")["prefetch"] is None


@pytest.mark.parametrize("prefetch", ["0", "none", "-1", "2.5", "99999999"])
def test_no_other_word_is_a_prefetch(bench: Bench, call: Any, prefetch: str) -> None:
    asked = call("set-prefetch", *REASON, "--", "default", prefetch)
    assert (asked.exit_code, "from 1 to 1,000,000, or auto" in asked.output) == (2, True)
    assert bench.rows("SELECT 1 FROM opsjobs.queues") == []


def test_without_the_head_of_the_audit_it_cannot_be_asked(bench: Bench, call: Any) -> None:
    bench.connection.execute("DELETE FROM opsjobs.audit_head")
    refused = call("pause", "default", *REASON)
    assert refused.exit_code == 2
    assert "flask opsjobs audit verify" in refused.output
    assert bench.rows("SELECT 1 FROM opsjobs.queues WHERE is_paused") == []


def test_a_dry_run_writes_nothing(bench: Bench, call: Any) -> None:
    asked = call("pause", "default", "mial", "--dry-run")
    assert asked.exit_code == 3
    assert "state: open → paused" in asked.output
    assert "no job, no task and no listener names the queue mial" in asked.output
    assert bench.rows("SELECT 1 FROM opsjobs.queues") == []
    assert bench.rows("SELECT 1 FROM opsjobs.audit_events") == []


def test_a_queue_is_cleared_by_an_operation_that_cancels_what_waits(
    bench: Bench, record_job: Callable[..., int], call: Any
) -> None:
    running = record_job()
    bench.dispatch(prefetch=1)
    bench.claim(bench.row("SELECT id FROM opsjobs.jobs WHERE state = 'queued'")["id"])
    waiting, other = record_job(delay=3600), record_job(queue="mail")
    dry = call("clear", "default", "--dry-run")
    assert "Cancel 2 jobs: 2 in a state that allows it" in dry.output
    assert bench.rows("SELECT 1 FROM opsjobs.operations") == []
    done = call("clear", "default", *REASON)
    assert done.exit_code == 0, done.output
    loop = Runner(operate.LOOP, bench.host, "one")
    while loop.run_once(bench.connection):
        pass
    states = bench.rows("SELECT id, state FROM opsjobs.jobs WHERE queue = 'default' ORDER BY id")
    assert [row["state"] for row in states] == ["started", "canceled", "canceled"]
    assert {running, waiting} < {row["id"] for row in states}
    assert bench.job(other)["state"] == "available"
    event = bench.row("SELECT * FROM opsjobs.audit_events WHERE action = 'operation.start'")
    assert event["reason"] == "because it is a test"
    nothing = call("clear", "default", *REASON)
    assert (nothing.exit_code, "no job matches" in nothing.output) == (2, True)


def test_an_unknown_queue_is_not_cleared_as_an_empty_one(call: Any) -> None:
    for words in (("--dry-run",), REASON):
        refused = call("clear", "mial", *words)
        assert refused.exit_code == 2
        assert "no job, no task and no listener names the queue mial" in refused.output

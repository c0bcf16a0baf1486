"""`flask opsjobs operation …` as a person at a shell uses it: what it prints, and how it exits."""

from __future__ import annotations

import json
from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.loops import operate
from flask_opsjobs.loops.loop import Runner
from tests.support.engine import Bench
from tests.support.waiting import wait_until

RecordJob = Callable[..., int]
REASON = ("--reason", "because it is a test")


@pytest.fixture
def call(app: Flask) -> Callable[..., Result]:
    def call(*words: object) -> Result:
        return app.test_cli_runner().invoke(args=["opsjobs", "operation", *map(str, words)])

    return call


@pytest.fixture
def run_all(bench: Bench) -> Callable[[], None]:
    """Make passes of the loop as long as there is something to do at once."""
    runner = Runner(operate.LOOP, bench.host, "one")

    def run_all() -> None:
        while runner.run_once(bench.connection):
            pass

    return run_all


def test_it_is_started_shown_and_undone(
    bench: Bench, record_job: RecordJob, call: Any, run_all: Any
) -> None:
    ids = [record_job(delay=3600) for _ in range(12)]
    dry = call("start", "cancel", "state:scheduled", "--dry-run")
    assert dry.exit_code == 0
    assert "Cancel 12 jobs: 12 in a state that allows it" in dry.output
    assert call("list").output == "there is no operation\n"
    started = call("start", "cancel", "state:scheduled", "--rate", 9000, *REASON)
    assert started.exit_code == 0
    assert started.output.startswith("operation 2\nCancel 12 jobs")
    run_all()
    shown = call("show", 2)
    assert "operation 2 is finished: job.cancel by " in shown.output
    assert "12 of 12 jobs handled" in shown.output
    assert "  jobs: state:scheduled, frozen " in shown.output
    assert "  12 done" in shown.output
    assert {bench.job(id)["state"] for id in ids} == {"canceled"}
    undone = call("undo", 2, *REASON)
    assert undone.exit_code == 0
    assert "operation 3 undoes it: job.retry of 12 jobs" in undone.output
    found = json.loads(call("list", "--json").output)
    assert [each["id"] for each in found["operations"]] == [3, 2]
    assert found["operations"][1]["counts"]["done"] == 12
    finished = json.loads(call("list", "--state", "finished", "--json").output)
    assert [each["id"] for each in finished["operations"]] == [2]
    opened = json.loads(call("list", "--state", "open", "--json").output)
    assert [each["id"] for each in opened["operations"]] == [3]
    assert call("list", "--state", "stopped").output == "there is no operation that is stopped\n"


def test_the_search_is_printed_as_it_can_be_typed_again(record_job: RecordJob, call: Any) -> None:
    record_job(delay=3600)
    search = 'state:scheduled OR state:available -queue:"a b"'
    started = call("start", "cancel", search, *REASON)
    assert started.exit_code == 0, started.output
    assert f"  jobs: {search}, frozen " in call("list").output


def test_a_rate_of_0_is_no_limit(record_job: RecordJob, call: Any) -> None:
    record_job(delay=3600)
    unbound = call("start", "cancel", "state:scheduled", "--rate", 0, "--dry-run", "--json")
    assert json.loads(unbound.output)["rate"] is None
    wrong = call("start", "cancel", "state:scheduled", "--rate", "fast", "--dry-run")
    assert wrong.exit_code == 2
    assert "rate is a whole number from 1 to 10,000, or 0 for no limit; got 'fast'" in wrong.output


def test_pause_resume_and_cancel(record_job: RecordJob, call: Any) -> None:
    record_job(delay=3600)
    call("start", "cancel", "state:scheduled", *REASON)
    assert call("pause", 1, *REASON).exit_code == 0
    shown = json.loads(call("show", 1, "--json").output)
    assert (shown["state"], shown["code"], shown["skipped_by_code"]) == ("paused", "operator", {})
    assert call("resume", 1, *REASON).exit_code == 0
    assert call("resume", 1, *REASON).exit_code == 1
    assert call("cancel", 1, "--dry-run").exit_code == 0
    assert call("cancel", 1, *REASON).exit_code == 0
    waited = call("show", 1, "--wait")
    assert (waited.exit_code, "operation 1 is canceled" in waited.output) == (1, True)


def test_wait_follows_it_to_its_end(bench: Bench, record_job: RecordJob, call: Any) -> None:
    record_job(delay=3600)
    ended: list[Any] = []

    def run() -> None:
        connection = connect_apart(bench.host.engine)
        runner = Runner(operate.LOOP, bench.host, "two")
        wait_until(
            lambda: (
                connection.execute(
                    "SELECT 1 FROM opsjobs.operations WHERE state = 'running'"
                ).fetchone()
                is not None
            ),
            30,
        )
        while runner.run_once(connection):
            pass
        connection.close()
        ended.append(True)

    loop = Thread(target=run)
    loop.start()
    waited = call("start", "discard", "state:scheduled", "--wait", *REASON)
    loop.join(30)
    assert ended
    assert waited.exit_code == 0
    assert "operation 1 is finished" in waited.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("start", "cancel", "state:scheduled"), "say why with --reason"),
        (("start", "paint", "state:failed", *REASON), "is not one of"),
        (("start", "cancel", "colour:red", *REASON), "cannot be searched"),
        (("start", "cancel", "state:failed", *REASON), "no job matches"),
        (("start", "cancel", "error:Boom", *REASON), "no job matches"),
        (("show", 9_223_372_036_854_775_808), "an id is at most"),
        (("start", "cancel", *REASON), "Missing argument"),
        (("start", "cancel", "", *REASON), "the terms are empty"),
        (("start", "cancel", " ", "--dry-run"), "the terms are empty"),
        (("start", "cancel", "state:scheduled", "limit:50", *REASON), "takes all jobs that match"),
        (("start", "cancel", "step:pay", *REASON), "needs the workflow too"),
    ],
)
def test_what_cannot_be_asked_exits_with_2(call: Any, words: tuple[Any, ...], says: str) -> None:
    found = call(*words)
    assert (found.exit_code, says in found.output) == (2, True)


def test_one_that_does_not_exist_exits_with_1(call: Any) -> None:
    assert call("show", 7).exit_code == 1
    assert call("pause", 7, *REASON).exit_code == 1
    refused = call("undo", 7, *REASON)
    assert (refused.exit_code, refused.output) == (1, "there is no operation 7\naudit 2\n")


@pytest.mark.parametrize("words", [("show",), ("pause", *REASON), ("undo", *REASON)])
def test_what_is_no_number_of_an_operation_is_named(call: Any, words: tuple[str, ...]) -> None:
    for text, why in (
        ("abc", "'abc' is no number: the operation 7 is written as 7"),
        ("9223372036854775808", "there is no operation 9223372036854775808: an id is at most"),
    ):
        refused = call(words[0], text, *words[1:])
        assert (refused.exit_code, why in refused.output) == (2, True)

"""`flask opsjobs enqueue TASK …`: the same door as the form of a task's page."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from flask_opsjobs import OpsJobs
from tests.support.engine import Bench

REASON = ("--reason", "because it is a test")
Run = Callable[..., Result]


@pytest.fixture
def run(app: Flask, opsjobs: OpsJobs) -> Run:
    """Runs the command on a host with the tasks `send` and `render`."""

    def send(
        account_id: int, day: date | None = None, rows: list[int] | None = None, token: str = ""
    ) -> None:
        """Does nothing."""

    def render(report: str, note: str | None, rows: int = 3, is_final: bool = True) -> None:
        """Does nothing."""

    opsjobs.task(queue="mail", enqueue_from_page=True, redact={"token"})(send)
    opsjobs.task(enqueue_from_page=True)(render)
    opsjobs.task(name="plain")(_plain)

    def run(*words: str, input: str | None = None) -> Result:
        return app.test_cli_runner().invoke(args=["opsjobs", "enqueue", *words], input=input)

    return run


def _plain() -> None:
    """Does nothing."""


def args_of(bench: Bench) -> list[Any]:
    return [row["args"] for row in bench.rows("SELECT args FROM opsjobs.jobs ORDER BY id")]


def test_arguments_come_as_json_as_values_and_from_stdin(run: Run, bench: Bench) -> None:
    whole = run("send", "--args", '{"account_id": 7}', *REASON)
    assert (whole.exit_code, "new job: – → job/1" in whole.output) == (0, True), whole.output
    assert "the job will wait. No live worker listens" in whole.output
    assert run("send", "account_id=8", "day=2026-11-28", "rows=[1, 2]", *REASON).exit_code == 0
    assert run("send", "account_id=9", "--args", '{"rows": [3]}', *REASON).exit_code == 0
    assert run("send", "--args", "-", *REASON, input='{"account_id": 10}').exit_code == 0
    assert args_of(bench) == [
        {"account_id": 7},
        {"account_id": 8, "day": "2026-11-28", "rows": [1, 2]},
        {"account_id": 9, "rows": [3]},
        {"account_id": 10},
    ]
    found = bench.rows("SELECT action, via FROM opsjobs.audit_events")
    assert {(row["action"], row["via"]) for row in found} == {("task.enqueue", "cli")}


def test_an_empty_value_is_an_empty_field(run: Run, bench: Bench) -> None:
    done = run("render", "report=mail", "note=", "rows=", "is_final= ", *REASON)
    assert done.exit_code == 0, done.output
    assert args_of(bench) == [{"report": "mail", "note": None}]


def test_a_dry_run_writes_nothing_and_json_is_one_object(run: Run, bench: Bench) -> None:
    looked = run("send", "account_id=7", "--dry-run", "--json")
    found = json.loads(looked.stdout)
    (item,) = found["items"]
    assert (item["target"], looked.exit_code) == ("task/send", 0)
    assert {"what": "args", "before": None, "after": '{"account_id": 7}'} in item["changes"]
    assert args_of(bench) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nobody",), "there is no task 'nobody' in this application"),
        (("nobody", "a=1"), "there is no task 'nobody' in this application"),
        (("plain",), "declare it with enqueue_from_page=True"),
        (("send",), "account_id: is required"),
        (("render", "report=", "note=x"), "report: is required"),
        (("send", "account_id=many"), "account_id: Input should be a valid integer"),
        (("send", "account_id=7", "nope=1"), "nope: the task takes no such argument"),
        (("send", "account_id"), "'account_id' is no argument: write NAME=VALUE"),
        (("send", "=7"), "'=7' is no argument: write NAME=VALUE"),
        (("send", "account_id=7", "account_id=8"), "account_id is given twice"),
        (("send", "account_id=7", "--args", '{"account_id": 8}'), "account_id is given twice"),
        (("send", "account_id=7", "day=", "--args", '{"day": null}'), "day is given twice"),
        (("send", "account_id=7", "day=", "day="), "day is given twice"),
        (("send", "--args", "-"), "--args is not JSON"),  # stdin is empty: what writes it failed
        (("send", "account_id=7", "rows=["), "rows: is not JSON"),
        (("send", "account_id=7", "token=sensitive"), "token: is redacted"),
        (("send", "--args", "{"), "args is not JSON"),
        (("send", "account_id=7", "--args", "{"), "--args is not JSON"),
        (("send", "account_id=7", "--args", "[1]"), "--args must be a JSON object"),
        (("send", "--args", '{"account_id": 7, "rows": "\\u0000"}'), "rows: has a NUL character"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_does_not_fit_is_refused_in_one_sentence(
    run: Run, bench: Bench, words: tuple[str, ...], says: str
) -> None:
    done = run(*words, *REASON)
    assert (done.exit_code, says in done.output) == (2, True), done.output
    assert "Traceback" not in done.output
    assert "sensitive" not in done.output
    assert args_of(bench) == []


def test_a_megabyte_is_refused_with_the_setting(run: Run, bench: Bench) -> None:
    large = json.dumps({"account_id": 7, "rows": list(range(200_000))})
    done = run("send", "--args", "-", *REASON, input=large)
    assert done.exit_code == 2
    assert "more than OPSJOBS_MAX_ARGS_BYTES" in done.output
    assert len(done.output) < 1_000
    assert args_of(bench) == []

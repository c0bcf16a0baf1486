"""`flask opsjobs job …` as a person at a shell uses it: plans, receipts, exit codes."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from flask_opsjobs.actions.registry import ACTIONS
from tests.support.engine import Bench

RecordJob = Callable[..., int]
REASON = ("--reason", "because it is a test")
TABLES = (
    "jobs",
    "attempts",
    "queues",
    "unique_locks",
    "previews",
    "audit_events",
    "job_count_deltas",
)


@pytest.fixture
def call(app: Flask) -> Callable[..., Result]:
    def call(*words: object) -> Result:
        return app.test_cli_runner().invoke(args=["opsjobs", *map(str, words)])

    return call


def test_a_job_is_canceled_by_the_user_of_the_shell(
    bench: Bench, record_job: RecordJob, call: Any
) -> None:
    job_id = record_job(delay=60)
    done = call("job", "cancel", job_id, *REASON)
    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == [
        f"Cancel job {job_id}: done",
        f"  job/{job_id}  note",
        "    state: scheduled → canceled",
        "audit 1",
    ]
    event = bench.row("SELECT * FROM opsjobs.audit_events")
    assert (event["actor"], event["via"]) == (getpass.getuser(), "cli")
    assert event["reason"] == "because it is a test"


def test_the_actor_may_be_named(bench: Bench, record_job: RecordJob, call: Any) -> None:
    assert call("job", "cancel", record_job(), *REASON, "--actor", "deploy").exit_code == 0
    assert bench.row("SELECT actor FROM opsjobs.audit_events")["actor"] == "deploy"


def test_the_access_policy_is_not_asked(app: Flask, record_job: RecordJob, call: Any) -> None:
    class Nobody:
        def can(self, *_: object) -> bool:
            raise AssertionError("asked")

    app.extensions["opsjobs"].access = Nobody()
    assert call("job", "cancel", record_job(), *REASON).exit_code == 0


def test_too_many_actions_at_once_in_one_process_are_said_in_a_sentence(
    app: Flask, bench: Bench, record_job: RecordJob, call: Any
) -> None:
    job_id, limit = record_job(), app.extensions["opsjobs"].action_limit
    while limit.enter():
        pass
    said = call("job", "cancel", job_id, *REASON)
    assert said.exit_code == 2
    assert "this process already runs 4 operators' actions" in said.output
    limit.leave()
    assert call("job", "cancel", job_id, *REASON).exit_code == 0
    assert bench.row("SELECT count(*) AS n FROM opsjobs.audit_events")["n"] == 1


@pytest.mark.parametrize(
    "name", [each.name for each in ACTIONS.values() if each.domain == "job" and not each.is_repair]
)
def test_a_dry_run_writes_nothing(
    bench: Bench, record_job: RecordJob, call: Any, name: str
) -> None:
    action = ACTIONS[name]
    legal = record_job()
    if action.short_name in ("delete", "retry", "run_again"):
        assert call("job", "discard", legal, *REASON).exit_code == 0
    before = {table: bench.rows(f"SELECT * FROM opsjobs.{table}") for table in TABLES}
    given = {"due_at": ("--due-at", "2999-01-01T09:00"), "priority": ("--priority", "1")}
    options = [word for param in action.params for word in given.get(param, ())]
    asked = call("job", action.short_name.replace("_", "-"), legal, 99, *options, "--dry-run")
    assert asked.exit_code == 3, asked.output
    assert asked.output.startswith(f"{action.title}: 1 of 2 can be done\n")
    assert "  job/99  skipped, not_found: there is no job 99" in asked.output
    assert asked.output.rstrip().endswith(action.risk)
    assert {table: bench.rows(f"SELECT * FROM opsjobs.{table}") for table in TABLES} == before


def test_a_rescue(bench: Bench, record_job: RecordJob, call: Any) -> None:
    job_id = record_job(max_attempts=2)
    bench.dispatch()
    bench.claim(job_id)
    refused = call("job", "rescue", job_id, *REASON)
    assert refused.exit_code == 1
    assert "its worker worker-1 is alive, and may still run it" in refused.output
    bench.rows("UPDATE opsjobs.workers SET state = 'missing', ended_at = now() RETURNING 1")
    assert call("job", "rescue", job_id, "--dry-run").exit_code == 0
    assert bench.job(job_id)["state"] == "started"
    done = call("job", "rescue", job_id, *REASON)
    assert done.exit_code == 0
    assert "state: started → available" in done.output
    assert "its worker worker-1 is missing" in done.output
    assert bench.job(job_id)["state"] == "available"


def test_exit_codes(record_job: RecordJob, call: Any) -> None:
    one, two = record_job(), record_job()
    assert call("job", "retry", one, *REASON).exit_code == 1
    assert call("job", "retry", one, "--dry-run").exit_code == 1
    assert call("job", "cancel", one, 99, *REASON).exit_code == 3
    assert call("job", "cancel", two, "--dry-run").exit_code == 0
    assert call("job", "cancel", two, *REASON).exit_code == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["1"], 2, "say why with --reason"),
        (["1", "--reason", "no"], 1, "at least 8 characters"),
        (["1", "--reason", " " * 20], 1, "at least 8 characters"),
        (["1", "--reason", "\u3164" * 20], 1, "at least 8 characters"),
        ([], 2, "Missing argument"),
        (["one", *REASON], 2, "'one' is no number: the job 7 is written as 7"),
        (["0", *REASON], 2, "there is no job 0: an id is 1 or more"),
        (["1", *REASON, "--actor", " "], 2, "--actor is the name"),
        ([*map(str, range(1, 102)), *REASON], 2, "at most 100 jobs at once, got 101"),
    ],
)
def test_wrong_words_are_told(
    record_job: RecordJob, bench: Bench, call: Any, words: list[str], code: int, said: str
) -> None:
    record_job()
    asked = call("job", "cancel", *words)
    assert (asked.exit_code, said in asked.output) == (code, True), asked.output
    assert bench.rows("SELECT 1 FROM opsjobs.audit_events") == []


def test_a_plan_and_a_receipt_as_json(record_job: RecordJob, call: Any) -> None:
    job_id = record_job()
    plan = json.loads(call("job", "discard", job_id, "--dry-run", "--json").output)
    assert (plan["action"], plan["items"][0]["target"]) == ("job.discard", f"job/{job_id}")
    receipt = json.loads(call("job", "discard", job_id, *REASON, "--json").output)
    assert (receipt["outcome"], receipt["code"], receipt["audit_sequence"]) == ("done", None, 1)
    again = json.loads(call("job", "discard", job_id, *REASON, "--json").output)
    assert (again["outcome"], again["code"]) == ("refused", "illegal")


def test_run_again_says_as_which_job(bench: Bench, record_job: RecordJob, call: Any) -> None:
    job_id = record_job()
    call("job", "cancel", job_id, *REASON)
    done = call("job", "run-again", job_id, *REASON)
    new = bench.row("SELECT id FROM opsjobs.jobs WHERE run_again_from = %s", job_id)["id"]
    assert f"it runs again as job {new}" in done.output


def test_without_the_schema_it_says_what_to_run(make_app: Any, empty_database_url: str) -> None:
    app = make_app(SQLALCHEMY_DATABASE_URI=empty_database_url)
    asked = app.test_cli_runner().invoke(args=["opsjobs", "job", "retry", "1", *REASON])
    assert (asked.exit_code, "flask db upgrade" in asked.output) == (2, True)


def test_postgres_being_away_is_told_without_a_traceback(
    make_app: Any, own_postgres: Any, own_database_url: str
) -> None:
    app = make_app(SQLALCHEMY_DATABASE_URI=own_database_url)
    own_postgres.kill()
    asked = app.test_cli_runner().invoke(args=["opsjobs", "job", "retry", "1", *REASON])
    assert asked.exit_code == 2
    assert "Error: " in asked.output


def test_an_edit_changes_what_is_given(bench: Bench, record_job: RecordJob, call: Any) -> None:
    job_id = record_job()
    done = call("job", "edit", job_id, "--queue", "mail", "--args", '{"text": "hi"}', *REASON)
    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == [
        f"Edit job {job_id}: done",
        f"  job/{job_id}  note",
        "    queue: default → mail",
        '    args: {"text": ""} → {"text": "hi"}',
        "    no live worker listens to queue mail: the job waits until one is started with "
        "`flask opsjobs worker mail`",
        "audit 1",
    ]
    job = bench.job(job_id)
    assert (job["queue"], job["args"], job["priority"]) == ("mail", {"text": "hi"}, 5)
    nothing = call("job", "edit", job_id, *REASON)
    assert (nothing.exit_code, nothing.output.splitlines()) == (
        2,
        ["give a queue, a priority or arguments: nothing would change"],
    )

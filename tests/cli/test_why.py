"""`flask opsjobs why`: reasons in words or JSON, and an exit code that says whether it could be asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.host import Host
from tests.support.database import migrate
from tests.support.engine import Bench
from tests.support.graphs import Graph

RecordJob = Callable[..., int]


class Hides:
    def is_hidden_key(self, key: str) -> bool:
        return False

    def clean_text(self, text: str) -> str:
        return text.replace("hunter2", "[hidden]")


def why(app: Flask, *words: str) -> Result:
    return app.test_cli_runner().invoke(args=["opsjobs", "why", *words])


def test_reasons_are_said_with_exit_0(app: Flask, bench: Bench, record_job: RecordJob) -> None:
    job_id = record_job(delay=60)
    Operator(bench.host).pause("default", actor="ops-demo", reason="the vendor is away")
    said = why(app, str(job_id))
    assert said.exit_code == 0, said.output
    assert f"job {job_id} is scheduled. 3 reasons, the first one decides." in said.stdout
    for words in (
        "1. It is due later. [scheduled]",
        "2. The queue default is paused",
        "until 20",
        "ops-demo: the vendor is away",
        "helps: queue.resume on queue/default",
    ):
        assert words in said.stdout
    for same in (f"opsjobs-{job_id}-1", f"job/{job_id}"):
        assert why(app, same).stdout.startswith(f"job {job_id} is scheduled")


def test_json_has_a_version_and_all_of_it(app: Flask, bench: Bench, record_job: RecordJob) -> None:
    job_id = record_job(queue="mail")
    said = why(app, str(job_id), "--json")
    assert said.exit_code == 0
    found: dict[str, Any] = json.loads(said.stdout)
    assert found["format"] == 1
    assert (found["job_id"], found["state"]) == (job_id, "available")
    assert set(found) == {
        "format",
        "job_id",
        "state",
        "says",
        "reasons",
        "ruled_out",
        "completeness",
        "lacking",
        "read_at",
    }
    assert [reason["code"] for reason in found["reasons"]] == ["no_live_worker", "loop_silent"]
    assert set(found["reasons"][0]) == {
        "code",
        "says",
        "by",
        "quote",
        "since",
        "until",
        "read",
        "source",
        "read_at",
        "todo",
        "passes",
        "action",
        "target",
    }
    assert found["completeness"] == "partial evidence"  # the observe loop has never run


def test_a_job_without_reasons_exits_0_too(app: Flask, bench: Bench, record_job: RecordJob) -> None:
    job_id = record_job()
    bench.dispatch()
    bench.claim(job_id)
    said = why(app, str(job_id), "--json")
    assert (said.exit_code, json.loads(said.stdout)["reasons"]) == (0, [])


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_what_a_person_wrote_passes_the_display_policy(
    app: Flask, bench: Bench, record_job: RecordJob, as_json: tuple[str, ...]
) -> None:
    job_id = record_job()
    Operator(bench.host).pause("default", actor="ops-demo", reason="token hunter2 leaked")
    bench.host.display = Hides()
    said = why(app, str(job_id), *as_json)
    assert "token [hidden] leaked" in said.stdout
    assert "hunter2" not in said.stdout


def test_nothing_that_a_terminal_obeys_is_printed(
    app: Flask, bench: Bench, record_job: RecordJob
) -> None:
    job_id = record_job()
    reason = "\x1b]0;owned\x07 \x9b2J \u202ethgir"
    Operator(bench.host).pause("default", actor="ops-demo", reason=reason)
    for words in ((), ("--json",)):
        said = why(app, str(job_id), *words).stdout
        assert "owned" in said
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(said)


@pytest.mark.parametrize(
    ("job", "code"),
    [
        ("987654", 1),
        ("workflow/987654", 1),
        ("workflow/x", 2),
        ("batch/987654", 1),
        ("batch/x", 2),
        ("9999999999999999999", 2),
        ("mail", 2),
        ("", 2),
        ("-", 2),
    ],
)
def test_an_unknown_job_exits_1_and_what_is_no_id_2(app: Flask, job: str, code: int) -> None:
    said = why(app, "--", job)
    assert said.exit_code == code
    assert said.stderr.startswith("Error: ")
    assert said.stdout == ""


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_a_database_that_is_away_exits_2(
    make_app: Callable[..., Flask], as_json: tuple[str, ...]
) -> None:
    app = make_app(SQLALCHEMY_DATABASE_URI="postgresql+psycopg://nobody@127.0.0.1:1/none")
    said = why(app, "42", *as_json)
    assert said.exit_code == 2
    assert "the database did not answer" in said.stderr


@pytest.mark.parametrize("version", [0, 1])
def test_an_old_schema_is_said_to_be_the_reason(
    make_app: Callable[..., Flask], empty_database_url: str, version: int
) -> None:
    app = make_app(SQLALCHEMY_DATABASE_URI=empty_database_url)
    host: Host = app.extensions["opsjobs"]
    if version:
        with host.engine.begin() as connection:
            migrate(connection, version)
    said = why(app, "42", "--json")
    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout)
    assert [reason["code"] for reason in found["reasons"]] == ["schema_behind"]
    assert "flask db upgrade" in found["reasons"][0]["todo"]
    assert found["completeness"] == "unknown"


def test_a_workflow_shows_the_steps_that_all_others_wait_for(app: Flask, bench: Bench) -> None:
    graph = Graph.make(bench.connection, "billing notify", ["billing notify"])
    bench.connection.execute(
        "UPDATE opsjobs.jobs SET state = 'retryable', due_at = '2100-01-01 00:00Z' WHERE id = %s",
        [graph.ids["billing"]],
    )
    bench.connection.execute("UPDATE opsjobs.workflows SET trouble = 'no space left'")
    said = why(app, f"workflow/{graph.run}")
    assert said.exit_code == 0, said.output
    for words in (
        f"workflow {graph.run} graph is running. It cannot be advanced.",
        "the last advance failed: no space left",
        f"step billing: job {graph.ids['billing']} is retryable.",
        "[backing_off]",
        "until 2100-01-01",
    ):
        assert words in said.stdout
    assert "step notify" not in said.stdout
    bench.connection.execute("DELETE FROM opsjobs.jobs WHERE id = %s", [graph.ids["billing"]])
    assert "their jobs were deleted: billing" in why(app, f"workflow/{graph.run}").stdout


def test_what_nobody_reported_is_said_to_be_inferred(app: Flask, bench: Bench) -> None:
    graph = Graph.make(bench.connection, "a b", ["a b"])
    said = why(app, str(graph.ids["b"])).stdout
    assert ", inferred by the library, reported by nobody: " in said
    assert "reported by inferred" not in said


def test_a_workflow_as_json(app: Flask, bench: Bench) -> None:
    graph = Graph.make(bench.connection, "billing notify", ["billing notify"])
    found = json.loads(why(app, f"workflow/{graph.run}", "--json").stdout)
    assert set(found) == {
        *("format", "workflow_id", "name", "state", "says", "trouble", "removed", "frontier"),
        "read_at",
    }
    (step,) = found["frontier"]
    assert (step["step"], step["job_id"]) == ("billing", graph.ids["billing"])


def open_batch(bench: Bench, record_job: RecordJob) -> tuple[int, int]:
    """An open batch with a paused member and a failed callback; the ids of the batch and the member."""
    member, callback = record_job(), record_job()
    one = bench.row(
        "INSERT INTO opsjobs.batches (name, state, enqueued, created_at, trouble)"
        " VALUES ('import', 'open', 1, now(), 'no space left') RETURNING id"
    )["id"]
    bench.connection.execute("UPDATE opsjobs.jobs SET batch_id = %s WHERE id = %s", [one, member])
    bench.connection.execute(
        "UPDATE opsjobs.jobs SET state = 'failed', ended_at = now(), ended_by = 'exhausted' WHERE id = %s",
        [callback],
    )
    bench.connection.execute(
        "INSERT INTO opsjobs.callbacks VALUES ('batch', %s, 0, 'failure', %s)", [one, callback]
    )
    Operator(bench.host).pause("default", actor="ops-demo", reason="the vendor is away")
    return one, member


def test_a_batch_shows_why_it_has_not_ended(
    app: Flask, bench: Bench, record_job: RecordJob
) -> None:
    batch, member = open_batch(bench, record_job)
    said = why(app, f"batch/{batch}")
    assert said.exit_code == 0, said.output
    for words in (
        f"batch {batch} import is open. Its members cannot be counted.",
        "the last fold failed: no space left",
        f"the callback of the first failure failed: retry job {member + 1}",
        "1. The application has opened it, and has not closed it yet: ",
        "[batch_open]",
        f"helps: batch.close on batch/{batch}",
        "the oldest member in each state:",
        f"job {member} is available.",
        "1. The queue default is paused",
    ):
        assert words in said.stdout


def test_a_batch_as_json(app: Flask, bench: Bench, record_job: RecordJob) -> None:
    batch, member = open_batch(bench, record_job)
    found = json.loads(why(app, f"batch/{batch}", "--json").stdout)
    assert set(found) == {
        *(
            "format",
            "batch_id",
            "name",
            "state",
            "says",
            "trouble",
            "reasons",
            "members",
            "callbacks",
        ),
        "read_at",
    }
    assert [each["code"] for each in found["reasons"]] == ["batch_open", "loop_silent"]
    assert [each["job_id"] for each in found["members"]] == [member]
    assert found["callbacks"] == [
        {"event": "failure", "end_no": 0, "job_id": member + 1, "state": "failed"}
    ]


def test_a_search_is_explained_in_groups(app: Flask, bench: Bench, record_job: RecordJob) -> None:
    ids = [record_job(queue="mail") for _ in range(2)]
    later = record_job(delay=60)
    Operator(bench.host).pause("mail", actor="ops-demo", reason="the vendor is away")
    said = why(app, "--search", "task:note")
    assert said.exit_code == 0, said.output
    first, mail, where, due, *_ = said.stdout.splitlines()
    assert first == "3 jobs wait."
    assert mail.startswith("2  queue mail is paused, by ops-demo, “the vendor is away”, since 20")
    assert mail.endswith(" [queue_paused]")
    assert where == f"   --search 'state:available task:note', such as job {ids[0]}"
    assert due.startswith("1  they are due later, until 20")
    assert f"such as job {later}" in said.stdout
    assert why(app, "--search", "state:failed").stdout == "No job waits.\n"


def test_a_search_as_json_passes_the_display_policy(
    app: Flask, bench: Bench, record_job: RecordJob
) -> None:
    record_job(queue="hunter2")
    Operator(bench.host).pause("hunter2", actor="ops-demo", reason="hunter2 is away")
    bench.host.display = Hides()
    said = why(app, "--search", "", "--json")
    assert said.exit_code == 0, said.output
    assert "hunter2" not in said.stdout
    found = json.loads(said.stdout)
    assert (found["format"], found["number"], found["is_cut"]) == (1, 1, False)
    (group,) = found["groups"]
    assert (group["code"], group["says"]) == ("queue_paused", "queue [hidden] is paused")
    assert (group["number"], group["search"]) == (1, "state:available")


@pytest.mark.parametrize(
    "words",
    [(), ("7", "--search", "task:note"), ("--search", "nobody:7"), ("--search", "created:x")],
)
def test_what_cannot_be_searched_exits_with_2(app: Flask, words: tuple[str, ...]) -> None:
    said = why(app, *words)
    assert said.exit_code == 2
    assert said.stderr.startswith("Error: ")

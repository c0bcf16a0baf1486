"""`flask opsjobs jobs`: what it prints of which jobs, and what it says is missing."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs import OpsJobs, Task
from flask_opsjobs.core.reading import WHAT_NARROWS, read_clock
from flask_opsjobs.engine.worker.heartbeat import Progress, write_progress
from flask_opsjobs.install.starters.opsjobs_display import HostDisplay
from flask_opsjobs.jobs import queries, rows
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.jobs.search import hit_queries
from tests.support.engine import Bench, begin, take

RecordJob = Callable[..., int]


def _run(app: Flask, *words: str) -> Result:
    return app.test_cli_runner().invoke(args=["opsjobs", "jobs", *words])


def _fail(bench: Bench, job: int, error: str) -> None:
    bench.dispatch()
    bench.claim(job)
    bench.record(job, 1, Outcome(kind="raised", error=error))


def test_it_prints_jobs_the_newest_first_through_the_display_policy(
    app: Flask, bench: Bench, record_job: RecordJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.host, "display", HostDisplay())
    failed = record_job(max_attempts=1)
    _fail(bench, failed, "KeyError: postgresql://ada:geheim@db/shop\nand more")
    later = record_job(
        queue="mail", scheduled_at=read_clock(bench.connection) + timedelta(hours=2, minutes=1)
    )
    run = _run(app)
    assert run.exit_code == 0
    newest, oldest = run.output.splitlines()
    assert newest.lstrip() == f"{later}  scheduled  note  queue mail  due in 2 h"
    begins = (
        rf" +{failed}  failed     note  queue default  attempt 1 of 1  ran .+, ended \d+ s ago  "
    )
    assert re.match(f"{begins}KeyError: ", oldest)
    assert "geheim" not in run.output
    assert "and more" not in run.output
    found = json.loads(_run(app, "--json").output)
    assert [(row["id"], row["state"], row["queue"]) for row in found["jobs"]] == [
        (later, "scheduled", "mail"),
        (failed, "failed", "default"),
    ]
    assert (found["has_more"], found["is_all_searched"], found["is_in_order"]) == (
        False,
        True,
        True,
    )
    one = {"number": 1, "kind": "exact"}
    assert (found["counts"]["failed"], found["counts"]["scheduled"]) == (one, one)
    assert "geheim" not in json.dumps(found)


def test_the_time_of_each_state(
    app: Flask,
    bench: Bench,
    record_job: RecordJob,
    opsjobs: OpsJobs,
    note: Task,
    db: SQLAlchemy,
) -> None:
    started, _queued = record_job(), record_job()
    bench.dispatch()
    bench.claim(started)
    record_job(scheduled_at=read_clock(bench.connection) + timedelta(hours=2, minutes=1))
    flow = opsjobs.workflow("letters")
    flow.step("second", note, after=flow.step("first", note))
    flow.start()
    db.session.commit()
    says = [re.split("  +", line)[-1] for line in reversed(_run(app).output.splitlines())]
    assert [re.sub(r"\d+ s", "N s", each) for each in says] == [
        "has run N s",
        "queued N s ago",
        "due in 2 h",
        "due N s ago",
        "after another job",
    ]


def _ids(app: Flask, *words: str) -> list[int]:
    found: dict[str, Any] = json.loads(_run(app, *words, "--json").output)
    return [row["id"] for row in found["jobs"]]


def test_it_searches_and_orders_as_the_page(
    app: Flask, bench: Bench, record_job: RecordJob
) -> None:
    now = read_clock(bench.connection)
    first, second, third = (
        record_job(queue=queue, scheduled_at=now + timedelta(hours=hours))
        for queue, hours in (("mail", 3), ("mail", 1), ("crm", 2))
    )
    assert _ids(app, "--search", "queue:mail") == [second, first]
    assert _ids(app, "--search", "queue:mail OR queue:crm", "--sort", "due") == [
        second,
        third,
        first,
    ]
    assert _run(app, "--search", "queue:none").output == "no job matches\n"


def test_it_puts_the_longest_runs_first(app: Flask, bench: Bench, record_job: RecordJob) -> None:
    waits, second, first, third = jobs = [record_job() for _ in range(4)]
    take(bench)
    for hours, job in enumerate((third, second, first), start=1):
        begin(bench, (job, 1), ago=hours * 3600)
    assert _ids(app) == jobs[::-1]
    assert _ids(app, "--sort=-run") == [first, second, third, waits]


def test_it_says_how_many_more_there_are(
    app: Flask, record_job: RecordJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(26):
        record_job(queue="mail")
    *listed, last, _next = _run(app, "--search", "queue:mail").output.splitlines()
    assert (len(listed), last) == (25, "these are the first 25 of 26")
    assert len(_run(app, "--limit", "50").output.splitlines()) == 26
    assert len(_run(app, "--search", "limit:50").output.splitlines()) == 26
    monkeypatch.setattr(rows, "CAP", 25)
    monkeypatch.setattr(queries, "CAP", 25)
    *_, last, _next = _run(app, "--search", "queue:mail").output.splitlines()
    assert last == "these are the first 25 of at least 26"


def test_it_says_when_the_number_of_more_is_an_estimate(
    app: Flask, bench: Bench, record_job: RecordJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(30):
        _fail(bench, record_job(max_attempts=1), "KeyError")
    bench.connection.execute("ANALYZE opsjobs.jobs")
    monkeypatch.setattr(rows, "CAP", 25)
    monkeypatch.setattr(queries, "CAP", 25)
    *_, last, _next = _run(app, "--search", "state:failed").output.splitlines()
    assert last == "these are the first 25 of about 30"
    found = json.loads(_run(app, "--search", "state:failed", "--json").output)
    assert found["counts"]["failed"] == {"number": 30, "kind": "about"}


@pytest.mark.parametrize("words", ["", "--search='tag:eu queue:mail'", "--sort=-attempts"])
def test_it_names_the_command_of_the_next_page(
    app: Flask, record_job: RecordJob, words: str
) -> None:
    jobs = [record_job(queue="mail", tags=["eu"]) for _ in range(60)]
    pages = [_run(app, *shlex.split(words)).output.splitlines()]
    while len(pages) < 4 and pages[-1][-1].startswith("the next ones: flask opsjobs jobs "):
        options = pages[-1][-1].partition(" jobs ")[2]
        pages.append(_run(app, *shlex.split(options)).output.splitlines())
    assert [page[25:-1] for page in pages] == [
        ["these are the first 25 of 60"],
        ["these are 25 of 60"],
        [],
    ]
    assert [int(line.split()[0]) for page in pages for line in page[:25]] == jobs[::-1]


def test_a_page_that_begins_at_no_job_of_the_list(app: Flask, record_job: RecordJob) -> None:
    first, second = record_job(queue="mail"), record_job()
    assert _ids(app, "--before", f"{second}") == [first]
    assert _run(app, "--before", f"{first}").output == f"no job follows job {first}\n"
    run = _run(app, "--search", "queue:mail", "--sort", "due", "--before", f"{second}")
    assert run.exit_code == 2
    assert f"job {second} has left this list: begin again without --before" in run.output
    assert "the job 7 is written as 7" in _run(app, "--before", "x").output
    assert "there is no job 0: an id is 1 or more" in _run(app, "--before", "0").output


def test_its_json_has_what_the_list_of_the_page_shows(
    app: Flask, bench: Bench, record_job: RecordJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.host, "display", HostDisplay())
    failed = record_job(max_attempts=1)
    _fail(bench, failed, "KeyError")
    started, _taken = record_job(), record_job()
    take(bench)
    begin(bench, (started, 1))
    told = Progress(started, 1, 3, 9, "at postgresql://ada:geheim@db/shop")
    write_progress(bench.connection, [told])
    found = json.loads(_run(app, "--json").output)["jobs"]
    progress = found[1].pop("progress")
    assert (progress["done"], progress["total"]) == (3, 9)
    assert progress["note"].startswith("at postgresql://")
    assert "geheim" not in progress["note"]
    assert [(row["taken_by"], row["ended_by"], row["origin"]) for row in found] == [
        (bench.name, None, "opsjobs"),
        (None, None, "opsjobs"),
        (None, "exhausted", "opsjobs"),
    ]
    assert (found[0]["progress"], found[2]["progress"]) == (None, None)


@pytest.mark.parametrize("words", ["jobs --search tag:eu", "why --search tag:eu"])
def test_a_search_that_takes_too_long_says_what_narrows_it(
    make_app: Callable[..., Flask], bench: Bench, words: str
) -> None:
    app = make_app(OPSJOBS_PAGE_TIMEOUT_SECONDS=0.2)
    with bench.connection.transaction():
        # Whoever holds this lock makes every search wait for it.
        bench.connection.execute("LOCK TABLE opsjobs.jobs IN ACCESS EXCLUSIVE MODE")
        run = app.test_cli_runner().invoke(args=["opsjobs", *shlex.split(words)])
    assert run.exit_code == 2
    assert run.output == f"Error: the query took longer than 0.2 s. {WHAT_NARROWS}\n"


def test_it_says_what_was_not_searched_and_not_ordered(
    app: Flask, record_job: RecordJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hit_queries, "MOST_HITS", 3)
    monkeypatch.setattr(hit_queries, "MOST_LISTED", 3)
    monkeypatch.setattr(hit_queries, "NEWEST_JOBS", 3)
    for _ in range(6):
        record_job(tags=["eu"])
    assert "not all jobs were searched" in _run(app, "--search", "tag:eu").output
    assert json.loads(_run(app, "--search", "tag:eu", "--json").output)["is_all_searched"] is False
    *_, first, why = _run(app, "--sort", "due").output.splitlines()
    assert first == "not by oldest due, the newest come first"
    assert why.startswith("More than 3 jobs match, or not all were searched")


def test_a_search_that_cannot_be_read_is_said(app: Flask) -> None:
    run = _run(app, "--search", "stat:failed")
    assert run.exit_code == 2
    assert "stat" in run.output
    assert "cannot be searched" in run.output
    assert _run(app).output == "there are no jobs\n"

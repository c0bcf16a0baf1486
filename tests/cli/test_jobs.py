"""`flask opsjobs jobs`: what it prints of which jobs, and what it says is missing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.install.starters.opsjobs_display import HostDisplay
from flask_opsjobs.jobs import queries, rows
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.jobs.search import hit_queries
from tests.support.engine import Bench

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


def test_the_time_of_each_state(app: Flask, bench: Bench, record_job: RecordJob) -> None:
    started, _queued = record_job(), record_job()
    bench.dispatch()
    bench.claim(started)
    record_job(scheduled_at=read_clock(bench.connection) + timedelta(hours=2, minutes=1))
    step = record_job()
    bench.connection.execute("UPDATE opsjobs.jobs SET state = 'deferred' WHERE id = %s", [step])
    record_job()
    says = [re.split("  +", line)[-1] for line in reversed(_run(app).output.splitlines())]
    assert [re.sub(r"\d+ s", "N s", each) for each in says] == [
        "has run N s",
        "queued N s ago",
        "due in 2 h",
        "after another job",
        "due N s ago",
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


def test_it_says_how_many_more_there_are(
    app: Flask, record_job: RecordJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(26):
        record_job(queue="mail")
    *listed, last = _run(app, "--search", "queue:mail").output.splitlines()
    assert (len(listed), last) == (25, "these are the first 25 of 26")
    assert len(_run(app, "--limit", "50").output.splitlines()) == 26
    assert len(_run(app, "--search", "limit:50").output.splitlines()) == 26
    monkeypatch.setattr(rows, "CAP", 25)
    monkeypatch.setattr(queries, "CAP", 25)
    last = _run(app, "--search", "queue:mail").output.splitlines()[-1]
    assert last == "these are the first 25 of at least 26"


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

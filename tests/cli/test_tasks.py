"""`flask opsjobs tasks`: what it prints, in which order, and that it says when nobody counts."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy.orm import Session

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.lifeline.loop_runs import Note, note_pass
from flask_opsjobs.loops import roll_up
from flask_opsjobs.loops.loop import Runner
from flask_opsjobs.tasks.models import TaskHour
from tests.support.engine import Bench
from tests.support.guides import is_shown

RecordJob = Callable[..., int]


def _run(app: Flask, *words: str) -> Result:
    return app.test_cli_runner().invoke(args=["opsjobs", "tasks", *words])


def test_it_prints_the_numbers_of_each_task(
    app: Flask, bench: Bench, record_job: RecordJob
) -> None:
    assert "no job was counted in this time\nnobody counts" in _run(app).output
    for kind in ("returned", "raised", "raised", "raised"):
        job_id = record_job(max_attempts=1)
        bench.dispatch()
        bench.claim(job_id)
        bench.record(job_id, 1, Outcome(kind))
    Runner(roll_up.LOOP, bench.host, "one").run_once(bench.connection, read_clock(bench.connection))
    run = _run(app)
    assert run.exit_code == 0
    head, numbers = run.output.splitlines()
    assert head == "note  (fails: 75 % in the last two hours, none ran yesterday)"
    assert numbers.strip().startswith("4 enqueued, 4 jobs ended, 75 % failed, median ")
    assert _run(app, "--find", "NOT").output == run.output
    none = "no task that was counted in this time has 'mail' in its name\n"
    assert _run(app, "--find", "mail").output == none
    found = json.loads(_run(app, "--json", "--since", "6h", "--sort", "failed").output)
    assert found["is_counted"] is True
    (task,) = found["tasks"]
    assert (task["task"], task["enqueued"], task["finished"], task["failed"]) == ("note", 4, 1, 3)
    assert (task["before"], task["is_worse"]) == (None, True)
    assert task["median_run"] >= 0
    assert task["paused_by"] is None
    why: dict[str, Any] = {"actor": "anna", "reason": "the letters are wrong"}
    Operator(bench.host).run("task.pause", ["task/note"], authorize=False, **why)
    assert "    paused by anna at " in _run(app).output.splitlines()[1]
    (task,) = json.loads(_run(app, "--json").output)["tasks"]
    assert (task["paused_by"], task["paused_reason"]) == ("anna", "the letters are wrong")


def test_it_prints_what_the_guide_shows(app: Flask, bench: Bench) -> None:
    now = read_clock(bench.connection)
    hour = now.replace(minute=0, second=0, microsecond=0)
    times = {"runs": [0] * 8 + [100], "longest_run": 9.8, "waits": [0] * 7 + [100]}
    with Session(bench.host.engine) as session:
        for at, failed in ((hour, 92), (hour - timedelta(days=1), 0)):
            counts = {"enqueued": 100, "finished": 100 - failed, "failed": failed}
            session.add(TaskHour(task="deliver_webhook", hour=at, **counts, **times))
        session.commit()
    note_pass(bench.connection, None, Note("roll_up", "web-1:17", 5, 0.01, "nothing to do"), now)
    assert is_shown("docs/numbers.md", "flask opsjobs tasks", _run(app).output)


@pytest.fixture
def counted(bench: Bench) -> None:
    """Three tasks whose memory grew, each by another part of that of yesterday and of a week before."""
    hour = read_clock(bench.connection).replace(minute=0, second=0, microsecond=0)
    counts = {"finished": 50, "failed": 0, "runs": [0] * 8 + [50], "longest_run": 0.2}
    with Session(bench.host.engine) as session:
        for enqueued, task, memory in (
            (70, "mail", {0: 800_000, 1: 400_000, 7: 200_000}),
            (90, "post", {0: 700_000, 1: 100_000, 7: 350_000}),
            (80, "texts", {0: 900_000, 1: 300_000, 7: 100_000}),
        ):
            for days, peak_kb in memory.items():
                at = hour - timedelta(days=days)
                row = TaskHour(task=task, hour=at, enqueued=enqueued, peak_kb=peak_kb, **counts)
                session.add(row)
        session.commit()


def _printed(app: Flask, *words: str) -> list[str]:
    """The names of the tasks that it prints, in their order."""
    lines = _run(app, *words).output.splitlines()
    names = [line.split()[0] for line in lines if "  (" in line]
    in_json = json.loads(_run(app, "--json", *words).output)["tasks"]
    assert [task["task"] for task in in_json] == names
    return names


@pytest.mark.usefixtures("counted")
def test_the_worst_change_is_printed_first(app: Flask) -> None:
    assert _printed(app) == ["post", "texts", "mail"]
    head, numbers, *_ = _run(app).output.splitlines()
    assert head == "post  (memory: 98 MB before, 684 MB now)"
    assert numbers.strip().startswith("90 enqueued, 50 jobs ended, 0 % failed, ")
    assert numbers.endswith(", memory 684 MB")


@pytest.mark.usefixtures("counted")
def test_against_a_week_before_the_worst_change_is_another(app: Flask) -> None:
    assert _printed(app, "--against", "week") == ["texts", "mail", "post"]
    run = _run(app, "--against", "week")
    assert run.output.startswith("texts  (memory: 98 MB before, 879 MB now)\n")
    found = json.loads(_run(app, "--against", "week", "--json").output)
    assert found["against"] == "a week before"
    assert [task["before"]["peak_kb"] for task in found["tasks"]] == [100_000, 200_000, 350_000]


@pytest.mark.usefixtures("counted")
def test_tasks_are_printed_in_the_order_that_is_asked_for(app: Flask) -> None:
    for column, order in (
        ("change", ["mail", "texts", "post"]),
        ("task", ["mail", "post", "texts"]),
        ("enqueued", ["mail", "texts", "post"]),
        ("memory", ["post", "mail", "texts"]),
    ):
        assert _printed(app, "--sort", column) == order
        assert _printed(app, "--sort", f"-{column}") == order[::-1]
    run = _run(app, "--sort", "colour")
    assert run.exit_code == 2
    assert "'colour' is not one of 'change', '-change', 'task'" in run.output


def test_a_span_that_cannot_be_read_is_refused(app: Flask) -> None:
    for text in ("yesterday", "61d", "0h"):
        run = _run(app, "--since", text)
        assert run.exit_code == 2
        assert "a span such as 6h or 7d" in run.output

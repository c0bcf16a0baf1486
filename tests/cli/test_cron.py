"""`flask opsjobs cron …`: what entries there are, and the same door for them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from flask_opsjobs import OpsJobs
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.cron import transitions
from flask_opsjobs.cron.declaration import make_entry
from flask_opsjobs.cron.queries import MOST_ENTRIES
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.record.task import Task
from flask_opsjobs.loops import cron
from flask_opsjobs.loops.loop import Runner
from tests.support.engine import Bench

REASON = ("--reason", "because it is a test")


@pytest.fixture
def call(app: Flask) -> Callable[..., Result]:
    """Calls a command."""
    return lambda *words: app.test_cli_runner().invoke(args=["opsjobs", "cron", *words])


@pytest.fixture
def hourly(opsjobs: OpsJobs, note: Task, bench: Bench) -> None:
    """The entry `note`, which a scheduler took over three hours ago and then missed."""
    opsjobs.cron("0 * * * *", catch_up=3, overlap="allow")(note)
    runner, now = Runner(cron.LOOP, bench.host, "one"), read_clock(bench.connection)
    for hours in (-3, 0):
        runner.run_once(bench.connection, now + timedelta(hours=hours))


def test_without_an_entry_it_says_where_they_come_from(call: Any) -> None:
    assert "flask opsjobs run" in call("list").output


def test_without_a_schema_the_list_says_what_to_run(call: Any, bench: Bench, host: Host) -> None:
    bench.connection.execute("DROP SCHEMA opsjobs CASCADE")
    host._schema = 0
    said = call("list")
    assert said.exit_code == 2
    assert "flask db upgrade" in said.output


def test_the_list_has_schedule_policies_and_results(call: Any, hourly: None, bench: Bench) -> None:
    said = call("list")
    assert said.exit_code == 0
    assert said.output.startswith(
        "note  active  '0 * * * *' UTC  note  overlap allow, catch-up 3  "
    )
    assert "late" in said.output
    why: dict[str, Any] = {"actor": "anna", "reason": "it is wrong"}
    Operator(bench.host).run("task.pause", ["task/note"], authorize=False, **why)
    assert "UTC  note (paused)  overlap" in call("list").output


def test_of_very_many_the_first_are_listed_and_that_is_said(
    app: Flask, call: Any, note: Task, bench: Bench
) -> None:
    now = read_clock(bench.connection)
    for number in range(MOST_ENTRIES + 1):
        entry = make_entry(note, "@daily", name=f"many_{number:03}")
        assert transitions.create(bench.connection, entry, "runtime", "ops-demo", now)
    said = call("list").output.splitlines()
    assert len(said) == MOST_ENTRIES + 1
    assert said[-1].startswith("only the first 500")
    assert "the first 500" in app.test_client().get("/ops/jobs/cron").text


def test_an_entry_is_paused_resumed_and_run(call: Any, hourly: None, bench: Bench) -> None:
    for action in ("pause", "resume", "run-now"):
        done = call(action, "note", *REASON)
        assert done.exit_code == 0, done.output
    found = bench.rows("SELECT action, via FROM opsjobs.audit_events ORDER BY sequence")
    assert [row["action"] for row in found] == ["cron.pause", "cron.resume", "cron.run_now"]
    assert {row["via"] for row in found} == {"cli"}
    manual = bench.row("SELECT decided_by, why FROM opsjobs.cron_slots WHERE result = 'manual'")
    assert manual["why"] == "because it is a test"


def test_a_dry_run_writes_nothing(call: Any, hourly: None, bench: Bench) -> None:
    asked = call("pause", "note", "nobody", "--dry-run")
    assert asked.exit_code == 3
    assert "state: active → paused" in asked.output
    assert "there is no cron entry nobody: declare it with @opsjobs.cron and start" in asked.output
    assert bench.rows("SELECT 1 FROM opsjobs.cron_entries WHERE is_paused") == []


def test_nothing_that_was_missed_is_left_to_make_up_for(call: Any, hourly: None) -> None:
    refused = call("catch-up", "note", "5", *REASON)
    assert refused.exit_code == 1
    assert "has been caught up" in refused.output

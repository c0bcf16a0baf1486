"""`flask opsjobs incidents` and `flask opsjobs incident …`: what they print, and how they exit."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.lifeline import incidents
from flask_opsjobs.lifeline.finding import DetectorPass, Finding, Observation
from tests.support.engine import Bench

WHY = ("--reason", "known to all of us")


@pytest.fixture
def site(app: Flask, bench: Bench) -> Flask:
    """An app in which a critical and a less severe incident are open."""
    facts = {"loop": "cron", "process": "p", "last_at": "2026-11-25T14:02:10+00:00"}
    seen = (Observation("last_pass", "loop_runs", {"process": "p"}),)
    _find(bench, "loop_silent", Finding("loop/cron", facts=facts, evidence=seen))
    return app


def _find(bench: Bench, class_: str, *findings: Finding) -> None:
    incidents.apply_pass(
        bench.connection, class_, DetectorPass(findings), read_clock(bench.connection)
    )


def _run(site: Flask, *words: str) -> Result:
    return site.test_cli_runner().invoke(args=["opsjobs", *words])


def test_a_critical_one_that_nobody_knows_of_exits_with_1(site: Flask) -> None:
    run = _run(site, "incidents")
    assert run.exit_code == 1
    assert "1  The loop cron is silent  (critical, open, for 0 s)" in run.output
    assert _run(site, "incident", "acknowledge", "1", "--until", "2h", *WHY).exit_code == 0
    known = _run(site, "incidents")
    assert known.exit_code == 0
    assert "critical, acknowledged" in known.output
    assert f"until {'20'}" in known.output
    assert WHY[1] in known.output
    assert _run(site, "incident", "unacknowledge", "1", *WHY).exit_code == 0
    assert _run(site, "incidents").exit_code == 1


def test_a_warning_exits_with_0_and_filters_hide_no_critical_one(site: Flask, bench: Bench) -> None:
    hidden = _run(site, "incidents", "--severity", "warning")
    assert (hidden.exit_code, hidden.output) == (1, "no such incident\n")
    bench.rows("DELETE FROM opsjobs.incidents RETURNING 1")
    facts = {"loop": "stage", "failed": 5, "process": "p", "error": "no"}
    _find(bench, "loop_failing", Finding("loop/stage", facts=facts, affected=3))
    run = _run(site, "incidents")
    assert (run.exit_code, "(warning, open, for 0 s, 3 affected)" in run.output) == (0, True)


def test_as_json(site: Flask) -> None:
    run = _run(site, "incidents", "--json")
    (found,) = json.loads(run.stdout)["incidents"]
    assert (run.exit_code, found["class"], found["severity"]) == (1, "loop_silent", "critical")
    assert found["title"] == "The loop cron is silent"


def test_one_incident_with_its_evidence(site: Flask) -> None:
    run = _run(site, "incident", "1")
    assert run.exit_code == 0
    assert "evidence of episode 1:" in run.output
    assert "last_pass, by loop_runs: process p" in run.output
    about: dict[str, Any] = json.loads(_run(site, "incident", "1", "--json").stdout)
    assert [each["kind"] for each in about["evidence"]] == ["opened", "last_pass"]
    assert [each["number"] for each in about["episodes"]] == [1]
    missing = _run(site, "incident", "7")
    assert (missing.exit_code, missing.stderr) == (1, "Error: there is no incident 7\n")


def test_what_is_still_true_is_not_resolved(site: Flask) -> None:
    run = _run(site, "incident", "resolve", "1", *WHY)
    assert run.exit_code == 1
    assert "still true" in run.output


def test_a_bad_end_is_a_wrong_command_line(site: Flask) -> None:
    run = _run(site, "incident", "acknowledge", "1", "--until", "soon", *WHY)
    assert run.exit_code == 2
    assert "until is a span such as 30m, 2h or 3d" in run.output

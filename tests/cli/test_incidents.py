"""`flask opsjobs incidents` and `flask opsjobs incident …`: what they print, and how they exit."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from datetime import UTC, timedelta
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from typing_extensions import override

from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.lifeline import incidents
from flask_opsjobs.lifeline.detectors.redis_away import find_silent_redis
from flask_opsjobs.lifeline.finding import DetectorPass, Finding, Observation
from flask_opsjobs.lifeline.loop_runs import Note, note_pass
from tests.conftest import MakeApp
from tests.support.engine import Bench
from tests.support.guides import is_shown
from tests.support.policies import ShowAll

WHY = ("--reason", "known to all of us")


@pytest.fixture(autouse=True)
def watched(bench: Bench) -> None:
    """The loop detect has just made a pass."""
    note = Note("detect", "web-1:17", 5, 0.01, "nothing to do")
    note_pass(bench.connection, None, note, read_clock(bench.connection))


@pytest.fixture
def site(app: Flask, bench: Bench) -> Flask:
    """An app in which a critical incident is open."""
    facts = {"loop": "cron", "process": "p", "last_at": "2026-11-25T14:02:10+00:00"}
    seen = (Observation("last_pass", "loop_runs", {"process": "p", "last_at": facts["last_at"]}),)
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


def test_it_prints_what_the_guide_shows(app: Flask, bench: Bench) -> None:
    since = read_clock(bench.connection) - timedelta(minutes=4)
    facts = {"queue": "mail", "number": 212, "due_at": since.isoformat()}
    _find(bench, "queue_unserved", Finding("queue/mail", since, 212, facts=facts))
    assert is_shown("docs/lifeline.md", "flask opsjobs incidents", _run(app, "incidents").output)


def test_a_warning_exits_with_0_and_filters_hide_no_critical_one(site: Flask, bench: Bench) -> None:
    hidden = _run(site, "incidents", "--severity", "warning")
    assert (hidden.exit_code, hidden.output) == (1, "no such incident\n")
    bench.rows("DELETE FROM opsjobs.incidents RETURNING 1")
    facts = {"loop": "stage", "failed": 5, "process": "p", "error": "no"}
    _find(bench, "loop_failing", Finding("loop/stage", facts=facts, affected=3))
    run = _run(site, "incidents")
    assert (run.exit_code, "(warning, open, for 0 s, 3 jobs affected)" in run.output) == (0, True)


def test_many_others_hide_no_critical_one(app: Flask, bench: Bench) -> None:
    """The cause of many is older than they are, and it alone is unattended."""
    since = read_clock(bench.connection) - timedelta(minutes=5)
    silent = find_silent_redis("mail", "no", has_plain_workers=True)
    _find(bench, "redis_away", dataclasses.replace(silent, since=since))
    facts = {"queue": "mail", "number": 1, "due_at": "2026-11-25T14:02:10+00:00"}
    unserved = [Finding(f"queue/{each}", since, facts=facts) for each in range(5)]
    _find(bench, "queue_unserved", *unserved)
    follows = [row["because_of"] for row in bench.rows("SELECT because_of FROM opsjobs.incidents")]
    assert follows.count(None) == 1
    facts = {"loop": "stage", "failed": 5, "process": "p", "error": "no"}
    _find(bench, "loop_failing", *(Finding(f"loop/{each}", facts=facts) for each in range(5)))
    run = _run(app, "incidents", "--limit", "3")
    assert run.exit_code == 1
    assert run.output.count("(critical,") == 3
    assert run.output.endswith("these are the first 3: print more with --limit\n")
    found = json.loads(_run(app, "incidents", "--limit", "7", "--json").output)
    assert (len(found["incidents"]), found["has_more"]) == (7, True)
    for all_of_them in ((), ("--limit", "11")):
        run = _run(app, "incidents", *all_of_them)
        assert (run.output.count(", open, "), "--limit" in run.output) == (11, False)
    for too_few_or_many in ("0", "10001"):
        assert _run(app, "incidents", "--limit", too_few_or_many).exit_code == 2


def test_without_an_incident_it_says_so(app: Flask) -> None:
    run = _run(app, "incidents")
    assert (run.exit_code, run.output) == (0, "no incident is open\n")


def test_without_the_loop_that_looks_nothing_is_called_well(app: Flask, bench: Bench) -> None:
    bench.connection.execute("UPDATE opsjobs.loop_runs SET last_at = last_at - interval '1 min'")
    run = _run(app, "incidents")
    assert run.exit_code == 1
    assert "nobody looks for incidents: start `flask opsjobs run`\n" in run.output
    assert json.loads(_run(app, "incidents", "--json").stdout)["is_watched"] is False


@pytest.fixture
def in_nepal(bench: Bench) -> Iterator[None]:
    """A database whose time zone is not UTC."""
    name = bench.row("SELECT current_database() AS name")["name"]
    bench.connection.execute(f"ALTER DATABASE \"{name}\" SET timezone = 'Asia/Kathmandu'")
    yield
    bench.connection.execute(f'ALTER DATABASE "{name}" RESET timezone')


@pytest.mark.usefixtures("in_nepal")
def test_times_are_in_utc_whatever_the_database_says(site: Flask, bench: Bench) -> None:
    until = read_clock(bench.connection) + timedelta(hours=2)
    words = ("incident", "acknowledge", "1", "--until", until.isoformat(), *WHY)
    assert _run(site, *words).exit_code == 0
    assert f"until {until.astimezone(UTC):%Y-%m-%d %H:%M} UTC" in _run(site, "incidents").output


def test_as_json(site: Flask) -> None:
    run = _run(site, "incidents", "--json")
    (found,) = json.loads(run.stdout)["incidents"]
    assert (run.exit_code, found["class"], found["severity"]) == (1, "loop_silent", "critical")
    assert found["title"] == "The loop cron is silent"


def test_one_incident_with_its_evidence(site: Flask) -> None:
    run = _run(site, "incident", "1")
    assert run.exit_code == 0
    assert "evidence of episode 1:" in run.output
    assert "last pass, by loop_runs: last at 2026-11-25 14:02:10, process p\n" in run.output
    about: dict[str, Any] = json.loads(_run(site, "incident", "1", "--json").stdout)
    assert [each["kind"] for each in about["evidence"]] == ["opened", "last_pass"]
    assert [each["number"] for each in about["episodes"]] == [1]
    missing = _run(site, "incident", "7")
    assert (missing.exit_code, missing.stderr) == (1, "Error: there is no incident 7\n")


class HideHunter(ShowAll):
    """Hides one word."""

    @override
    def clean_text(self, text: str) -> str:
        return text.replace("hunter2", "[hidden]")


def test_texts_in_evidence_pass_the_display_policy(make_app: MakeApp, bench: Bench) -> None:
    """Also those in a list. What this version cannot do is not offered."""
    app = make_app(display=HideHunter())
    facts = {"workflow": 7, "broken": ["pay: password=hunter2"], "number": 1}
    seen = (Observation("broken", "detect", {"says": facts["broken"]}),)
    since = read_clock(bench.connection) - timedelta(minutes=5)
    _find(bench, "workflow_stuck", Finding("workflow/7", since, facts=facts, evidence=seen))
    facts = {"failure": 7, "failed_jobs": 1, "task": "t", "type": None, "raised_in": None}
    _find(bench, "failure_new", Finding("failure/7", facts=facts))
    for words in (("incident", "1"), ("incident", "1", "--json"), ("incidents",)):
        assert "hunter2" not in _run(app, *words).output
    assert (
        "repair: operation.retry comes with a later version\n" in _run(app, "incident", "2").output
    )


def test_what_is_still_true_is_not_resolved(site: Flask) -> None:
    run = _run(site, "incident", "resolve", "1", *WHY)
    assert run.exit_code == 1
    assert "still true" in run.output


def test_a_bad_end_is_a_wrong_command_line(site: Flask) -> None:
    run = _run(site, "incident", "acknowledge", "1", "--until", "soon", *WHY)
    assert run.exit_code == 2
    assert "until is a span such as 30m, 2h or 3d" in run.output

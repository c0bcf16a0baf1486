"""`flask opsjobs failures`: what it prints, and that it says when nobody counts failures."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta

import pytest
from click.testing import Result
from flask import Flask

from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.install.starters.opsjobs_display import HostDisplay
from flask_opsjobs.jobs.failure_key import key_of_end
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.loops import roll_up
from flask_opsjobs.loops.loop import Runner
from tests.support.engine import Bench

RecordJob = Callable[..., int]


def _run(app: Flask, *words: str) -> Result:
    return app.test_cli_runner().invoke(args=["opsjobs", "failures", *words])


def _fail(bench: Bench, record_job: RecordJob, error: str, number: int = 1) -> None:
    for _ in range(number):
        job = record_job(max_attempts=1)
        bench.dispatch()
        bench.claim(job)
        key = key_of_end("note", error.partition(":")[0], None)
        bench.record(job, 1, Outcome(kind="raised", error=error, failure_key=key))


def test_it_lists_each_error_once(
    app: Flask, bench: Bench, record_job: RecordJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that failed last comes first, and what the display policy hides is hidden."""
    monkeypatch.setattr(bench.host, "display", HostDisplay())
    _fail(bench, record_job, "ValueError: no such account", 2)
    _fail(bench, record_job, "KeyError: postgresql://ada:geheim@db/shop")
    Runner(roll_up.LOOP, bench.host, "one").run_once(bench.connection)
    run = _run(app)
    assert run.exit_code == 0
    newest, about, older, _ = run.output.splitlines()
    assert "KeyError" in newest
    assert "geheim" not in run.output
    assert "ValueError: no such account  (open, 2 attempts, 2 jobs failed, last 0 s ago" in older
    assert about.strip() == "task note"
    found = json.loads(_run(app, "--json").output)
    assert (found["is_counted"], found["has_more"]) == (True, False)
    assert [(row["attempts"], row["state"]) for row in found["failures"]] == [
        (1, "open"),
        (2, "open"),
    ]
    assert "geheim" not in json.dumps(found)


def test_it_filters_and_says_that_there_is_none(
    app: Flask, bench: Bench, record_job: RecordJob
) -> None:
    _fail(bench, record_job, "ValueError: no")
    Runner(roll_up.LOOP, bench.host, "one").run_once(bench.connection)
    assert "ValueError" in _run(app, "--task", "note").output
    assert _run(app, "--task", "other").output == "no such failure\n"
    assert _run(app, "--state", "ignored").output == "no failure is ignored\n"
    assert _run(app, "--state", "gone").exit_code == 2


@pytest.mark.parametrize(
    ("words", "first"),
    [((), ["Error1:", "Error2:"]), (("--task", "note"), ["Error2:", "Error1:"])],
)
def test_it_prints_as_many_as_it_may_and_says_when_there_are_more(
    app: Flask, bench: Bench, record_job: RecordJob, words: tuple[str, ...], first: list[str]
) -> None:
    for number in (0, 1, 2, 1):
        _fail(bench, record_job, f"Error{number}: no")
        Runner(roll_up.LOOP, bench.host, "one").run_once(bench.connection)
    *rows, last = _run(app, *words, "--limit", "2").output.splitlines()
    assert [line.split()[1] for line in rows[::2]] == first
    assert last == "these are the first 2: print more with --limit"
    assert json.loads(_run(app, *words, "--limit", "2", "--json").output)["has_more"] is True
    for all_of_them in (_run(app, *words), _run(app, *words, "--limit", "3")):
        assert "Error0: no" in all_of_them.output
        assert "print more" not in all_of_them.output
    for too_few_or_many in ("0", "10001"):
        assert _run(app, "--limit", too_few_or_many).exit_code == 2


def test_it_says_that_nobody_counts(app: Flask, bench: Bench) -> None:
    late = "nobody counts failures: start `flask opsjobs run`\n"
    assert _run(app).output == f"no failure is open\n{late}"
    before = read_clock(bench.connection) - timedelta(hours=1)
    Runner(roll_up.LOOP, bench.host, "one").run_once(bench.connection, before)
    assert _run(app).output.endswith(late)
    assert json.loads(_run(app, "--json").output)["is_counted"] is False

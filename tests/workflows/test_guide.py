"""The guides *Workflows* and *Signals*: each of their examples runs, one after another."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs import OpsJobs
from flask_opsjobs.host import Host
from flask_opsjobs.testing import perform_due
from flask_opsjobs.workflows.checks import checks
from tests.support.engine import Bench
from tests.support.runs import read
from tests.support.sources import ROOT

GUIDE = ROOT / "docs/workflows.md"
SIGNALS = ROOT / "docs/signals.md"


def blocks(guide: Path) -> Iterator[Any]:
    """The examples of a guide, compiled."""
    for block in re.findall(r"^```python\n(.*?)^```", guide.read_text(), re.M | re.S):
        yield compile(block, str(guide), "exec")


def test_every_example_runs(
    db: SQLAlchemy,
    opsjobs: OpsJobs,
    host: Host,
    bench: Bench,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names: dict[str, Any] = {"opsjobs": opsjobs, "db": db}
    for block in blocks(GUIDE):
        exec(block, names)
    db.session.commit()
    perform_due()
    runs = read(host, "SELECT id, name, state FROM opsjobs.workflows ORDER BY id")
    # The one with a delay of a minute goes on.
    assert {run["name"] for run in runs if run["state"] != "finished"} == {"slow"}
    assert len(runs) == 10
    said = capsys.readouterr().out
    for line in (
        "to eva@example.com: invoice of customer 42",
        "clean up after invoice of customer 7",
        "booked 990",
        f"{128 * 5 * 2}",
        f"step greet of run {names['run'].id}: account 42",
        f"workflow {names['run'].id} of account 42 is finished",
    ):
        assert line in said, line
    assert checks(bench.connection) == []


def test_every_example_of_signals_runs(
    app: Flask,
    db: SQLAlchemy,
    opsjobs: OpsJobs,
    host: Host,
    bench: Bench,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names: dict[str, Any] = {"opsjobs": opsjobs, "db": db, "app": app}
    for block in blocks(SIGNALS):
        exec(block, names)
        perform_due()
    event = {"id": "evt_1", "order": 42, "cents": 990}
    answers = [app.test_client().post("/webhooks/payment", json=event).json for _ in range(2)]
    assert [answer and answer["is_repeated"] for answer in answers] == [False, True]
    runs = read(host, "SELECT id, name, state FROM opsjobs.workflows ORDER BY id")
    running = [(run["id"], run["name"]) for run in runs if run["state"] == "running"]
    assert running == [(names["first"].id, "approval"), (runs[-1]["id"], "reminder")]
    perform_due(at=datetime.now(UTC) + timedelta(days=4))
    said = capsys.readouterr().out
    for line in (
        "please pay order 42",
        "order 42 is delivered, 990 cents were paid",
        "order 43 is delivered, 450 cents were paid",
        "order 7 is delivered, 0 cents were paid",
        "please pay soon",
    ):
        assert line in said, line
    outcomes = read(host, "SELECT outcome, duplicates FROM opsjobs.signals ORDER BY id")
    taken = [("taken", 0)] * 4
    assert [(one["outcome"], one["duplicates"]) for one in outcomes] == [*taken, ("late", 1)]
    assert checks(bench.connection) == []


def test_two_waits_of_one_key_leave_a_signal_ambiguous_as_the_guide_says(
    db: SQLAlchemy, opsjobs: OpsJobs, host: Host
) -> None:
    names: dict[str, Any] = {"opsjobs": opsjobs, "db": db}
    (block,) = [each for each in blocks(SIGNALS) if "approval" in each.co_names]
    exec(block, names)
    perform_due()
    opsjobs.signal("approved", key="finance")
    db.session.commit()
    perform_due()
    assert read(host, "SELECT outcome FROM opsjobs.signals") == [{"outcome": "ambiguous"}]
    opsjobs.signal("approved", key="finance", run=names["second"].id)
    db.session.commit()
    perform_due()
    states = read(host, "SELECT state FROM opsjobs.workflows ORDER BY id")
    assert [run["state"] for run in states] == ["running", "finished"]

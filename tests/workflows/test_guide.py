"""The guide *Workflows*: each of its examples runs, one after another."""

from __future__ import annotations

import re
from typing import Any

import pytest
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs import OpsJobs
from flask_opsjobs.host import Host
from flask_opsjobs.testing import perform_due
from flask_opsjobs.workflows.checks import checks
from tests.support.engine import Bench
from tests.support.runs import read
from tests.support.sources import ROOT

GUIDE = ROOT / "docs/workflows.md"


def test_every_example_runs(
    db: SQLAlchemy,
    opsjobs: OpsJobs,
    host: Host,
    bench: Bench,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names: dict[str, Any] = {"opsjobs": opsjobs, "db": db}
    for block in re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.M | re.S):
        exec(compile(block, str(GUIDE), "exec"), names)
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

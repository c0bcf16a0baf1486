"""The guide *Batches*: each of its examples runs, one after another."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs import OpsJobs
from flask_opsjobs.batches.lifecycle import MEANINGS
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.testing import perform_due
from tests.batches.conftest import batch_of
from tests.support.engine import Bench
from tests.support.sources import ROOT

GUIDE = ROOT / "docs/batches.md"


@pytest.mark.slow
def test_every_example_runs(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {"opsjobs": opsjobs, "db": db}
    for block in re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.M | re.S):
        exec(compile(block, str(GUIDE), "exec"), names)
    # The members of the large one are enough when they are enqueued.
    bench.connection.execute(
        "UPDATE opsjobs.jobs SET state = 'scheduled', due_at = due_at + interval '1 year'"
        " WHERE batch_id = 2"
    )
    perform_due(at=read_clock(bench.connection) + timedelta(hours=1))
    found = [batch_of(bench, id) for id in (1, 2, 3)]
    assert [(one["name"], one["state"], one["enqueued"]) for one in found] == [
        ("import", "failed", 3),
        ("large import", "running", 25_000),
        ("orders of today", "finished", 2),
    ]
    said = capsys.readouterr().out
    assert "import: a member of batch 1 failed" in said
    assert "batch 1 is failed: 2 of 3 finished" in said


def test_the_guide_says_what_the_states_mean() -> None:
    found = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", GUIDE.read_text(), re.M))
    assert {state: found[state] for state in MEANINGS} == MEANINGS

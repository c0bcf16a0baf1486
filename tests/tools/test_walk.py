"""`make walk` prints what a job passes: docs/internals.md shows it, and it does not grow unnoticed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.support.processes import Child
from tests.support.sources import ROOT

pytestmark = pytest.mark.processes

# The most Python files, statements and templates that a walk may pass beyond what any page and an idle worker
# pass. A walk that has become shorter lowers its numbers here.
MOST = {"job": (43, 8, 10), "retry": (18, 13, 5)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "files", "statements", "templates"),
    [
        (
            "job",
            ["jobs/record/task.py", "engine/worker/taker.py", "endings/transitions.py"],
            ["enqueue_due_job", "reserve_deliveries"],
            ["job/page.html"],
        ),
        (
            "retry",
            ["actions/planning.py", "actions/execution.py", "jobs/actions.py"],
            ["retry_jobs", "append_audit_event"],
            ["preview/_open.html"],
        ),
    ],
)
def test_a_walk_passes_what_it_must_and_not_much_more(
    tmp_path: Path,
    name: str,
    files: list[str],
    statements: list[str],
    templates: list[str],
) -> None:
    command = [sys.executable, "-m", "tools.walk", name]
    child = Child(command, tmp_path / "said", {}, warm="app")
    assert child.wait(120) == 0, child.log
    # A worker says on stderr that it has started.
    said = re.sub(r".* listens to .*\n", "", child.log)
    printed = {line.strip() for line in said.splitlines()}
    assert {*files, *statements, *templates} <= printed
    own = said.partition("\nAnd ")[0]
    kept = (ROOT / "docs" / "_walks" / f"{name}.txt").read_text().partition("\nAnd ")[0]
    assert set(own.splitlines()) == set(kept.splitlines()), f"run: make walk WALK={name}"
    counts = [int(number) for number in re.findall(r"^  (\d+) ", own, re.MULTILINE)]
    assert all(count <= most for count, most in zip(counts, MOST[name], strict=True)), own

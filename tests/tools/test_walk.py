"""`make walk` prints what a job passes: docs/internals.md shows it, and it does not grow unnoticed."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.support.sources import ROOT

pytestmark = pytest.mark.processes

# The most Python files, statements and templates that a walk may pass beyond what any page and an idle worker
# pass. A walk that has become shorter lowers its numbers here.
MOST = {"job": (43, 8, 10), "retry": (18, 13, 5)}


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
    name: str,
    files: list[str],
    statements: list[str],
    templates: list[str],
) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "tools.walk", name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    printed = {line.strip() for line in done.stdout.splitlines()}
    assert {*files, *statements, *templates} <= printed
    own = done.stdout.partition("\nAnd ")[0]
    kept = (ROOT / "docs" / "_walks" / f"{name}.txt").read_text().partition("\nAnd ")[0]
    assert set(own.splitlines()) == set(kept.splitlines()), f"run: make walk WALK={name}"
    counts = [int(number) for number in re.findall(r"^  (\d+) ", own, re.MULTILINE)]
    assert all(count <= most for count, most in zip(counts, MOST[name], strict=True)), own

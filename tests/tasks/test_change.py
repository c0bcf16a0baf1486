"""Several changes of a task: the worst first, and the others for the worse beside it."""

from __future__ import annotations

from dataclasses import replace

from flask_opsjobs.tasks.change import find_change
from flask_opsjobs.tasks.queries import TaskNumbers

YESTERDAY = TaskNumbers(
    task="send",
    enqueued=50,
    finished=50,
    failed=0,
    canceled=0,
    waits=[50],
    runs=[0, 50],
    longest_run=0.1,
    peak_kb=100_000,
)


def test_all_that_got_worse_is_said_and_nothing_else() -> None:
    now = replace(
        YESTERDAY, finished=40, failed=10, runs=[0] * 6 + [50], longest_run=9.0, peak_kb=90_000
    )
    change = find_change(now, YESTERDAY, None, "yesterday")
    assert change.says.startswith("more failed: 20 % now, 0 % yesterday; p95 rose: ")
    assert "memory" not in change.says
    assert (change.status, change.is_worse) == ("late", True)
    failing = find_change(now, YESTERDAY, now, "yesterday").says
    assert failing.startswith("fails: 20 % in the last two hours, 0 % yesterday; p95 rose: ")
    assert "more failed" not in failing


def test_what_got_better_is_said_alone() -> None:
    slow = replace(YESTERDAY, runs=[0] * 6 + [50], longest_run=9.0)
    assert find_change(YESTERDAY, slow, None, "yesterday").says.startswith("p95 fell: ")
    assert find_change(YESTERDAY, YESTERDAY, None, "yesterday").says == "as yesterday"

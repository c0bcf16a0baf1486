"""The run history is kept for its days, and what still waits for its job's end longer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.lifeline import retention
from tests.cron.conftest import START, Scheduler

MINUTE = timedelta(minutes=1)


def test_slots_go_after_their_days_but_not_before_their_jobs_have_ended(
    every_ten: Callable[..., Scheduler],
) -> None:
    scheduler = every_ten()
    bench = scheduler.bench
    for minutes in (10, 20, 30):
        scheduler.look(START + minutes * MINUTE)
    assert [result for _, result, _ in scheduler.slots()] == [
        "ran",
        "skipped_overlap",
        "skipped_overlap",
    ]
    settings = replace(bench.host.settings, keep_slots_days=10)
    # Decided at 12:10:30, 12:20:30 and 12:30:30; the first has a job that has not ended.
    now = START + timedelta(days=10) + 25 * MINUTE
    assert retention.count_retainable(bench.connection, settings, now)["cron_slots"] == 1
    assert retention.retain(bench.connection, settings, now)["cron_slots"] == 1
    assert [slot for slot, _, _ in scheduler.slots()] == ["12:10", "12:30"]
    (job,) = scheduler.jobs()
    bench.dispatch()
    bench.claim(job["id"])
    bench.record(job["id"], 1, Outcome(kind="returned"))
    assert retention.retain(bench.connection, settings, now)["cron_slots"] == 1
    assert [slot for slot, _, _ in scheduler.slots()] == ["12:30"]
    # What is gone from the run history does not come again.
    scheduler.look(START + 31 * MINUTE)
    assert [slot for slot, _, _ in scheduler.slots()] == ["12:30"]

"""Every slot that should have been has one result:
in time, late, missed, over restarts, changes and clocks.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flask_opsjobs import OpsJobs
from flask_opsjobs.cron.decide_slots import MOST_SLOTS, decide_by_time
from flask_opsjobs.jobs.record.task import Task
from flask_opsjobs.loops import cron as cron_loop
from tests.cron.conftest import START, Scheduler

pytestmark = pytest.mark.lane

EveryTen = Callable[..., Scheduler]
MINUTE = timedelta(minutes=1)


def test_a_new_entry_has_no_slot_before_it(every_ten: EveryTen) -> None:
    scheduler = every_ten()
    assert scheduler.slots() == []
    assert scheduler.entry()["checked_until"] == START


def test_a_slot_in_time_runs(every_ten: EveryTen) -> None:
    scheduler = every_ten(args={"account": 7, "secret": "hidden"})
    scheduler.look(START + 9 * MINUTE)
    assert scheduler.slots() == []
    scheduler.look(START + 10 * MINUTE)
    assert scheduler.slots() == [("12:10", "ran", 1)]
    (job,) = scheduler.jobs()
    assert (job["task"], job["cron_entry"], job["args"]) == ("sync", "sync", {"account": 7})
    assert job["state"] == "available"
    slot = scheduler.bench.row("SELECT * FROM opsjobs.cron_slots")
    assert slot["job_id"] == job["id"]
    # Counted where it was enqueued, for the integrity check.
    assert scheduler.bench.rows(
        "SELECT sum(enqueued) AS enqueued FROM opsjobs.job_count_deltas"
    ) == [{"enqueued": 1}]
    scheduler.look(START + 10 * MINUTE)
    assert len(scheduler.jobs()) == 1


def test_what_is_redacted_is_nowhere_in_the_entry(every_ten: EveryTen) -> None:
    scheduler = every_ten(args={"account": 7, "secret": "hidden"})
    assert scheduler.entry()["args"] == {"account": 7}
    assert "hidden" not in str(scheduler.bench.rows("SELECT * FROM opsjobs.cron_entries"))


@pytest.mark.parametrize(
    ("catch_up", "results"),
    [
        ("none", [("12:10", "missed", 3), ("12:40", "ran", 1)]),
        ("latest", [("12:10", "missed", 3), ("12:40", "ran", 1)]),
        (
            2,
            [
                ("12:10", "missed", 1),
                ("12:20", "late", 1),
                ("12:30", "late", 1),
                ("12:40", "ran", 1),
            ],
        ),
    ],
)
def test_after_a_time_without_a_scheduler(
    every_ten: EveryTen, catch_up: Any, results: list[Any]
) -> None:
    scheduler = every_ten(catch_up=catch_up, overlap="allow")
    scheduler.look(START + 40 * MINUTE)
    assert scheduler.slots() == results
    assert len(scheduler.jobs()) == sum(result in ("ran", "late") for _, result, _ in results)


@pytest.mark.parametrize(
    ("catch_up", "results"),
    [
        ("none", [("12:10", "missed", 3)]),
        ("latest", [("12:10", "missed", 2), ("12:30", "late", 1)]),
        (5, [("12:10", "late", 1), ("12:20", "late", 1), ("12:30", "late", 1)]),
    ],
)
def test_after_a_time_without_a_scheduler_when_no_slot_is_due(
    every_ten: EveryTen, catch_up: Any, results: list[Any]
) -> None:
    scheduler = every_ten(catch_up=catch_up, overlap="allow")
    scheduler.look(START + 35 * MINUTE)
    assert scheduler.slots() == results


def test_what_was_missed_says_since_when_nobody_was_there(every_ten: EveryTen) -> None:
    scheduler = every_ten()
    scheduler.look(START + 5 * MINUTE)
    scheduler.look(START + 35 * MINUTE)
    slot = scheduler.bench.row("SELECT * FROM opsjobs.cron_slots")
    assert slot["why"] == (
        "the cron loop did not run from 2026-03-02 12:05:30 UTC to 2026-03-02 12:35:30 UTC"
    )
    assert slot["until_at"] - slot["slot_at"] == 20 * MINUTE


def test_an_outage_of_weeks_is_one_row_for_each_transaction(
    opsjobs: OpsJobs, sync: Task, scheduler: Scheduler
) -> None:
    opsjobs.cron("* * * * *", catch_up="latest")(sync)
    scheduler.look(START)
    later = START + timedelta(days=16)
    scheduler.look(later)
    *rows, last = scheduler.slots()
    assert {result for _, result, _ in rows} == {"missed"}
    assert sum(slots for _, _, slots in [*rows, last]) == 16 * 24 * 60
    assert len(rows) == -(-16 * 24 * 60 // MOST_SLOTS)
    assert last[1:] == ("ran", 1)
    assert len(scheduler.jobs()) == 1


def test_a_clock_that_was_stepped_back_runs_nothing_twice(every_ten: EveryTen) -> None:
    scheduler = every_ten(overlap="allow")
    scheduler.look(START + 10 * MINUTE)
    scheduler.look(START + 5 * MINUTE)
    scheduler.look(START + 10 * MINUTE)
    assert scheduler.slots() == [("12:10", "ran", 1)]
    assert scheduler.entry()["checked_until"] == START + 10 * MINUTE


def test_a_changed_expression_leaves_the_old_slots_their_results(
    every_ten: EveryTen, opsjobs: OpsJobs, sync: Task
) -> None:
    scheduler = every_ten(overlap="allow")
    scheduler.look(START + 10 * MINUTE)
    opsjobs.cron_entries.clear()
    opsjobs.cron("*/15 * * * *", overlap="allow")(sync)
    # The old one has two slots until the new process starts; the new one has none before that.
    second = Scheduler(scheduler.bench, "two")
    second.look(START + 32 * MINUTE)
    second.look(START + 45 * MINUTE)
    assert scheduler.slots() == [
        ("12:10", "ran", 1),
        ("12:20", "missed", 2),
        ("12:45", "ran", 1),
    ]
    said = scheduler.bench.rows("SELECT DISTINCT expression FROM opsjobs.cron_slots ORDER BY 1")
    assert [row["expression"] for row in said] == ["*/10 * * * *", "*/15 * * * *"]
    assert scheduler.entry()["changed_at"] == START + 32 * MINUTE


def test_an_entry_that_is_gone_from_code_is_retired_and_may_come_back(
    every_ten: EveryTen, opsjobs: OpsJobs, sync: Task
) -> None:
    scheduler = every_ten(overlap="allow")
    opsjobs.cron_entries.clear()
    Scheduler(scheduler.bench, "two").look(START + 10 * MINUTE)
    assert scheduler.slots() == [("12:10", "ran", 1)]
    assert scheduler.entry()["retired_at"] == START + 10 * MINUTE
    scheduler.look(START + 20 * MINUTE)
    opsjobs.cron("*/10 * * * *", overlap="allow")(sync)
    third = Scheduler(scheduler.bench, "three")
    third.look(START + 30 * MINUTE)
    assert scheduler.entry()["retired_at"] is None
    third.look(START + 40 * MINUTE)
    # While it was retired there was no slot that should have been.
    assert scheduler.slots() == [("12:10", "ran", 1), ("12:40", "ran", 1)]


def test_a_process_that_does_not_know_the_worker_leaves_it_to_another_for_a_while(
    every_ten: EveryTen, opsjobs: OpsJobs
) -> None:
    scheduler = every_ten(catch_up="latest", overlap="allow")
    task = opsjobs.tasks.pop("sync")
    scheduler.look(START + 10 * MINUTE)
    assert scheduler.slots() == []
    opsjobs.tasks["sync"] = task
    scheduler.look(START + 11 * MINUTE)
    assert scheduler.slots() == [("12:10", "late", 1)]
    opsjobs.tasks.pop("sync")
    for minute in range(20, 32):
        scheduler.look(START + minute * MINUTE)
    assert scheduler.slots()[1:] == [("12:20", "missed", 1), ("12:30", "missed", 1)]
    last = scheduler.bench.row("SELECT why FROM opsjobs.cron_slots ORDER BY slot_at DESC LIMIT 1")
    assert last["why"] == "no task sync is declared where the loops run"


def test_arguments_that_fit_no_longer_are_a_missed_slot_that_says_so(
    every_ten: EveryTen, opsjobs: OpsJobs
) -> None:
    scheduler = every_ten(args={"account": 7})
    opsjobs.tasks.pop("sync")

    def sync(name: str) -> None:
        """Takes something else now."""

    opsjobs.task(sync)
    scheduler.look(START + 10 * MINUTE)
    slot = scheduler.bench.row("SELECT * FROM opsjobs.cron_slots")
    assert slot["result"] == "missed"
    assert slot["why"].startswith("its arguments do not fit: ")
    assert "name" in slot["why"]


def test_the_slot_learns_how_its_job_ended(every_ten: EveryTen) -> None:
    from flask_opsjobs.jobs.perform.outcomes import Outcome

    scheduler = every_ten()
    scheduler.look(START + 10 * MINUTE)
    (job,) = scheduler.jobs()
    scheduler.bench.dispatch()
    scheduler.bench.claim(job["id"])
    scheduler.bench.record(job["id"], 1, Outcome(kind="returned"))
    slot = scheduler.bench.row("SELECT * FROM opsjobs.cron_slots")
    assert slot["job_state"] == "finished"
    assert slot["ended_at"] is not None


def test_the_loop_says_what_it_did(every_ten: EveryTen) -> None:
    scheduler = every_ten()
    scheduler.look(START + 35 * MINUTE)
    run = scheduler.bench.row(
        "SELECT report FROM opsjobs.loop_runs WHERE loop = %s ORDER BY id DESC LIMIT 1",
        cron_loop.LOOP.name,
    )
    assert run["report"] == "3 slots missed"


def test_share_out_pauses_from_the_moment_of_the_pause_on() -> None:
    slots = [datetime(2026, 3, 2, 12, minute, tzinfo=UTC) for minute in (0, 10, 20)]
    shares = decide_by_time(slots, slots[-1], paused_at=slots[1], catch_up="latest", limit=None)
    assert [(share.kind, len(share.slots)) for share in shares] == [("late", 1), ("paused", 2)]

"""What the guide says of deploys: of two versions the one that started last counts,
and a pause outlives both.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from flask_opsjobs import OpsJobs, endings
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.cron import code_sync, transitions
from flask_opsjobs.cron.decide_slots import MOST_SLOTS, SlotDecider, SlotReport
from flask_opsjobs.jobs.record.task import Task
from tests.cron.conftest import START, Scheduler

EveryTen = Callable[..., Scheduler]
MINUTE = timedelta(minutes=1)


def test_a_slot_that_nobody_knew_the_worker_of_does_not_blame_the_cron_loop(
    every_ten: EveryTen, opsjobs: OpsJobs
) -> None:
    scheduler = every_ten()
    opsjobs.tasks.pop("sync")
    for minute in range(10, 22):
        scheduler.look(START + minute * MINUTE)
    assert scheduler.slots() == [("12:10", "missed", 2)]
    said = scheduler.bench.rows("SELECT why FROM opsjobs.cron_slots")
    assert {row["why"] for row in said} == {"no task sync is declared where the loops run"}


def test_after_an_outage_a_slot_waits_for_the_code_that_knows_its_worker(
    every_ten: EveryTen, opsjobs: OpsJobs
) -> None:
    scheduler = every_ten(catch_up="latest")
    tasks = dict(opsjobs.tasks)
    opsjobs.tasks.clear()
    scheduler.look(START + 65 * MINUTE)
    scheduler.look(START + 74 * MINUTE)
    assert scheduler.slots() == []
    opsjobs.tasks.update(tasks)
    scheduler.look(START + 75 * MINUTE)
    assert scheduler.slots() == [("12:10", "missed", 6), ("13:10", "late", 1)]


def test_of_two_versions_the_one_that_started_last_counts(
    every_ten: EveryTen, opsjobs: OpsJobs, sync: Task
) -> None:
    old = every_ten(overlap="allow")
    opsjobs.cron_entries.clear()
    opsjobs.cron("*/15 * * * *", overlap="allow")(sync)
    new = Scheduler(old.bench, "new")
    new.look(START + MINUTE)
    # Both go on; what the old one declares is not taken over again.
    for minute in (10, 15, 20):
        old.look(START + minute * MINUTE)
        new.look(START + minute * MINUTE)
    assert new.slots() == [("12:15", "ran", 1)]
    opsjobs.cron_entries.clear()
    opsjobs.cron("*/10 * * * *", overlap="allow")(sync)
    Scheduler(old.bench, "the old one once more").look(START + 21 * MINUTE)
    new.look(START + 30 * MINUTE)
    assert new.slots() == [("12:15", "ran", 1), ("12:30", "ran", 1)]
    assert new.entry()["expression"] == "*/10 * * * *"


@pytest.mark.parametrize("change", ["expression", "redact", "retire"])
def test_after_weeks_a_change_waits_until_the_slots_before_it_are_decided_in_parts(
    opsjobs: OpsJobs, sync: Task, scheduler: Scheduler, change: str
) -> None:
    opsjobs.cron("* * * * *")(sync)
    scheduler.look(START)
    # Three parts of slots.
    bench, weeks = scheduler.bench, 3 * 7 * 24 * 60
    opsjobs.cron_entries.clear()
    if change == "expression":
        opsjobs.cron("0 * * * *", name="sync")(sync)
    elif change == "redact":
        bench.connection.execute(
            """UPDATE opsjobs.cron_entries SET origin = 'runtime', args = '{"secret": "x"}'"""
        )
    Scheduler(bench, "new").look(START + weeks * MINUTE)
    parts = bench.rows("SELECT sum(slots) FROM opsjobs.cron_slots GROUP BY xmin")
    assert sum(part["sum"] for part in parts) == weeks
    assert max(part["sum"] for part in parts) <= MOST_SLOTS
    entry = scheduler.entry()
    assert {
        "expression": entry["expression"] == "0 * * * *",
        "redact": entry["args"] == {} and entry["retired_at"] is None,
        "retire": entry["retired_at"] is not None,
    }[change]


def test_a_renamed_entry_is_one_gone_and_one_new(
    every_ten: EveryTen, opsjobs: OpsJobs, sync: Task
) -> None:
    scheduler = every_ten(overlap="allow")
    opsjobs.cron_entries.clear()
    opsjobs.cron("*/10 * * * *", overlap="allow", name="renamed")(sync)
    Scheduler(scheduler.bench, "new").look(START + 10 * MINUTE)
    scheduler.look(START + 20 * MINUTE)
    assert scheduler.slots("sync") == [("12:10", "ran", 1)]
    assert scheduler.slots("renamed") == [("12:20", "ran", 1)]


def test_a_pause_outlives_a_deploy_that_changes_the_entry(
    every_ten: EveryTen, opsjobs: OpsJobs, sync: Task
) -> None:
    scheduler = every_ten(overlap="allow")
    connection = scheduler.bench.connection
    with connection.transaction():
        transitions.lock(connection, ["sync"])
        transitions.pause(connection, "sync", "ada", "the bank is closed", START + MINUTE)
    opsjobs.cron_entries.clear()
    opsjobs.cron("*/15 * * * *", overlap="allow")(sync)
    new = Scheduler(scheduler.bench, "new")
    new.look(START + 12 * MINUTE)
    new.look(START + 30 * MINUTE)
    assert new.slots() == [("12:10", "paused", 1), ("12:15", "paused", 2)]
    assert new.jobs() == []
    with connection.transaction():
        transitions.lock(connection, ["sync"])
        transitions.resume(connection, "sync")
    new.look(START + 45 * MINUTE)
    assert new.slots()[2:] == [("12:45", "ran", 1)]
    said = new.bench.rows("SELECT DISTINCT why FROM opsjobs.cron_slots WHERE result = 'paused'")
    assert [row["why"] for row in said] == ["the bank is closed"]


def test_what_is_declared_redacted_later_is_dropped_from_what_was_made_at_runtime(
    opsjobs: OpsJobs, sync: Task, scheduler: Scheduler, make_bench: Any
) -> None:
    def call(account: int = 0, key: str = "") -> None:
        """Does nothing."""

    opsjobs.task(name="call")(call)
    what: dict[str, Any] = {
        "task": "call",
        "expression": "*/10 * * * *",
        "zone": None,
        "overlap": None,
    }
    what |= {"catch_up": 3, "args": {"account": 7, "key": "k-4711"}}
    Operator(scheduler.bench.host).run(
        "cron.create",
        ["cron/mine"],
        actor="ops-demo",
        reason="made manually",
        params=what,
        now=START,
    )
    scheduler.look(START)
    del opsjobs.tasks["call"]
    opsjobs.task(name="call", redact={"key"})(call)
    Scheduler(make_bench("worker-2"), "two").look(START + timedelta(minutes=10))
    entry = scheduler.entry("mine")
    assert entry["args"] == {"account": 7}
    assert (entry["origin"], entry["catch_up"], entry["catch_up_limit"]) == ("runtime", "all", 3)
    assert scheduler.slots("mine") == [("12:10", "ran", 1)]


def test_what_another_process_retired_meanwhile_is_not_taken_back_into_use(
    every_ten: EveryTen,
) -> None:
    bench = every_ten().bench
    decider = SlotDecider(bench.connection, bench.host, endings.stop, START + MINUTE)
    with bench.connection.transaction():
        code_sync.retire(decider, "sync", SlotReport())
    with bench.connection.transaction():
        code_sync.redact(decider, "sync", SlotReport())
    assert bench.row("SELECT retired_at FROM opsjobs.cron_entries")["retired_at"] is not None

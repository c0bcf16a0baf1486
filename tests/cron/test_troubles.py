"""What goes wrong with one entry is told, and stays with it: the slots of the others get their results."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs import OpsJobs, Unique, signals
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.jobs.record.task import Task
from flask_opsjobs.loops import cron as cron_loop
from flask_opsjobs.loops.loop import Runner
from tests.conftest import MakeBench
from tests.cron.conftest import START, Scheduler
from tests.support.engine import race

MINUTE = timedelta(minutes=1)
EveryTen = Callable[..., Scheduler]


def declare(opsjobs: OpsJobs, name: str, unique: Unique | None = None) -> Task:
    """A task of that name and its entry, each ten minutes."""

    def call(account: int = 0) -> None:
        """Does nothing."""

    task = opsjobs.task(name=name, unique=unique)(call)
    return opsjobs.cron("*/10 * * * *")(task)


@pytest.mark.sessions
def test_a_read_only_session_is_no_trouble_of_an_entry(
    opsjobs: OpsJobs, scheduler: Scheduler, caplog: pytest.LogCaptureFixture
) -> None:
    declare(opsjobs, "good")
    scheduler.look(START)
    scheduler.bench.connection.execute("SET default_transaction_read_only = on")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        scheduler.look(START + 10 * MINUTE)
    assert caplog.records == []
    scheduler.bench.connection.execute("SET default_transaction_read_only = off")
    scheduler.look(START + 10 * MINUTE)
    assert scheduler.slots("good") == [("12:10", "ran", 1)]


def test_host_code_that_raises_costs_its_slot_and_no_other(
    opsjobs: OpsJobs, scheduler: Scheduler, caplog: pytest.LogCaptureFixture
) -> None:
    def key(arguments: dict[str, Any]) -> str:
        raise ValueError("account 0 is secret")

    declare(opsjobs, "bad", Unique(within=timedelta(hours=1), key=key))
    declare(opsjobs, "good")
    scheduler.look(START)
    scheduler.look(START + 10 * MINUTE)
    assert scheduler.slots("bad") == [("12:10", "missed", 1)]
    assert scheduler.slots("good") == [("12:10", "ran", 1)]
    (slot,) = scheduler.bench.rows("SELECT why FROM opsjobs.cron_slots WHERE result = 'missed'")
    assert "secret" not in slot["why"]


def test_an_entry_that_cannot_be_read_any_more_stops_no_other(
    opsjobs: OpsJobs, scheduler: Scheduler, caplog: pytest.LogCaptureFixture
) -> None:
    """A zone may vanish with an update of the machine's time zones."""
    declare(opsjobs, "bad")
    declare(opsjobs, "good")
    scheduler.look(START)
    zone = "UPDATE opsjobs.cron_entries SET zone = %s WHERE name = 'bad'"
    scheduler.bench.connection.execute(zone, ["Gone/Zone"])
    with caplog.at_level(logging.WARNING, "flask_opsjobs.cron"):
        scheduler.look(START + 10 * MINUTE)
        scheduler.look(START + 11 * MINUTE)
    assert scheduler.slots("good") == [("12:10", "ran", 1)]
    assert [record.message for record in caplog.records if "failed" in record.message] == [
        "cron entry bad failed and is tried again: "
        "ZoneInfoNotFoundError: 'No time zone found with key Gone/Zone'"
    ]
    run = scheduler.bench.row("SELECT report FROM opsjobs.loop_runs ORDER BY last_at DESC LIMIT 1")
    assert run["report"] == "bad failed"
    scheduler.bench.connection.execute(zone, ["UTC"])
    with caplog.at_level(logging.WARNING, "flask_opsjobs.cron"):
        scheduler.look(START + 12 * MINUTE)
    assert "cron entry bad recovered" in caplog.messages
    # Two minutes after it, the slot is no longer in time.
    assert scheduler.slots("bad") == [("12:10", "missed", 1)]
    slot = scheduler.bench.row("SELECT why FROM opsjobs.cron_slots WHERE entry = 'bad'")
    assert slot["why"].startswith("the cron loop did not run from 2026-03-02 12:00:30 UTC to ")


def test_code_gives_an_entry_whose_zone_has_vanished_another(
    opsjobs: OpsJobs, scheduler: Scheduler
) -> None:
    declare(opsjobs, "moved")
    scheduler.look(START)
    scheduler.bench.connection.execute("UPDATE opsjobs.cron_entries SET zone = 'Gone/Zone'")
    Scheduler(scheduler.bench, "new code").look(START + 11 * MINUTE)
    assert scheduler.entry("moved")["zone"] == "UTC"
    scheduler.look(START + 20 * MINUTE)
    assert scheduler.slots("moved") == [("12:20", "ran", 1)]


@pytest.mark.parametrize("action", ["pause", "run_now", "catch_up", "edit", "delete"])
def test_an_operator_may_act_on_an_entry_whose_zone_has_vanished(
    opsjobs: OpsJobs, scheduler: Scheduler, action: str
) -> None:
    declare(opsjobs, "own")
    opsjobs.cron_entries.clear()
    scheduler.look(START)
    operator, bench = Operator(scheduler.bench.host), scheduler.bench
    what = {
        "task": "own",
        "expression": "@hourly",
        "zone": "UTC",
        "overlap": None,
        "catch_up": None,
        "args": None,
    }
    why: Any = {"actor": "anna", "reason": "its zone is gone"}
    operator.run("cron.create", ["cron/own"], params=what, now=START, **why)
    scheduler.look(START + 125 * MINUTE)
    bench.connection.execute("UPDATE opsjobs.cron_entries SET zone = 'Gone/Zone'")
    params: Any = {"catch_up": {"count": 1}, "edit": what}.get(action)
    now = START + 200 * MINUTE
    receipt = operator.run(f"cron.{action}", ["cron/own"], params=params, now=now, **why)
    assert receipt.is_done


def test_a_host_that_holds_the_unique_lock_delays_its_entry_only(
    opsjobs: OpsJobs,
    scheduler: Scheduler,
    db: SQLAlchemy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cron_loop, "_LOCK_WAIT", "50ms")
    held = declare(opsjobs, "held", Unique(until="ended"))
    declare(opsjobs, "late_in_the_alphabet")
    scheduler.look(START)
    job = held.enqueue()  # not committed yet
    scheduler.look(START + 10 * MINUTE)
    assert scheduler.slots("held") == []
    assert scheduler.slots("late_in_the_alphabet") == [("12:10", "ran", 1)]
    db.session.commit()
    scheduler.look(START + 10 * MINUTE)
    assert scheduler.slots("held") == [("12:10", "skipped_overlap", 1)]
    slot = scheduler.bench.row("SELECT * FROM opsjobs.cron_slots WHERE entry = 'held'")
    assert slot["why"] == f"job {job.id} holds the unique lock of this call"
    assert slot["job_id"] is None


def test_two_processes_that_start_at_once_enter_an_entry_once(
    opsjobs: OpsJobs, sync: Task, make_bench: MakeBench
) -> None:
    opsjobs.cron("*/10 * * * *")(sync)
    for number in range(5):
        opsjobs.cron("@daily", name=f"daily_{number}")(sync)
    schedulers = [Scheduler(make_bench(), name) for name in ("one", "two")]
    answers = race(*[lambda one=one: one.look(START) for one in schedulers])
    assert answers == [None, None]
    rows = schedulers[0].bench.rows("SELECT name, changed_at FROM opsjobs.cron_entries")
    assert len(rows) == 6
    assert {row["changed_at"] for row in rows} == {None}


def test_of_two_versions_the_one_started_last_counts_and_nothing_flaps(
    opsjobs: OpsJobs, sync: Task, make_bench: MakeBench
) -> None:
    opsjobs.cron("*/10 * * * *", name="old")(sync)
    opsjobs.cron("*/10 * * * *")(sync)
    old = Scheduler(make_bench(), "old code")
    old.look(START)
    opsjobs.cron_entries.clear()
    opsjobs.cron("*/15 * * * *")(sync)
    new = Scheduler(make_bench(), "new code")
    new.look(START + MINUTE)
    for minutes in range(2, 8):
        (old if minutes % 2 else new).look(START + minutes * MINUTE)
    entry = new.entry()
    assert (entry["expression"], entry["changed_at"]) == ("*/15 * * * *", START + MINUTE)
    assert new.entry("old")["retired_at"] == START + MINUTE


def test_a_change_leaves_no_slot_of_the_old_schedule_without_a_result(
    opsjobs: OpsJobs, sync: Task, scheduler: Scheduler
) -> None:
    """Also more slots than one look takes, and of a task that the new code does not know."""
    opsjobs.cron("* * * * *")(sync)
    scheduler.look(START)
    opsjobs.cron_entries.clear()
    opsjobs.tasks.pop("sync")
    later = START + timedelta(days=8)
    Scheduler(scheduler.bench, "two").look(later)
    slots = scheduler.slots()
    assert sum(count for _, _, count in slots) == 8 * 24 * 60
    assert {result for _, result, _ in slots} == {"missed"}
    assert scheduler.entry()["retired_at"] == later


def test_all_that_is_made_up_for_runs_one_after_the_other(
    opsjobs: OpsJobs, every_ten: EveryTen
) -> None:
    """With `skip` none may run beside another, and still each of them runs."""
    from flask_opsjobs.jobs.perform.outcomes import Outcome

    scheduler = every_ten(catch_up=3)
    scheduler.look(START + 45 * MINUTE)
    assert scheduler.slots() == [
        ("12:10", "missed", 1),
        ("12:20", "late", 1),
        ("12:30", "late", 1),
        ("12:40", "late", 1),
    ]
    bench = scheduler.bench
    states = lambda: [job["state"] for job in scheduler.jobs()]  # noqa: E731
    assert states() == ["available", "deferred", "deferred"]
    for done in range(3):
        bench.dispatch()
        (job,) = [job for job in scheduler.jobs() if job["state"] == "queued"]
        bench.claim(job["id"], job["dispatch_no"])
        bench.record(job["id"], job["dispatch_no"], Outcome(kind="returned"))
        assert states() == ["finished"] * (done + 1) + ["available", "deferred"][: 2 - done]
    job_states = bench.rows("SELECT job_state FROM opsjobs.cron_slots WHERE job_id IS NOT NULL")
    assert [row["job_state"] for row in job_states] == ["finished"] * 3


def test_a_slot_that_comes_while_that_lasts_is_skipped(every_ten: EveryTen) -> None:
    scheduler = every_ten(catch_up=2)
    scheduler.look(START + 40 * MINUTE)
    assert scheduler.slots() == [
        ("12:10", "missed", 1),
        ("12:20", "late", 1),
        ("12:30", "late", 1),
        ("12:40", "skipped_overlap", 1),
    ]


def test_why_it_was_missed_is_read_from_when_the_loop_was_awake(every_ten: EveryTen) -> None:
    """Not from the time between two slots, in which the loop was awake all along."""
    scheduler = every_ten()
    for minutes in (3, 9):
        scheduler.look(START + minutes * MINUTE)
    scheduler.look(START + 15 * MINUTE)
    slot = scheduler.bench.row("SELECT why FROM opsjobs.cron_slots")
    assert (
        slot["why"]
        == "the cron loop did not run from 2026-03-02 12:09:30 UTC to 2026-03-02 12:15:30 UTC"
    )


def test_a_slot_that_awake_cron_loops_left_says_so(every_ten: EveryTen, opsjobs: OpsJobs) -> None:
    scheduler = every_ten()
    task = opsjobs.tasks.pop("sync")
    for seconds in range(600, 664, 2):  # awake all the time, but without its task
        scheduler.look(START + timedelta(seconds=seconds - 30))
    opsjobs.tasks["sync"] = task
    scheduler.look(START + timedelta(seconds=634))
    slot = scheduler.bench.row("SELECT result, why FROM opsjobs.cron_slots")
    assert slot == {
        "result": "missed",
        "why": "the cron loop was running, but did not reach this slot in time",
    }


def test_the_signal_is_sent_once_the_job_is_committed(
    every_ten: EveryTen, make_bench: MakeBench
) -> None:
    scheduler, other = every_ten(), make_bench()
    seen: list[tuple[Task, int, int]] = []

    def heard(task: Task, enqueued: Any) -> None:
        found = other.rows("SELECT id FROM opsjobs.jobs WHERE id = %s", enqueued.id)
        seen.append((task, enqueued.id, len(found)))

    with signals.job_enqueued.connected_to(heard):
        scheduler.look(START + 10 * MINUTE)
    (job,) = scheduler.jobs()
    assert [(task.name, id, found) for task, id, found in seen] == [("sync", job["id"], 1)]


def test_a_broken_connection_ends_the_pass(every_ten: EveryTen) -> None:
    import psycopg

    scheduler = every_ten()
    runner: Runner = scheduler.runner
    scheduler.bench.connection.close()
    with pytest.raises(psycopg.Error):
        runner.run_once(scheduler.bench.connection, START + 10 * MINUTE)

"""A slot that comes while a job of its entry has not ended:
beside it, not at all, behind it, or in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from flask_opsjobs import OpsJobs, Unique, endings
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.core import sql
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.cron import transitions
from flask_opsjobs.cron.code_sync import wanted_of
from flask_opsjobs.cron.decide_slots import SlotDecider, SlotReport
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.jobs.record.task import Task
from tests.cron.conftest import START, Scheduler
from tests.support.engine import Bench, race
from tests.support.waiting import wait_until

EveryTen = Callable[..., Scheduler]
MINUTE = timedelta(minutes=1)
OK = Outcome(kind="returned")
BLOCKED = (
    "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    " AND query LIKE %s"
)


def start(bench: Bench, job_id: int) -> None:
    """Hand a job out and claim it."""
    bench.dispatch(prefetch=100)
    bench.claim(job_id, bench.job(job_id)["dispatch_no"])
    assert bench.job(job_id)["state"] == "started"


def end(bench: Bench, job_id: int, outcome: Outcome = OK) -> None:
    bench.record(job_id, bench.job(job_id)["dispatch_no"], outcome)


@pytest.fixture
def running(every_ten: EveryTen) -> Callable[[str], Scheduler]:
    """A scheduler whose entry has its first job started, with this overlap policy."""

    def make(overlap: str) -> Scheduler:
        scheduler = every_ten(overlap=overlap)
        scheduler.look(START + 10 * MINUTE)
        start(scheduler.bench, scheduler.jobs()[0]["id"])
        return scheduler

    return make


Running = Callable[[str], Scheduler]


def test_allow_runs_beside_it(running: Running) -> None:
    scheduler = running("allow")
    scheduler.look(START + 20 * MINUTE)
    assert [job["state"] for job in scheduler.jobs()] == ["started", "available"]


def test_skip_keeps_who_was_in_the_way(running: Running) -> None:
    scheduler = running("skip")
    first = scheduler.jobs()[0]["id"]
    scheduler.look(START + 20 * MINUTE)
    assert scheduler.slots()[-1] == ("12:20", "skipped_overlap", 1)
    why = scheduler.bench.row("SELECT why FROM opsjobs.cron_slots ORDER BY id DESC LIMIT 1")["why"]
    assert why == f"job {first} had not ended"
    end(scheduler.bench, first)
    scheduler.look(START + 30 * MINUTE)
    assert scheduler.slots()[-1] == ("12:30", "ran", 1)


def test_a_job_that_is_to_be_tried_again_has_not_ended(running: Running) -> None:
    scheduler = running("skip")
    end(scheduler.bench, scheduler.jobs()[0]["id"], Outcome(kind="raised", error="Boom"))
    assert scheduler.jobs()[0]["state"] == "retryable"
    scheduler.look(START + 20 * MINUTE)
    assert scheduler.slots()[-1] == ("12:20", "skipped_overlap", 1)


def test_a_job_of_the_same_worker_without_the_entry_is_not_in_the_way(
    every_ten: EveryTen, sync: Any, db: Any
) -> None:
    scheduler = every_ten(overlap="skip")
    sync.enqueue()
    db.session.commit()
    scheduler.look(START + 10 * MINUTE)
    assert scheduler.slots() == [("12:10", "ran", 1)]


def test_queue_one_lets_one_wait_and_it_runs_when_the_first_ends(running: Running) -> None:
    scheduler = running("queue_one")
    for minutes in (20, 30):
        scheduler.look(START + minutes * MINUTE)
    assert scheduler.slots() == [
        ("12:10", "ran", 1),
        ("12:20", "queued_behind", 1),
        ("12:30", "skipped_overlap", 1),
    ]
    first, second = scheduler.jobs()
    assert second["state"] == "deferred"
    end(scheduler.bench, first["id"])
    assert scheduler.bench.job(second["id"])["state"] == "available"
    start(scheduler.bench, second["id"])
    end(scheduler.bench, second["id"])
    job_states = scheduler.bench.rows(
        "SELECT job_state FROM opsjobs.cron_slots WHERE job_id IS NOT NULL"
    )
    assert job_states == [{"job_state": "finished"}] * 2


@pytest.mark.parametrize("outcome", ["raised", "discarded", "canceled"])
def test_every_kind_of_end_releases_who_waits_behind(running: Running, outcome: str) -> None:
    scheduler = running("queue_one")
    scheduler.look(START + 20 * MINUTE)
    first, second = scheduler.jobs()
    ended_by = "invalid_args" if outcome == "raised" else None
    end(scheduler.bench, first["id"], Outcome(kind=outcome, error="Boom", ended_by=ended_by))
    assert scheduler.bench.job(second["id"])["state"] == "available"


def test_a_job_that_its_worker_hands_back_releases_nobody(running: Running) -> None:
    scheduler = running("queue_one")
    scheduler.look(START + 20 * MINUTE)
    first = scheduler.jobs()[0]
    refused = Outcome("not_run", "not here", ended_by="unknown_task")
    end(scheduler.bench, first["id"], refused)
    assert [job["state"] for job in scheduler.jobs()] == ["scheduled", "deferred"]
    job_states = scheduler.bench.rows(
        "SELECT job_state FROM opsjobs.cron_slots WHERE job_id IS NOT NULL"
    )
    assert job_states == [{"job_state": None}] * 2
    later = read_clock(scheduler.bench.connection) + MINUTE
    scheduler.bench.connection.execute(sql.load("stage_jobs"), {"now": later, "limit": 10})
    start(scheduler.bench, first["id"])
    end(scheduler.bench, first["id"])
    assert [job["state"] for job in scheduler.jobs()] == ["finished", "available"]


def test_a_canceled_follow_up_makes_room_for_the_next(running: Running) -> None:
    scheduler = running("queue_one")
    scheduler.look(START + 20 * MINUTE)
    behind = scheduler.jobs()[1]["id"]
    Operator(scheduler.bench.host).cancel(behind, actor="anna", reason="it is a test")
    scheduler.look(START + 30 * MINUTE)
    assert scheduler.slots()[-1] == ("12:30", "queued_behind", 1)


def test_cancel_previous_asks_the_running_one_to_stop_and_runs(running: Running) -> None:
    scheduler = running("cancel_previous")
    first = scheduler.jobs()[0]["id"]
    scheduler.look(START + 20 * MINUTE)
    old, new = scheduler.jobs()
    assert old["cancel_requested_by"] == "system:cron"
    assert old["cancel_reason"] == "the next slot of cron entry sync has come"
    assert new["state"] == "available"
    end(scheduler.bench, first, Outcome(kind="died", error="killed"))
    assert scheduler.bench.job(first)["state"] == "canceled"


def test_cancel_previous_ends_one_that_still_waits(every_ten: EveryTen) -> None:
    scheduler = every_ten(overlap="cancel_previous")
    scheduler.look(START + 10 * MINUTE)
    scheduler.look(START + 20 * MINUTE)
    assert [job["state"] for job in scheduler.jobs()] == ["canceled", "available"]
    assert (
        scheduler.bench.row(
            "SELECT job_state FROM opsjobs.cron_slots WHERE slot_at < %s", START + 15 * MINUTE
        )["job_state"]
        == "canceled"
    )


def test_of_two_slots_at_once_the_first_knows_that_the_second_canceled_its_job(
    opsjobs: OpsJobs, sync: Task, scheduler: Scheduler
) -> None:
    opsjobs.cron("* * * * *", overlap="cancel_previous")(sync)
    scheduler.look(START)
    # A slot is due until a minute has passed.
    scheduler.look(START.replace(minute=2, second=0))
    rows = scheduler.bench.rows("SELECT result, job_state FROM opsjobs.cron_slots ORDER BY slot_at")
    assert [tuple(row.values()) for row in rows] == [("ran", "canceled"), ("ran", None)]


def test_a_job_that_is_retried_has_no_result_until_it_ends_again(running: Running) -> None:
    scheduler = running("skip")
    bench, job = scheduler.bench, scheduler.jobs()[0]["id"]
    end(bench, job, Outcome(kind="discarded"))
    slot = "SELECT job_state, ended_at FROM opsjobs.cron_slots WHERE job_id = %s"
    assert bench.row(slot, job)["job_state"] == "failed"
    Operator(bench.host).retry(job, actor="anna", reason="it is a test")
    assert bench.row(slot, job) == {"job_state": None, "ended_at": None}
    start(bench, job)
    end(bench, job)
    assert bench.row(slot, job)["job_state"] == "finished"


@pytest.mark.parametrize("is_started", [False, True])
def test_cancel_previous_leaves_the_job_whose_call_is_unique(
    opsjobs: OpsJobs, scheduler: Scheduler, is_started: bool
) -> None:
    """Its unique lock keeps the slot from a job of its own: to stop it would leave none at all."""

    def call() -> None:
        """Does nothing."""

    task = opsjobs.task(name="sync", unique=Unique(until="ended"))(call)
    opsjobs.cron("*/10 * * * *", overlap="cancel_previous")(task)
    scheduler.look(START)
    scheduler.look(START + 10 * MINUTE)
    (job,) = scheduler.jobs()
    if is_started:
        start(scheduler.bench, job["id"])
    scheduler.look(START + 20 * MINUTE)
    assert scheduler.slots() == [("12:10", "ran", 1), ("12:20", "skipped_overlap", 1)]
    (job,) = scheduler.jobs()
    assert (job["ended_at"], job["cancel_requested_at"]) == (None, None)


def test_cancel_previous_leaves_the_job_when_the_next_cannot_be_enqueued(
    running: Running, opsjobs: OpsJobs
) -> None:
    scheduler = running("cancel_previous")
    opsjobs.tasks.pop("sync")
    # It waits ten minutes for a process that knows the task.
    for minute in (20, 31):
        scheduler.look(START + minute * MINUTE)
    assert scheduler.slots()[1:] == [("12:20", "missed", 2)]
    assert scheduler.jobs()[0]["cancel_requested_at"] is None


# --- who else is at work at the same moment


def test_two_schedulers_run_a_slot_once(every_ten: EveryTen, make_bench: Any) -> None:
    first = every_ten(overlap="allow")
    second = Scheduler(make_bench(), "two")
    second.look(START)
    for number in range(1, 9):
        now = START + number * 10 * MINUTE
        answers = race(lambda now=now: first.look(now), lambda now=now: second.look(now))
        assert answers == [None, None]
    assert [result for _, result, _ in first.slots()] == ["ran"] * 8
    assert len(first.jobs()) == 8


def test_two_that_end_at_once_release_who_waits_behind(running: Running, make_bench: Any) -> None:
    """The last-one rule: under READ COMMITTED each would see the other unfinished, and nobody release."""
    scheduler = running("queue_one")
    bench, other, third = scheduler.bench, make_bench(), make_bench()
    # A second one beside the first, as `run now` records it.
    decider = SlotDecider(bench.connection, bench.host, endings.stop, START)
    decider.run(transitions.read(bench.connection, ["sync"])["sync"], START, "manual", SlotReport())
    scheduler.look(START + 20 * MINUTE)
    first, second, behind = [job["id"] for job in scheduler.jobs()]
    start(bench, second)
    pid = other.connection.info.backend_pid
    waits = "SELECT wait_event_type = 'Lock' AS is_so FROM pg_stat_activity WHERE pid = %s"
    with ThreadPoolExecutor(1) as pool:
        with bench.connection.transaction():
            end(bench, first)
            ending = pool.submit(end, other, second)
            wait_until(lambda: third.row(waits, pid)["is_so"] or ending.done())
        ending.result()
    assert bench.job(behind)["state"] == "available"


def test_an_end_and_a_slot_at_once_leave_nobody_waiting(running: Running, make_bench: Any) -> None:
    """Either the slot finds the entry free, or it waits behind and the end releases it."""
    scheduler = running("queue_one")
    other = make_bench()
    for number in range(2, 14):
        unfinished = [job for job in scheduler.jobs() if job["ended_at"] is None]
        for job in unfinished[:1]:
            if job["state"] == "available":
                start(scheduler.bench, job["id"])
        now = START + number * 10 * MINUTE
        (first, *_) = [job for job in scheduler.jobs() if job["ended_at"] is None]
        no = scheduler.bench.job(first["id"])["dispatch_no"]
        answers = race(
            lambda now=now: scheduler.look(now),
            lambda first=first, no=no: other.record(first["id"], no, OK),
        )
        assert not any(isinstance(answer, Exception) for answer in answers)
        (left,) = [job for job in scheduler.jobs() if job["ended_at"] is None]
        assert left["state"] == "available"


def test_a_follow_up_that_an_end_could_not_release_is_found_by_the_sweep(
    running: Running, make_bench: Any
) -> None:
    scheduler = running("queue_one")
    scheduler.look(START + 20 * MINUTE)
    first, behind = scheduler.jobs()
    other = make_bench()
    # Somebody holds the follow-up, and lets it be: an end does not wait for that.
    with other.connection.transaction():
        other.rows("SELECT 1 FROM opsjobs.jobs WHERE id = %s FOR UPDATE", behind["id"])
        end(scheduler.bench, first["id"])
    assert scheduler.bench.job(behind["id"])["state"] == "deferred"
    scheduler.look(START + 21 * MINUTE)
    assert scheduler.bench.job(behind["id"])["state"] == "available"


def test_an_end_and_cancel_previous_at_once_do_not_deadlock(
    every_ten: EveryTen, make_bench: Any
) -> None:
    scheduler = every_ten(overlap="cancel_previous")
    other = make_bench()
    for number in range(1, 13):
        scheduler.look(START + (2 * number - 1) * 10 * MINUTE)
        (job, *_) = [job for job in scheduler.jobs() if job["ended_at"] is None]
        start(scheduler.bench, job["id"])
        no = scheduler.bench.job(job["id"])["dispatch_no"]
        answers = race(
            lambda number=number: scheduler.look(START + 2 * number * 10 * MINUTE),
            lambda job=job, no=no: other.record(job["id"], no, OK),
        )
        assert not any(isinstance(answer, Exception) for answer in answers)
        for left in [job for job in scheduler.jobs() if job["ended_at"] is None]:
            endings.cancel(scheduler.bench.connection, [left["id"]], START, "it is a test")
            if scheduler.bench.job(left["id"])["ended_at"] is None:
                end(scheduler.bench, left["id"])


def test_a_retry_waits_for_who_decides_about_the_entry(
    every_ten: EveryTen, make_bench: Any
) -> None:
    """Who holds the entry has locked its jobs that have not ended: one more would be locked after it."""
    scheduler, other = every_ten(), make_bench()
    scheduler.look(START + 10 * MINUTE)
    (job,) = scheduler.jobs()
    endings.cancel(scheduler.bench.connection, [job["id"]], START, "it is a test")
    operator = Operator(scheduler.bench.host)
    with ThreadPoolExecutor() as pool:
        with other.connection.transaction():
            transitions.lock_to_decide(other.connection, ["sync"])
            why: Any = {"actor": "ops-demo", "reason": "it is needed after all"}
            retried = pool.submit(operator.retry, job["id"], **why)
            wait_until(lambda: scheduler.bench.rows(BLOCKED, "%cron_entries%"), what="the retry")
            assert transitions.list_unfinished(other.connection, "sync") == []
        assert retried.result().is_done
    assert len(transitions.list_unfinished(other.connection, "sync")) == 1


def test_an_entry_that_comes_to_cancel_while_it_is_waited_for_does_not_deadlock(
    running: Running, make_bench: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The loop looked before the edit: it has to lock the jobs
    that it may stop before the entry, as an end does.
    """
    scheduler = running("skip")
    (job,) = scheduler.jobs()
    editor, ender, seer = make_bench(), make_bench(), make_bench()
    with ThreadPoolExecutor() as pool, ender.connection.transaction():
        with editor.connection.transaction():
            entry = transitions.lock(editor.connection, ["sync"])["sync"]
            edited = replace(wanted_of(entry), overlap="cancel_previous")
            transitions.change(editor.connection, edited, "code", START + 15 * MINUTE)
            looking = pool.submit(scheduler.look, START + 20 * MINUTE)
            wait_until(lambda: seer.rows(BLOCKED, "%cron_entries%"), what="the loop at the entry")
            ender.rows("SELECT 1 FROM opsjobs.jobs WHERE id = %s FOR UPDATE", job["id"])
        wait_until(lambda: seer.rows(BLOCKED, "%opsjobs.jobs%"), what="the loop at the job")
        transitions.lock(ender.connection, ["sync"])
    looking.result()
    assert "is left" not in caplog.text
    assert scheduler.slots() == [("12:10", "ran", 1), ("12:20", "ran", 1)]

"""Operators and the cron loop at the same time: no slot is lost to a decision, and a name is taken once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flask_opsjobs import OpsJobs
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.actions.shapes import Receipt
from flask_opsjobs.cron.decide_slots import MOST_SLOTS
from flask_opsjobs.errors import ActionRefused
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.record.task import Task
from tests.cron.conftest import START, Scheduler
from tests.support.engine import race

WHY: Any = {"actor": "ops-demo", "reason": "the vendor asked us to hold"}
ENTRY = {
    "task": "sync",
    "expression": "*/10 * * * *",
    "zone": None,
    "overlap": None,
    "catch_up": None,
    "args": None,
}


def run_action(host: Host, action: str, name: str = "sync", what: Any = None) -> Receipt:
    return Operator(host)._run_or_raise(f"cron.{action}", name, WHY, what)


def test_of_two_operators_one_creates_and_the_other_is_told(
    host: Host, sync: Task, scheduler: Scheduler
) -> None:
    other = {**ENTRY, "expression": "@daily"}
    answers = race(
        *[lambda what=what: run_action(host, "create", "mine", what) for what in (ENTRY, other)]
    )
    done = [answer for answer in answers if isinstance(answer, Receipt)]
    refused = [answer for answer in answers if isinstance(answer, ActionRefused)]
    assert (len(done), len(refused)) == (1, 1), answers
    entry = scheduler.entry("mine")
    assert entry["expression"] == (ENTRY, other)[answers.index(done[0])]["expression"]
    audited = scheduler.bench.rows("SELECT outcome FROM opsjobs.audit_events ORDER BY outcome")
    assert [row["outcome"] for row in audited] == ["done", "refused"]


def test_a_pause_that_nobody_looked_at_is_all_paused(
    every_ten: Callable[..., Scheduler], host: Host
) -> None:
    """More slots than one look takes come between the pause and the resume, and no loop runs."""
    scheduler = every_ten()
    pause = (
        "UPDATE opsjobs.cron_entries"
        " SET is_paused = true, paused_at = %s, paused_by = 'ops', paused_reason = 'x'"
    )
    scheduler.bench.connection.execute(pause, [START])
    run(host, "resume", START + timedelta(days=71), name="sync")
    slots = scheduler.slots()
    assert {result for _, result, _ in slots} == {"paused"}
    number = sum(count for _, _, count in slots)
    assert number == 71 * 24 * 6
    assert number > MOST_SLOTS
    assert scheduler.jobs() == []


@pytest.mark.slow
def test_a_pause_decides_what_came_before_it(
    every_ten: Callable[..., Scheduler], host: Host, opsjobs: OpsJobs
) -> None:
    """Also when this process does not know the task: afterwards it would look like a slot of the pause."""
    scheduler = every_ten()
    opsjobs.tasks.pop("sync")
    run_action(host, "pause")
    slots = scheduler.slots()
    assert {result for _, result, _ in slots} == {"missed"}
    entry = scheduler.entry()
    assert entry["is_paused"]
    assert entry["checked_until"] >= entry["paused_at"]


@pytest.mark.slow
def test_an_operator_and_the_loop_at_once_decide_a_slot_once(
    every_ten: Callable[..., Scheduler], host: Host
) -> None:
    scheduler = every_ten(overlap="allow", catch_up=3)
    now = datetime.now(UTC)
    answers = race(lambda: scheduler.look(now), lambda: run_action(host, "run_now"))
    assert not any(isinstance(answer, Exception) for answer in answers), answers
    results = [
        row["result"] for row in scheduler.bench.rows("SELECT result FROM opsjobs.cron_slots")
    ]
    assert results.count("late") + results.count("ran") in (3, 4)
    assert results.count("manual") == 1
    assert len(scheduler.jobs()) == len(results) - results.count("missed")


def run(host: Host, action: str, now: datetime, params: Any = None, name: str = "mine") -> Receipt:
    return Operator(host).run(f"cron.{action}", [f"cron/{name}"], params=params, now=now, **WHY)


def test_what_came_before_an_entry_is_deleted_has_its_result(
    host: Host, sync: Task, scheduler: Scheduler
) -> None:
    run(host, "create", START, ENTRY)
    run(host, "delete", START + timedelta(hours=1))
    assert scheduler.slots("mine") == [("12:10", "missed", 5), ("13:00", "ran", 1)]


def test_an_entry_of_a_name_that_was_deleted_goes_on_after_the_run_history(
    host: Host, sync: Task, scheduler: Scheduler
) -> None:
    """A clock was ahead for a moment:
    who deletes and makes the entry anew must not meet slots that have a result.
    """
    run(host, "create", START, ENTRY)
    scheduler.look(START + timedelta(minutes=50))
    before = scheduler.slots("mine")
    run(host, "delete", START + timedelta(minutes=5))
    run(host, "create", START + timedelta(minutes=6), ENTRY)
    for minutes in (10, 50):
        scheduler.look(START + timedelta(minutes=minutes))
        assert scheduler.slots("mine") == before
    scheduler.look(START + timedelta(hours=1))
    assert scheduler.slots("mine") == [*before, ("13:00", "skipped_overlap", 1)]


def test_entries_that_an_operator_made_are_deleted_and_their_run_history_stays(
    host: Host, sync: Task, scheduler: Scheduler
) -> None:
    operator = Operator(host)
    for name in ("mine", "other"):
        operator.create_cron(name, ENTRY, **WHY)
    operator.run_cron_now("mine", **WHY)
    receipt = operator.delete_cron(["mine", "other"], **WHY)
    assert [item.target for item in receipt.done] == ["cron/mine", "cron/other"]
    assert scheduler.bench.rows("SELECT name FROM opsjobs.cron_entries") == []
    assert [result for _, result, _ in scheduler.slots("mine")] == ["manual"]
    audited = scheduler.bench.rows("SELECT * FROM opsjobs.audit_events ORDER BY sequence")[-1]
    assert (audited["action"], audited["subject"]) == ("cron.delete", "2 cron entries")
    assert audited["after"] == {"cron/mine": None, "cron/other": None}
    with pytest.raises(ActionRefused, match="there is no cron entry mine") as refused:
        operator.delete_cron("mine", **WHY)
    assert refused.value.code == "unknown_target"


def test_an_entry_that_code_declares_is_not_deleted(
    every_ten: Callable[..., Scheduler], host: Host
) -> None:
    scheduler = every_ten()
    with pytest.raises(ActionRefused, match="cannot delete cron sync: the code declares it"):
        Operator(host).delete_cron("sync", **WHY)
    assert scheduler.entry()["retired_at"] is None


def test_catch_up_runs_the_slots_that_its_plan_named(
    every_ten: Callable[..., Scheduler], host: Host
) -> None:
    """No scheduler runs: the plan cannot know of newer slots, which are missed only as it is carried out."""
    scheduler = every_ten()
    scheduler.look(START + timedelta(minutes=40))
    run(host, "catch_up", START + timedelta(hours=2), {"count": 2}, "sync")
    caught_up = [slot for slot, result, _ in scheduler.slots() if result == "manual"]
    assert caught_up == ["12:20", "12:30"]
    assert ("12:50", "missed", 7) in scheduler.slots()


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ({"task": ["sync"]}, "there is no task"),
        ({"overlap": ["skip"]}, "overlap must be one of"),
        ({"catch_up": 0}, "catch_up must be"),
        ({"catch_up": []}, "catch_up must be"),
        ({"zone": 0}, "is not the name of a time zone"),
        ({"args": "[" * 100_000}, "args is nested too deeply"),
    ],
)
def test_what_is_of_a_wrong_type_is_refused(
    host: Host, sync: Task, what: dict[str, Any], says: str
) -> None:
    with pytest.raises(ActionRefused, match=says):
        run(host, "create", START, ENTRY | what)


@pytest.mark.parametrize("name", [".", ".."])
def test_a_name_that_no_page_could_have_is_refused(host: Host, sync: Task, name: str) -> None:
    with pytest.raises(ActionRefused, match="is not a target"):
        run(host, "create", START, ENTRY, name)


def test_what_code_no_longer_declares_keeps_its_name_and_says_so(
    every_ten: Callable[..., Scheduler], host: Host, opsjobs: OpsJobs
) -> None:
    scheduler = every_ten()
    opsjobs.cron_entries.clear()
    Scheduler(scheduler.bench, "new").look(START)
    with pytest.raises(ActionRefused, match="the code declared it and no longer does"):
        run_action(host, "delete")
    with pytest.raises(ActionRefused, match="retired: take another name"):
        run_action(host, "create", "sync", ENTRY)

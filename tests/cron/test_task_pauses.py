"""Slots of a paused task are skipped, and say by whom and why, also when no cron loop ran meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.host import Host
from tests.cron.conftest import START, Scheduler

WHY: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}


def test_slots_of_a_paused_task_are_skipped_and_say_so(
    every_ten: Callable[..., Scheduler], host: Host
) -> None:
    scheduler = every_ten()
    Operator(host).run("task.pause", ["task/sync"], **WHY, now=START)
    scheduler.look(START + timedelta(minutes=25))
    assert scheduler.slots() == [("12:10", "paused", 2)]
    row = scheduler.bench.row("SELECT why FROM opsjobs.cron_slots")
    assert row["why"] == "anna paused the task sync: because it is a test"
    Operator(host).run("task.resume", ["task/sync"], **WHY, now=START + timedelta(minutes=26))
    scheduler.look(START + timedelta(minutes=30))
    assert scheduler.slots()[1:] == [("12:30", "ran", 1)]


def test_a_pause_during_which_no_loop_ran_is_all_paused(
    every_ten: Callable[..., Scheduler], host: Host
) -> None:
    scheduler = every_ten(catch_up=5)
    Operator(host).run("task.pause", ["task/sync"], **WHY, now=START)
    Operator(host).run("task.resume", ["task/sync"], **WHY, now=START + timedelta(hours=3))
    scheduler.look(START + timedelta(hours=3))
    assert [(result, number) for _, result, number in scheduler.slots()] == [("paused", 18)]
    assert scheduler.jobs() == []


def test_a_pause_leaves_slots_before_it_alone(
    every_ten: Callable[..., Scheduler], host: Host
) -> None:
    scheduler = every_ten()
    Operator(host).run("task.pause", ["task/sync"], **WHY, now=START + timedelta(minutes=10))
    scheduler.look(START + timedelta(minutes=10, seconds=5))
    assert scheduler.slots() == [("12:10", "ran", 1)]
    assert [job["state"] for job in scheduler.jobs()] == ["available"]

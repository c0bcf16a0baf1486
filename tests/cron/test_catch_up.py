"""After an outage longer than one transaction decides, the last slots are caught up all the same."""

from __future__ import annotations

from datetime import timedelta

from flask_opsjobs import OpsJobs
from flask_opsjobs.cron.decide_slots import MOST_SLOTS
from flask_opsjobs.jobs.record.task import Task
from tests.cron.conftest import START, Scheduler


def test_the_last_slots_of_a_long_outage_are_caught_up(
    opsjobs: OpsJobs, sync: Task, scheduler: Scheduler
) -> None:
    opsjobs.cron("* * * * *", catch_up=20, overlap="allow")(sync)
    scheduler.look(START)
    # Two more than are decided at once; the last one is due.
    scheduler.look(START + timedelta(minutes=MOST_SLOTS + 2))
    slots = scheduler.slots()
    assert [result for _, result, _ in slots][-21:] == ["late"] * 20 + ["ran"]
    assert {result for _, result, _ in slots[:-21]} == {"missed"}
    assert sum(number for _, _, number in slots) == MOST_SLOTS + 2
    assert len(scheduler.jobs()) == 21

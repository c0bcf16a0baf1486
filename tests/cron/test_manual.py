"""Run now and catch up say what they do: without a new job nothing was done, and nothing is called done."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from flask_opsjobs import Limit, OpsJobs, Unique
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.actions.shapes import Receipt
from flask_opsjobs.host import Host
from tests.cron.conftest import START, Scheduler

WHY: Any = {"actor": "ops-demo", "reason": "the vendor asked for it"}
MINUTE = timedelta(minutes=1)


@pytest.fixture
def once(opsjobs: OpsJobs, scheduler: Scheduler) -> Scheduler:
    """The entry `once` each ten minutes, of which there is one job until that has ended."""

    def once(account: int = 0) -> None:
        """Does nothing."""

    opsjobs.cron("*/10 * * * *")(opsjobs.task(unique=Unique(until="ended"))(once))
    scheduler.look(START)
    return scheduler


def run(host: Host, action: str, minutes: int, *names: str, **params: Any) -> Receipt:
    targets = [f"cron/{name}" for name in names or ("once",)]
    now = START + minutes * MINUTE
    return Operator(host).run(f"cron.{action}", targets, params=params, now=now, **WHY)


def test_a_unique_call_that_is_there_is_not_called_done(
    host: Host, opsjobs: OpsJobs, once: Scheduler
) -> None:
    assert run(host, "run_now", 1).is_done
    (job,) = once.jobs()
    again = run(host, "run_now", 2)
    assert not again.is_done
    assert (
        again.says
        == f"cannot run cron once now: job {job['id']} holds the unique lock of this call"
    )
    assert again.skipped[0].code == "already"
    plan = Operator(host).plan("cron.run_now", ["cron/once"], actor="ops-demo")
    assert not plan.items
    assert once.jobs() == [job]
    assert once.slots("once") == [("12:01", "manual", 1)]


def test_of_the_missed_slots_of_a_unique_call_one_gets_a_job(host: Host, once: Scheduler) -> None:
    once.look(START + 45 * MINUTE)
    assert once.slots("once") == [("12:10", "missed", 4)]
    receipt = run(host, "catch_up", 46, count=3)
    assert [change.what for change in receipt.done[0].changes] == ["new job"]
    assert "only the last slot gets a job" in (receipt.done[0].note or "")
    assert once.slots("once") == [("12:10", "missed", 4), ("12:40", "manual", 1)]


def test_the_job_of_a_slot_that_had_just_come_is_the_one_that_was_asked_for(
    host: Host, once: Scheduler
) -> None:
    receipt = run(host, "run_now", 10)
    assert receipt.is_done
    (job,) = once.jobs()
    assert f"job {job['id']} holds the unique lock of this call" in (receipt.done[0].note or "")
    assert once.slots("once") == [("12:10", "ran", 1)]


@pytest.mark.parametrize("what", ["unique", "limit"])
def test_host_code_that_raises_is_told_and_nothing_is_done(
    host: Host, opsjobs: OpsJobs, scheduler: Scheduler, what: str
) -> None:
    def fail(arguments: dict[str, Any]) -> str:
        raise ValueError("account 0 is secret")

    def bad(account: int = 0) -> None:
        """Does nothing."""

    if what == "unique":
        task = opsjobs.task(unique=Unique(until="ended", key=fail))(bad)
    else:
        limit = Limit("api", concurrency=1, partition=fail)
        task = opsjobs.task(limit=limit)(bad)
    opsjobs.cron("@daily")(task)
    scheduler.look(START)
    receipt = run(host, "run_now", 1, "bad")
    assert (receipt.outcome, receipt.code) == ("refused", "illegal")
    assert receipt.says.startswith("cannot run cron bad now: ")
    assert receipt.says.endswith("raised ValueError")
    assert scheduler.slots("bad") == []
    audited = scheduler.bench.rows("SELECT outcome FROM opsjobs.audit_events")
    assert audited == [{"outcome": "refused"}]


@pytest.mark.slow
def test_missed_slots_behind_many_that_were_made_up_for_are_found(
    host: Host, opsjobs: OpsJobs, scheduler: Scheduler
) -> None:
    """Each is a row of its own when its arguments do not fit; an outage is one row, however long."""

    def call(account: int) -> None:
        """Does nothing."""

    def other() -> None:
        """Does nothing."""

    task = opsjobs.task(name="call")(call)
    opsjobs.cron("* * * * *", overlap="allow", args={"account": 1})(task)
    scheduler.look(START)
    scheduler.look(START + 10 * MINUTE)
    opsjobs.tasks["call"] = opsjobs.task(other)
    for minute in range(11, 221):
        scheduler.look(START + minute * MINUTE)
    assert scheduler.slots("call")[0] == ("12:01", "missed", 9)
    opsjobs.tasks["call"] = task
    made = [len(run(host, "catch_up", 220, "call", count=100).done[0].changes) for _ in range(3)]
    assert made == [100, 100, 19]
    with_jobs = [slot for slot in scheduler.slots("call") if slot[1] == "manual"]
    assert len({at for at, _, _ in with_jobs}) == len(with_jobs) == 219
    assert run(host, "catch_up", 220, "call", count=1).says.startswith("every missed slot")

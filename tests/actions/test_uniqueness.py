"""Unique locks and operators: a retried job takes its lock again,
or is skipped because another job holds it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from threading import Thread
from typing import Any

import pytest
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs import OpsJobs, Unique
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.jobs.record.task import Task
from tests.actions.test_races import WAITING
from tests.support.engine import Bench, race, tasks_of
from tests.support.waiting import wait_until

WHY: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}
LIFETIMES = {
    "ended": Unique(until="ended"),
    "forever": Unique(until="forever"),
    "within": Unique(within=timedelta(hours=1)),
}


@pytest.fixture
def once(opsjobs: OpsJobs, record_job: Any) -> Callable[[str], Task]:
    """A task whose calls are unique for a lifetime."""

    def make(lifetime: str) -> Task:
        def once(text: str = "") -> None:
            """Takes a text."""

        return opsjobs.task(unique=LIFETIMES[lifetime], max_attempts=1)(once)

    return make


@pytest.fixture
def fail(bench: Bench, record_job: Any) -> Callable[..., int]:
    """Records a call and fails it."""

    def fail(task: Task, **options: Any) -> int:
        job_id: int = record_job(task, **options)
        bench.dispatch(prefetch=1000)
        bench.claim(job_id)
        bench.record(job_id, 1, Outcome(kind="raised", error="Boom"))
        return job_id

    return fail


def unique_locks(bench: Bench) -> list[tuple[int, str]]:
    found = bench.rows("SELECT job_id, until FROM opsjobs.unique_locks ORDER BY job_id")
    return [(row["job_id"], row["until"]) for row in found]


def test_a_retried_job_guards_its_call_again(
    bench: Bench, operator: Operator, once: Any, fail: Any, db: SQLAlchemy
) -> None:
    task = once("ended")
    job_id = fail(task)
    assert unique_locks(bench) == []
    receipt = operator.retry(job_id, **WHY)
    assert "unique lock" in [change.what for change in receipt.done[0].changes]
    assert unique_locks(bench) == [(job_id, "ended")]
    again = task.enqueue()
    assert (again.id, again.conflict) == (job_id, True)
    db.session.rollback()
    bench.dispatch(prefetch=9)
    bench.claim(job_id, 2)
    bench.record(job_id, 2, Outcome(kind="returned"))
    assert unique_locks(bench) == []


def test_one_that_backs_off_keeps_its_own(
    bench: Bench, operator: Operator, once: Any, fail: Any
) -> None:
    job_id = fail(once("ended"), max_attempts=2)
    assert bench.job(job_id)["state"] == "retryable"
    assert operator.retry(job_id, **WHY).is_done
    assert unique_locks(bench) == [(job_id, "ended")]


@pytest.mark.parametrize("action", ["retry", "run_again"])
def test_one_whose_call_is_guarded_by_another_is_skipped(
    bench: Bench, operator: Operator, once: Any, fail: Any, record_job: Any, action: str
) -> None:
    task = once("ended")
    job_id = fail(task)
    other = record_job(task)
    before = bench.job(job_id)
    receipt = operator.run(f"job.{action}", [f"job/{job_id}"], **WHY)
    assert (receipt.code, receipt.skipped[0].code) == ("illegal", "duplicate")
    assert f"job {other} holds the unique lock" in receipt.says
    assert bench.job(job_id) == before
    assert unique_locks(bench) == [(other, "ended")]


@pytest.mark.parametrize("action", ["retry", "run_again"])
def test_of_two_of_the_same_call_in_one_plan_the_first_wins(
    bench: Bench, operator: Operator, once: Any, fail: Any, action: str
) -> None:
    task = once("ended")
    one, two, other = fail(task), fail(task), fail(task, text="another call")
    targets = [f"job/{id}" for id in (two, one, other)]
    receipt = operator.run(f"job.{action}", targets, **WHY)
    assert [item.target for item in receipt.done] == [targets[0], targets[2]]
    assert [(skip.target, skip.code) for skip in receipt.skipped] == [(targets[1], "duplicate")]
    assert len(unique_locks(bench)) == 2


@pytest.mark.parametrize("lifetime", ["within", "forever"])
def test_a_unique_lock_that_outlives_the_end_stays_with_its_job(
    bench: Bench, operator: Operator, once: Any, fail: Any, lifetime: str
) -> None:
    job_id = fail(once(lifetime))
    assert operator.retry(job_id, **WHY).is_done
    assert unique_locks(bench) == [(job_id, lifetime)]


@pytest.mark.parametrize("lifetime", ["within", "forever"])
def test_a_unique_lock_that_outlives_the_end_forbids_to_run_again(
    bench: Bench, operator: Operator, once: Any, fail: Any, lifetime: str
) -> None:
    job_id = fail(once(lifetime))
    receipt = operator.run("job.run_again", [f"job/{job_id}"], **WHY)
    assert receipt.skipped[0].code == "duplicate"


def test_after_the_span_a_new_job_guards_for_the_declared_one(
    bench: Bench, operator: Operator, once: Any, fail: Any
) -> None:
    job_id = fail(once("within"))
    now = read_clock(bench.connection) + timedelta(hours=2)
    assert operator.run("job.run_again", [f"job/{job_id}"], **WHY, now=now).is_done
    new = bench.row("SELECT * FROM opsjobs.jobs WHERE run_again_from = %s", job_id)
    (lock,) = bench.rows("SELECT * FROM opsjobs.unique_locks")
    assert (lock["job_id"], lock["expires_at"]) == (new["id"], now + timedelta(hours=1))
    assert new["unique_until"] == "within"


def test_without_the_workers_declaration_the_new_job_takes_no_unique_lock(
    bench: Bench, operator: Operator, once: Any, fail: Any
) -> None:
    task = once("within")
    job_id = fail(task)
    del tasks_of(bench.host)[task.name]
    now = read_clock(bench.connection) + timedelta(hours=2)
    plan = operator.plan("job.run_again", [f"job/{job_id}"], actor="anna", now=now)
    assert "gets no unique lock" in (plan.items[0].note or "")
    assert operator.run("job.run_again", [f"job/{job_id}"], **WHY, now=now).is_done
    new = bench.row("SELECT * FROM opsjobs.jobs WHERE run_again_from = %s", job_id)
    assert (new["unique_key"], new["unique_until"]) == (None, None)


def test_a_deleted_job_may_leave_a_unique_lock_and_the_plan_says_so(
    bench: Bench, operator: Operator, once: Any, fail: Any, db: SQLAlchemy
) -> None:
    task = once("forever")
    job_id = fail(task)
    receipt = operator.delete(job_id, **WHY)
    assert "for ever" in (receipt.done[0].note or "")
    again = task.enqueue()
    assert (again.id, again.state, again.conflict) == (job_id, None, True)
    db.session.rollback()


@pytest.mark.parametrize("time", range(8))
@pytest.mark.parametrize("action", ["retry", "run_again"])
def test_a_retry_against_an_enqueue_of_the_same_call(
    app: Any, bench: Bench, operator: Operator, once: Any, fail: Any, action: str, time: int
) -> None:
    task = once("ended")
    job_id = fail(task)

    def enqueue() -> Any:
        with app.app_context():
            enqueued = task.enqueue()
            app.extensions["sqlalchemy"].session.commit()
            return enqueued

    receipt, enqueued = race(
        lambda: operator.run(f"job.{action}", [f"job/{job_id}"], **WHY), enqueue
    )
    assert enqueued.conflict == receipt.is_done
    assert len(unique_locks(bench)) == 1
    alive = bench.row("SELECT count(*) AS n FROM opsjobs.jobs WHERE state = 'available'")
    assert alive["n"] == 1


@pytest.mark.parametrize("is_previewed", [True, False])
def test_an_enqueue_that_is_committed_while_the_retry_waits_for_it_wins(
    db: SQLAlchemy, bench: Bench, operator: Operator, once: Any, fail: Any, is_previewed: bool
) -> None:
    task = once("ended")
    job_id = fail(task)
    targets = [f"job/{job_id}"]
    preview = operator.preview("job.retry", targets, actor="anna", via="page")
    found = []

    def act() -> None:
        if is_previewed:
            found.append(operator.execute(preview.id, preview.token, **WHY))
        else:
            found.append(operator.run("job.retry", targets, **WHY))

    enqueued = task.enqueue()
    thread = Thread(target=act)
    thread.start()
    wait_until(lambda: bench.row(WAITING)["n"] == 1, what="the operator to wait")
    db.session.commit()
    thread.join(10)
    assert [receipt.code for receipt in found] == ["drifted" if is_previewed else "illegal"]
    assert unique_locks(bench) == [(enqueued.id, "ended")]
    assert bench.job(job_id)["state"] == "failed"

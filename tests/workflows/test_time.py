"""What time changes in a run, under `perform_due(at=…)`: delays, time-outs of waits, and deadlines."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs import OpsJobs, Task
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.testing import perform_due
from flask_opsjobs.workflows.checks import checks
from tests.support.engine import Bench


@pytest.fixture
def calls() -> list[str]:
    """What ran, in order."""
    return []


@pytest.fixture
def call(opsjobs: OpsJobs, calls: list[str]) -> Task:
    @opsjobs.task(max_attempts=1)
    def call(name: str) -> None:
        calls.append(name)

    return call


def later(bench: Bench, **span: float) -> datetime:
    return read_clock(bench.connection) + timedelta(**span)


def run_of(bench: Bench, run: int) -> dict[str, Any]:
    assert checks(bench.connection) == []
    return bench.row("SELECT * FROM opsjobs.workflows WHERE id = %s", run)


def test_a_delay_counts_from_the_release(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, call: Task, calls: list[str]
) -> None:
    flow = opsjobs.workflow("delays")
    first = flow.step("first", call.options(delay=timedelta(hours=1)), name="first")
    flow.step("second", call.options(delay=timedelta(hours=2)), name="second", after=[first])
    run = flow.start()
    db.session.commit()
    perform_due(at=later(bench, minutes=59))
    assert calls == []
    perform_due(at=later(bench, minutes=179))
    assert calls == ["first"]
    perform_due(at=later(bench, minutes=240))
    assert calls == ["first", "second"]
    assert run_of(bench, run.id)["state"] == "finished"


@pytest.mark.parametrize("may_fail", [False, True])
def test_time_passes_to_the_end_of_a_wait(
    may_fail: bool,
    db: SQLAlchemy,
    opsjobs: OpsJobs,
    bench: Bench,
    call: Task,
    calls: list[str],
) -> None:
    flow = opsjobs.workflow("waits")
    wait = flow.wait("paid", signal="paid", timeout=timedelta(hours=2), may_fail=may_fail)
    flow.step("ship", call, name="ship", after=[wait])
    run = flow.start()
    db.session.commit()
    perform_due(at=later(bench, minutes=119))
    assert run_of(bench, run.id)["state"] == "running"
    performed = perform_due(at=later(bench, hours=3))
    assert run_of(bench, run.id)["state"] == ("finished" if may_fail else "failed")
    assert calls == (["ship"] if may_fail else [])
    wait_job = bench.row("SELECT * FROM opsjobs.jobs WHERE task = 'opsjobs.wait'")
    assert (wait_job["state"], wait_job["ended_by"]) == ("failed", "deadline")
    assert wait_job["id"] in {job.id for job in performed.jobs}


def test_what_follows_a_time_out_starts_then(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, call: Task, calls: list[str]
) -> None:
    """Time stops at each change: the step behind the wait is due before the other, not after it."""
    flow = opsjobs.workflow("order")
    wait = flow.wait("paid", signal="paid", timeout=timedelta(hours=1), may_fail=True)
    flow.step("late", call.options(delay=timedelta(hours=5)), name="late")
    flow.step("ship", call.options(delay=timedelta(hours=1)), name="ship", after=[wait])
    flow.start()
    db.session.commit()
    perform_due(at=later(bench, hours=6))
    assert calls == ["ship", "late"]


def test_a_signal_before_the_time_out_ends_the_wait(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, call: Task, calls: list[str]
) -> None:
    flow = opsjobs.workflow("waits")
    wait = flow.wait("paid", signal="paid", timeout=timedelta(hours=2))
    flow.step("ship", call, name="ship", after=[wait])
    run = flow.start()
    db.session.commit()
    perform_due(at=later(bench, hours=1))
    opsjobs.signal("paid")
    db.session.commit()
    perform_due(at=later(bench, hours=3))
    assert (calls, run_of(bench, run.id)["state"]) == (["ship"], "finished")


def test_the_deadline_of_a_run_ends_it(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, call: Task, calls: list[str]
) -> None:
    flow = opsjobs.workflow("late", on_end=opsjobs.task(_report))
    first = flow.step("first", call, name="first")
    wait = flow.wait("paid", signal="paid", after=[first])
    flow.step("ship", call, name="ship", after=[wait])
    run = flow.start(deadline=timedelta(hours=1))
    db.session.commit()
    perform_due(at=later(bench, minutes=59))
    assert (calls, run_of(bench, run.id)["state"]) == (["first"], "running")
    performed = perform_due(at=later(bench, minutes=61))
    row = run_of(bench, run.id)
    assert (row["state"], row["ended_by"], calls) == ("failed", "deadline", ["first"])
    assert [job.args for job in performed.jobs if job.state == "finished"] == [
        {"workflow_id": run.id, "state": "failed"}
    ]


def test_a_retry_removes_a_deadline_that_has_passed_and_keeps_one_that_is_to_come(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench
) -> None:
    fails = [True]

    @opsjobs.task(max_attempts=1)
    def fetch() -> None:
        if fails[0]:
            raise OSError("away")

    flow = opsjobs.workflow("late")
    flow.step("fetch", fetch)
    flow.wait("paid", signal="paid", may_fail=True)
    run = flow.start(deadline=timedelta(hours=1))
    db.session.commit()
    perform_due()
    why: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}
    opsjobs.operator.retry_workflow(run.id, **why)
    assert run_of(bench, run.id)["deadline_at"] > later(bench, minutes=50)
    perform_due(at=later(bench, hours=2))
    assert run_of(bench, run.id)["ended_by"] == "deadline"
    fails[0] = False
    afterwards = later(bench, hours=2)
    receipt = opsjobs.operator.run("workflow.retry", [f"workflow/{run.id}"], now=afterwards, **why)
    assert receipt.is_done
    assert run_of(bench, run.id)["deadline_at"] is None
    perform_due(at=later(bench, hours=3))
    assert (run_of(bench, run.id)["state"], run_of(bench, run.id)["ended_at"]) == ("running", None)


def _report(workflow_id: int, state: str) -> None: ...


def test_the_deadline_of_a_step_counts_from_its_release(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, call: Task, calls: list[str]
) -> None:
    """Case 28: not from the start of the run."""
    flow = opsjobs.workflow("late")
    wait = flow.wait("paid", signal="paid", timeout=timedelta(hours=5), may_fail=True)
    late = call.options(delay=timedelta(hours=2), deadline=timedelta(hours=3))
    flow.step("in_time", late, name="in_time", after=[wait])
    run = flow.start()
    db.session.commit()
    perform_due(at=later(bench, hours=8))
    assert (calls, run_of(bench, run.id)["state"]) == (["in_time"], "finished")


def test_without_at_no_time_passes(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, call: Task
) -> None:
    flow = opsjobs.workflow("waits")
    flow.wait("paid", signal="paid", timeout=timedelta(seconds=30))
    run = flow.start(deadline=timedelta(seconds=60))
    db.session.commit()
    perform_due()
    assert run_of(bench, run.id)["state"] == "running"

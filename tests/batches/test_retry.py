"""A member that is retried: its count is taken back, and its batch ends once more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs import ActionRefused, OpsJobs, Task
from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.host import Host
from flask_opsjobs.testing import perform_due
from tests.batches.conftest import batch_of, fold_all
from tests.support.engine import Bench, race

WHY: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}


@pytest.fixture
def failing(opsjobs: OpsJobs) -> Callable[[bool], Task]:
    """A task that fails until it is told otherwise: `failing(False)`."""
    fails = [True]

    @opsjobs.task(max_attempts=1)
    def fetch() -> None:
        if fails[0]:
            raise OSError("away")

    def choose(is_failing: bool) -> Task:
        fails[0] = is_failing
        return fetch

    return choose


def test_a_retried_member_reopens_its_batch_which_ends_and_calls_back_again(
    db: SQLAlchemy,
    opsjobs: OpsJobs,
    bench: Bench,
    failing: Callable[[bool], Task],
    report: Task,
    alert: Task,
    heard: list[dict[str, Any]],
) -> None:
    """Case 16."""
    with opsjobs.batch("import", on_end=report, on_failure=alert) as batch:
        job = batch.enqueue(failing(True))
        batch.enqueue(failing(True))
    db.session.commit()
    perform_due()
    assert batch_of(bench, batch.id)["ends"] == {"failed exhausted": 2}
    failing(False)
    receipt = opsjobs.operator.retry(job.id, **WHY)
    (changed,) = [c for c in receipt.done[0].changes if c.what == f"batch {batch.id}"]
    assert (changed.before, changed.after) == ("failed", "running")
    fold_all(bench.connection)
    row = batch_of(bench, batch.id)
    assert (row["state"], row["ends"]) == ("running", {"failed exhausted": 1})
    perform_due()
    row = batch_of(bench, batch.id)
    assert (row["state"], row["end_no"]) == ("failed", 2)
    assert row["ends"] == {"failed exhausted": 1, "finished returned": 1}
    assert [one.get("end_no") for one in heard] == [None, 1, 2]


def test_a_member_that_is_retried_before_its_end_was_folded_has_failed_once(
    db: SQLAlchemy,
    opsjobs: OpsJobs,
    bench: Bench,
    failing: Callable[[bool], Task],
    alert: Task,
    end: Callable[..., None],
) -> None:
    """Case 15."""
    with opsjobs.batch("import", on_failure=alert) as batch:
        job = batch.enqueue(failing(True))
    db.session.commit()
    end(job.id, "raised")
    opsjobs.operator.retry(job.id, **WHY)
    fold_all(bench.connection)
    row = batch_of(bench, batch.id)
    assert (row["state"], row["ends"]) == ("running", {})
    assert row["first_failed_at"] is not None
    assert len(bench.rows("SELECT * FROM opsjobs.callbacks WHERE event = 'failure'")) == 1


@pytest.mark.parametrize("time", range(10))
def test_a_retry_against_the_end_of_the_batch(
    db: SQLAlchemy,
    opsjobs: OpsJobs,
    host: Host,
    bench: Bench,
    failing: Callable[[bool], Task],
    report: Task,
    end: Callable[..., None],
    time: int,
) -> None:
    with opsjobs.batch("import", on_end=report) as batch:
        job = batch.enqueue(failing(True))
    db.session.commit()
    end(job.id, "raised")
    operator = opsjobs.operator

    def fold_it() -> None:
        connection = connect_apart(host.engine)
        try:
            fold_all(connection)
        finally:
            connection.close()

    race(fold_it, lambda: operator.retry(job.id, **WHY), fold_it)
    fold_all(bench.connection)
    row = batch_of(bench, batch.id)
    assert (row["state"], row["ends"]) == ("running", {})
    end(job.id)
    fold_all(bench.connection)
    last = batch_of(bench, batch.id)
    assert (last["state"], last["end_no"]) == ("finished", row["end_no"] + 1)


def test_a_member_of_an_open_batch_is_not_deleted(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, failing: Callable[[bool], Task]
) -> None:
    batch = opsjobs.batch("import").open()
    job = batch.enqueue(failing(True))
    db.session.commit()
    perform_due()
    with pytest.raises(ActionRefused, match=f"it is a member of batch {batch.id}, which has not"):
        opsjobs.operator.delete(job.id, **WHY)
    batch.close()
    db.session.commit()
    perform_due()
    opsjobs.operator.delete(job.id, **WHY)
    row = batch_of(bench, batch.id)
    assert (row["state"], row["lost"], row["ends"]) == ("failed", 0, {"failed exhausted": 1})


def test_a_job_that_runs_again_is_no_member(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, failing: Callable[[bool], Task]
) -> None:
    with opsjobs.batch("import") as batch:
        job = batch.enqueue(failing(False))
    db.session.commit()
    perform_due()
    opsjobs.operator.run_again(job.id, **WHY)
    perform_due()
    row = batch_of(bench, batch.id)
    assert (row["enqueued"], row["end_no"]) == (1, 1)

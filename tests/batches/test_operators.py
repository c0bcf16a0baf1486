"""What operators do with batches: retry, close, cancel; from Python and the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import Session

from flask_opsjobs import ActionRefused, BatchClosed, OpsJobs, Task, Unique
from flask_opsjobs.actions.registry import actions_of
from flask_opsjobs.batches import actions as batch_actions
from flask_opsjobs.batches.lifecycle import STATES
from flask_opsjobs.endings import fold as folding
from flask_opsjobs.testing import perform_due
from tests.batches.conftest import batch_of, fold_all
from tests.support.engine import Bench, race

WHY: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}


@pytest.fixture
def reach(db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, row_task: Task) -> Callable[[str], int]:
    """Makes a batch with a failed and a finished member, in a state; its id."""

    def reach(state: str) -> int:
        batch = opsjobs.batch("import").open()
        if state != "finished":
            batch.enqueue(row_task, -1)
        batch.enqueue(row_task, 1)
        late = None
        if state in ("open", "running", "canceled"):
            late = batch.enqueue(row_task.options(delay=3600), 2)
        if state != "open":
            batch.close()
        db.session.commit()
        perform_due()
        if state == "canceled":
            assert late is not None
            opsjobs.operator.cancel_batch(batch.id, **WHY)
            fold_all(bench.connection)
        assert batch_of(bench, batch.id)["state"] == state
        return batch.id

    return reach


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("action", actions_of("batch"), ids=lambda action: action.short_name)
def test_each_action_on_each_state(
    opsjobs: OpsJobs, bench: Bench, reach: Callable[[str], int], action: Any, state: str
) -> None:
    id = reach(state)
    receipt = opsjobs.operator.run(action.name, [f"batch/{id}"], **WHY)
    # The operator has folded it: no loop runs here.
    after = batch_of(bench, id)
    can_retry = action.short_name != "retry" or state != "finished"
    assert receipt.is_done == (state in action.sources and can_retry)
    if not receipt.is_done:
        assert receipt.code == "illegal"
        assert after["state"] == state
        assert "legal now: " in receipt.says or "none of its members failed" in receipt.says
    else:
        expected = {"close": "running", "cancel": "canceled"}
        again = "open" if state == "open" else "running"
        assert after["state"] == expected.get(action.short_name, again)


def test_a_batch_that_is_closed_after_its_last_member_ends_at_once(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, row_task: Task
) -> None:
    batch = opsjobs.batch("import").open()
    batch.enqueue(row_task, 1)
    db.session.commit()
    perform_due()
    assert opsjobs.operator.close_batch(batch.id, **WHY).is_done
    assert batch_of(bench, batch.id)["state"] == "finished"


def test_a_retry_runs_the_failed_members_once_more(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, reach: Callable[[str], int]
) -> None:
    id = reach("failed")
    receipt = opsjobs.operator.retry_batch(id, **WHY)
    assert receipt.done[0].changes[0].what == "1 member"
    assert batch_of(bench, id)["ends"] == {"finished returned": 1}, "folded at once"
    perform_due()
    row = batch_of(bench, id)
    assert (row["state"], row["end_no"]) == ("failed", 2)
    assert row["ends"] == {"failed exhausted": 1, "finished returned": 1}


def test_a_retry_of_a_canceled_batch_takes_what_the_cancel_ended(
    opsjobs: OpsJobs, bench: Bench, reach: Callable[[str], int]
) -> None:
    id = reach("canceled")
    assert batch_of(bench, id)["ends"]["canceled canceled"] == 1
    opsjobs.operator.retry_batch(id, **WHY)
    perform_due()
    row = batch_of(bench, id)
    assert (row["state"], row["end_no"], row["cancel_requested_at"]) == ("failed", 2, None)
    assert row["ends"] == {"failed exhausted": 1, "finished returned": 2}


def test_a_retry_takes_a_bounded_number_of_members_and_leaves_out_rivals(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    @opsjobs.task(max_attempts=1, unique=Unique(until="ended"))
    def sync(account_id: int) -> None:
        raise OSError("away")

    with opsjobs.batch("sync") as batch:
        batch.enqueue_many(sync, ({"account_id": number} for number in range(5)))
    db.session.commit()
    perform_due()
    rival = sync.options(delay=60).enqueue(0)
    db.session.commit()
    monkeypatch.setattr(batch_actions, "MOST_MEMBERS", 3)
    receipt = opsjobs.operator.retry_batch(batch.id, **WHY)
    assert "at most 3 at once" in (receipt.done[0].note or "")
    fold_all(bench.connection)
    assert batch_of(bench, batch.id)["ends"] == {"failed exhausted": 2}
    rows = bench.rows("SELECT id FROM opsjobs.jobs WHERE state = 'available' ORDER BY id")
    assert [row["id"] for row in rows] == [2, 3, 4]
    assert not rival.conflict


def test_of_members_with_the_same_unique_lock_the_first_is_retried(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench
) -> None:
    """Only one job can take the lock: of one batch, and of two batches in one action."""

    @opsjobs.task(max_attempts=1, unique=Unique(until="ended"))
    def sync(account_id: int) -> None:
        raise OSError("away")

    first, second = opsjobs.batch("first"), opsjobs.batch("second")
    for batch in (first, second):
        batch.open()
    for batch, account_id in ((first, 1), (first, 1), (first, 2), (second, 2), (second, 3)):
        batch.enqueue(sync, account_id=account_id)
        db.session.commit()
        perform_due()  # the lock is free again
    for batch in (first, second):
        batch.close()
    db.session.commit()
    fold_all(bench.connection)
    targets = [f"batch/{first.id}", f"batch/{second.id}"]
    notes = [
        "1 member stays as it is, because another job has the unique lock of the same call: "
        "job 2 (lock of job 1)",
        "1 member stays as it is, because another job has the unique lock of the same call: "
        "job 4 (lock of job 3)",
    ]
    operator = opsjobs.operator
    preview = operator.preview("batch.retry", targets, actor="anna", via="page")
    assert [item.note for item in preview.plan.items] == notes
    assert [item.changes[-1].what for item in preview.plan.items] == ["2 members", "1 member"]
    receipt = operator.execute(preview.id, preview.token, **WHY)
    assert receipt.is_done, receipt.says
    assert [item.note for item in receipt.done] == notes
    assert [item.changes[-1].what for item in receipt.done] == ["2 members", "1 member"]
    rows = bench.rows(
        "SELECT id FROM opsjobs.jobs WHERE state IN ('available', 'queued') ORDER BY id"
    )
    assert [row["id"] for row in rows] == [1, 3, 5]
    refused = operator.run("batch.retry", targets[:1], **WHY)
    assert (refused.outcome, refused.skipped[0].code) == ("refused", "duplicate")
    assert "job 2 (lock of job 1)" in refused.says
    perform_due()
    assert operator.run("batch.retry", targets, **WHY).is_done, "the locks are free again"


def test_a_cancel_ends_many_members_in_turns_and_asks_for_started_ones_to_be_stopped(
    db: SQLAlchemy,
    opsjobs: OpsJobs,
    bench: Bench,
    row_task: Task,
    report: Task,
    heard: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    end: Callable[..., None],
) -> None:
    monkeypatch.setattr(folding, "MOST_MEMBERS", 10)
    with opsjobs.batch("import", on_end=report) as batch:
        started = batch.enqueue(row_task.options(queue="other"), 1)
        batch.enqueue_many(row_task, [{}] * 35)
    db.session.commit()
    bench.dispatch("other")
    bench.claim(started.id)
    opsjobs.operator.cancel_batch(batch.id, **WHY)
    fold_all(bench.connection)
    row = batch_of(bench, batch.id)
    assert (row["state"], row["ends"]) == ("running", {"canceled canceled": 35})
    assert bench.job(started.id)["cancel_requested_by"] == "anna"
    with pytest.raises(ActionRefused, match="anna has already canceled"):
        opsjobs.operator.cancel_batch(batch.id, **WHY)
    end(started.id, "canceled")
    perform_due()
    assert batch_of(bench, batch.id)["state"] == "canceled"
    assert [(one["state"], one["canceled"]) for one in heard] == [("canceled", 36)]


def test_a_member_of_a_batch_that_is_being_canceled_is_not_retried(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, row_task: Task
) -> None:
    with opsjobs.batch("import") as batch:
        started = batch.enqueue(row_task.options(queue="other"), 1)
        job = batch.enqueue(row_task, 1)
    db.session.commit()
    bench.dispatch("other")
    bench.claim(started.id)
    opsjobs.operator.cancel_batch(batch.id, **WHY)
    fold_all(bench.connection)
    with pytest.raises(ActionRefused, match=f"its batch {batch.id} is being canceled"):
        opsjobs.operator.retry(job.id, **WHY)


def test_a_close_by_an_operator_stops_the_host_that_adds(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, row_task: Task
) -> None:
    batch = opsjobs.batch("import").open()
    db.session.commit()

    def rows() -> Any:
        for number in range(100):
            if number == 50:
                opsjobs.operator.close_batch(batch.id, **WHY)
            yield {"number": number}

    with pytest.raises(BatchClosed):
        batch.enqueue_many(row_task, rows(), commit_every=50)
    db.session.rollback()
    perform_due()
    row = batch_of(bench, batch.id)
    assert (row["state"], row["enqueued"]) == ("finished", 50)


def test_an_operator_does_not_wait_for_a_host_that_adds(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, row_task: Task
) -> None:
    batch = opsjobs.batch("import").open()
    db.session.commit()
    with Session(db.engine) as session:
        opsjobs.batch(id=batch.id, session=session).enqueue(row_task, 1)
        opsjobs.operator.close_batch(batch.id, **WHY)
        opsjobs.operator.cancel_batch(batch.id, **WHY)
        assert bench.row("SELECT state FROM opsjobs.batches")["state"] == "running"
        session.commit()
    fold_all(bench.connection)
    row = batch_of(bench, batch.id)
    assert (row["state"], row["ends"]) == ("canceled", {"canceled canceled": 1})


@pytest.mark.parametrize("time", range(10))
def test_a_retry_of_the_batch_against_a_retry_of_a_member_and_folds(
    app: Flask,
    opsjobs: OpsJobs,
    bench: Bench,
    reach: Callable[[str], int],
    time: int,
) -> None:
    id = reach("failed")
    (job,) = bench.rows("SELECT id FROM opsjobs.jobs WHERE state = 'failed'")
    operator = opsjobs.operator
    receipts = race(
        lambda: operator.run("batch.retry", [f"batch/{id}"], **WHY),
        lambda: operator.run("job.retry", [f"job/{job['id']}"], **WHY),
    )
    assert sorted(receipt.is_done for receipt in receipts)[1] is True
    fold_all(bench.connection)
    row = batch_of(bench, id)
    assert (row["state"], row["ends"]) == ("running", {"finished returned": 1})


def test_the_commands_do_the_same(
    app: Flask, opsjobs: OpsJobs, bench: Bench, reach: Callable[[str], int]
) -> None:
    id = reach("open")

    def run(*words: str) -> Any:
        return app.test_cli_runner().invoke(
            args=["opsjobs", "batch", *words, "--reason", WHY["reason"]]
        )

    assert run("close", str(id)).exit_code == 0
    assert run("close", str(id)).exit_code == 1
    assert "Retry the failed members of batch" in run("retry", str(id)).output
    assert run("cancel", str(id), "999").exit_code == 3
    fold_all(bench.connection)
    assert batch_of(bench, id)["state"] == "canceled"

"""Operators against each other, against workers and dispatchers:
whoever is first wins, and nobody wins half.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs.actions import execution
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.actions.planning import find_preview
from flask_opsjobs.actions.shapes import Preview, Receipt
from flask_opsjobs.core import sql
from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.errors import EngineUnavailable
from flask_opsjobs.jobs.perform.outcomes import Outcome
from tests.actions.conftest import Reach
from tests.conftest import MakeBench
from tests.support.engine import Bench, race
from tests.support.waiting import wait_until

WHY: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}
TIMES = range(8)
WAITING = """
    SELECT count(*) AS n FROM pg_stat_activity
    WHERE wait_event_type = 'Lock' AND datname = current_database()
"""
Exhausted = Callable[..., int]


def codes(receipts: list[Receipt]) -> list[str]:
    """What came of each: its code, or `done`."""
    return sorted(receipt.code or receipt.outcome for receipt in receipts)


def execute(operator: Operator, preview: Preview) -> Callable[[], Receipt]:
    return lambda: operator.execute(preview.id, preview.token, **WHY)


@pytest.mark.parametrize("time", TIMES)
def test_one_preview_in_two_windows(
    bench: Bench, operator: Operator, exhausted: Exhausted, time: int
) -> None:
    job_id = exhausted()
    preview = operator.preview("job.retry", [f"job/{job_id}"], actor="anna", via="page")
    receipts = race(execute(operator, preview), execute(operator, preview))
    assert codes(receipts) == ["done", "spent"]
    assert bench.job(job_id)["max_attempts"] == 2
    found = bench.rows("SELECT outcome FROM opsjobs.audit_events")
    assert sorted(row["outcome"] for row in found) == ["done", "refused"]


@pytest.mark.parametrize("time", TIMES)
def test_one_preview_opened_by_two_persons(
    bench: Bench, db: SQLAlchemy, operator: Operator, exhausted: Exhausted, time: int
) -> None:
    job_id = exhausted()
    anna = operator.preview("job.retry", [f"job/{job_id}"], actor="anna", via="page")
    ben = find_preview(db.session(), bench.host.secrets, anna.id, "ben")
    db.session.rollback()
    assert ben is not None
    of_ben = lambda: operator.execute(ben.id, ben.token, **{**WHY, "actor": "ben"})  # noqa: E731
    receipts = race(execute(operator, anna), of_ben)
    assert codes(receipts) == ["done", "spent"]
    assert bench.job(job_id)["max_attempts"] == 2
    found = bench.rows("SELECT actor, outcome FROM opsjobs.audit_events ORDER BY sequence")
    assert [row["outcome"] for row in found] == ["done", "refused"]
    assert {row["actor"] for row in found} == {"anna", "ben"}


@pytest.mark.parametrize("time", TIMES)
def test_two_previews_of_one_job(
    bench: Bench, operator: Operator, exhausted: Exhausted, time: int
) -> None:
    job_id = exhausted()
    previews = [
        operator.preview(action, [f"job/{job_id}"], actor="anna", via="page")
        for action in ("job.retry", "job.delete")
    ]
    receipts = race(*(execute(operator, preview) for preview in previews))
    assert codes(receipts) == ["done", "drifted"]
    (done,) = [receipt for receipt in receipts if receipt.is_done]
    left = bench.rows("SELECT state FROM opsjobs.jobs WHERE id = %s", job_id)
    assert left == ([] if done.action == "job.delete" else [{"state": "available"}])


def test_many_that_overlap_in_opposite_orders_do_not_deadlock(
    operator: Operator, exhausted: Exhausted
) -> None:
    ids = [exhausted() for _ in range(30)]
    orders = [ids, ids[::-1], ids[10:] + ids[:10]]

    def retry(order: list[int]) -> Callable[[], Receipt]:
        return lambda: operator.run("job.retry", [f"job/{id}" for id in order], **WHY)

    receipts = race(*map(retry, orders))
    assert codes(receipts) == ["done", "illegal", "illegal"]


@pytest.mark.parametrize("time", TIMES)
def test_a_cancel_against_the_finish(
    make_bench: MakeBench, operator: Operator, reach: Reach, time: int
) -> None:
    job_id = reach("started")
    bench = make_bench()
    receipt, ended = race(
        lambda: operator.run("job.cancel", [f"job/{job_id}"], **WHY),
        lambda: bench.record(job_id, 1, Outcome(kind="returned")),
    )
    assert [job.state for job in ended] == ["finished"]
    assert (receipt.code or receipt.outcome) in ("done", "illegal")
    job = bench.job(job_id)
    assert job["state"] == "finished"
    assert (job["cancel_requested_at"] is not None) == receipt.is_done


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("action", ["cancel", "discard"])
def test_an_end_against_the_claim(
    bench: Bench, make_bench: MakeBench, operator: Operator, reach: Reach, action: str, time: int
) -> None:
    job_id = reach("queued")
    worker = make_bench()
    receipt, claimed = race(
        lambda: operator.run(f"job.{action}", [f"job/{job_id}"], **WHY),
        lambda: worker.claim(job_id),
    )
    job = bench.job(job_id)
    is_claimed = not hasattr(claimed, "reason")
    assert (job["state"] == "started") == is_claimed
    if is_claimed and action == "cancel":
        assert job["cancel_requested_at"] is not None
    elif is_claimed:
        assert receipt.code == "illegal"
    else:
        assert receipt.is_done


@pytest.mark.parametrize("time", TIMES)
def test_an_end_against_the_dispatch(
    bench: Bench,
    make_bench: MakeBench,
    operator: Operator,
    reach: Reach,
    redis_client: Any,
    time: int,
) -> None:
    """What is canceled while it is dispatched is never claimed;
    a delivery that was pushed after all finds no row.
    """
    job_id = reach("available")
    dispatcher = make_bench()
    preview = operator.preview("job.cancel", [f"job/{job_id}"], actor="anna", via="page")
    receipt, dispatched = race(execute(operator, preview), lambda: dispatcher.dispatch(prefetch=9))
    job = bench.job(job_id)
    if receipt.is_done:
        assert job["state"] == "canceled"
        assert "reason" in str(bench.claim(job_id, job["dispatch_no"]))
    else:
        assert (receipt.code, job["state"], dispatched) == ("drifted", "queued", 1)


@pytest.mark.parametrize("time", TIMES)
def test_a_retry_against_retention(
    bench: Bench, operator: Operator, exhausted: Exhausted, time: int
) -> None:
    job_id = exhausted()
    connection = connect_apart(bench.host.engine)
    old = {
        "state": "failed",
        "before": bench.job(job_id)["ended_at"].replace(year=2999),
        "limit": 9,
    }
    receipt, _ = race(
        lambda: operator.run("job.retry", [f"job/{job_id}"], **WHY),
        lambda: connection.execute(sql.load("retain_jobs"), old),
    )
    connection.close()
    left = bench.rows("SELECT state FROM opsjobs.jobs")
    assert left == ([{"state": "available"}] if receipt.is_done else [])
    assert codes([receipt])[0] in ("done", "unknown_target")


def test_a_change_that_is_committed_while_it_waits_for_the_lock_is_seen(
    bench: Bench, operator: Operator, exhausted: Exhausted
) -> None:
    """The look is taken under the lock: one taken before it would have seen nothing."""
    job_id = exhausted()
    preview = operator.preview("job.retry", [f"job/{job_id}"], actor="anna", via="page")
    holder = connect_apart(bench.host.engine)
    receipts: list[Receipt] = []
    thread = Thread(target=lambda: receipts.append(execute(operator, preview)()))
    with holder.transaction():
        # Held and changed directly, as another operator would in the middle of a transaction.
        holder.execute("UPDATE opsjobs.jobs SET max_attempts = 9 WHERE id = %s", [job_id])
        thread.start()
        wait_until(lambda: bench.row(WAITING)["n"] == 1, what="the operator to wait")
    thread.join(10)
    holder.close()
    (receipt,) = receipts
    assert receipt.code == "drifted"
    assert [change.what for change in receipt.drifted] == [f"job/{job_id} max_attempts"]


def test_a_row_that_is_held_for_long_is_not_waited_for_for_ever(
    bench: Bench, operator: Operator, exhausted: Exhausted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "WAIT_SECONDS", 1)
    job_id = exhausted()
    preview = operator.preview("job.retry", [f"job/{job_id}"], actor="anna", via="page")
    holder = connect_apart(bench.host.engine)
    with holder.transaction():
        holder.execute("SELECT 1 FROM opsjobs.jobs WHERE id = %s FOR UPDATE", [job_id])
        with pytest.raises(EngineUnavailable, match="try again"):
            operator.execute(preview.id, preview.token, **WHY)
    holder.close()
    assert operator.execute(preview.id, preview.token, **WHY).is_done


@pytest.mark.parametrize("time", TIMES)
def test_many_operators_at_once_make_one_chain(
    bench: Bench, operator: Operator, exhausted: Exhausted, time: int
) -> None:
    ids = [exhausted() for _ in range(6)]
    receipts = race(*(lambda id=id: operator.run("job.retry", [f"job/{id}"], **WHY) for id in ids))
    assert sorted(receipt.audit_sequence for receipt in receipts) == [1, 2, 3, 4, 5, 6]
    assert bench.row("SELECT sequence FROM opsjobs.audit_head")["sequence"] == 6

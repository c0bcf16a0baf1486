"""Actions on adopted jobs: the row says what RQ was asked for, RQ is asked once, and the receipt tells it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job as RQJob
from rq.job import JobStatus

from flask_opsjobs.actions.domain import Action
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.actions.registry import actions_of
from flask_opsjobs.jobs.actions import actions_of_job
from flask_opsjobs.jobs.lifecycle import ASKED_OF_RQ, STATES
from tests.support.engine import Bench
from tests.support.plain import adopt_row, take_plain
from tests.support.processes import Children

WHY: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}
JOB_ACTIONS = actions_of("job")
PARAMS = {"due_at": "2999-01-01T00:00", "queue": "", "priority": "1", "args": ""}
ADOPTED_STATES = [state for state in STATES if state != "available"]


@pytest.fixture
def queue(redis_client: Redis) -> Queue:
    return Queue("default", connection=redis_client)


@pytest.fixture
def waiting(queue: Queue) -> RQJob:
    return queue.enqueue(take_plain)


@pytest.mark.parametrize("state", ADOPTED_STATES)
@pytest.mark.parametrize("action", JOB_ACTIONS, ids=lambda action: action.short_name)
def test_each_action_on_each_state(
    bench: Bench, operator: Operator, waiting: RQJob, action: Action[Any], state: str
) -> None:
    columns = {"ended_at": waiting.created_at, "ended_by": "unseen"} if state == "unknown" else {}
    job_id = adopt_row(bench, waiting, state, **columns)
    before = bench.job(job_id)
    params = {param: PARAMS[param] for param in action.params}
    receipt = operator.run(action.name, [f"job/{job_id}"], **WHY, params=params)
    rows = bench.rows("SELECT * FROM opsjobs.jobs WHERE id = %s", job_id)
    is_legal = state in ASKED_OF_RQ.get(action.short_name, ())
    assert receipt.is_done == is_legal
    assert (action in actions_of_job("rq", state)) == is_legal
    if not is_legal:
        assert receipt.code == "illegal"
        assert rows == [before]
    elif action.short_name == "delete":
        assert rows == []
        assert not waiting.connection.exists(waiting.key)
    else:
        assert rows[0]["state"] == state
        asked = "anna" if action.short_name == "cancel" else None
        assert rows[0]["cancel_requested_by"] == asked
        (change,) = receipt.done[0].changes
        assert (change.after or "").endswith(", asked of RQ")
        (audited,) = bench.rows("SELECT * FROM opsjobs.audit_events WHERE outcome = 'done'")
        assert (audited["action"], audited["actor"]) == (action.name, "anna")


def test_what_rq_cannot_do_says_what_it_can(
    bench: Bench, operator: Operator, waiting: RQJob
) -> None:
    job_id = adopt_row(bench, waiting, "finished")
    receipt = operator.run("job.run_again", [f"job/{job_id}"], **WHY)
    why = "RQ owns it, and may be asked only for: retry, cancel, discard, delete"
    assert receipt.says == f"cannot run job {job_id} again: {why}"
    job_id = adopt_row(bench, waiting, "queued", rq_place="other")
    receipt = operator.run("job.discard", [f"job/{job_id}"], **WHY)
    assert receipt.says == f"cannot discard job {job_id}: it is queued; cancel it instead"


def test_rq_does_what_it_is_asked_for(
    bench: Bench, operator: Operator, waiting: RQJob, queue: Queue
) -> None:
    job_id = adopt_row(bench, waiting, "queued")
    receipt = operator.cancel(job_id, **WHY)
    assert receipt.says == f"Cancel job {job_id}: asked of RQ"
    assert "RQ is asked once" in (receipt.done[0].note or "")
    assert waiting.get_status() is JobStatus.CANCELED
    bench.rows(
        "UPDATE opsjobs.jobs SET state = 'canceled', ended_at = now(), ended_by = 'canceled' RETURNING 1"
    )
    assert operator.retry(job_id, **WHY).is_done
    assert queue.job_ids == [waiting.id]
    # Until the adopting loop has seen it, the row says what it said.
    assert bench.job(job_id)["state"] == "canceled"
    assert bench.job(job_id)["cancel_requested_at"] is None


def test_what_rq_refuses_is_in_the_receipt_and_nothing_is_repeated(
    bench: Bench, operator: Operator, waiting: RQJob
) -> None:
    """RQ is ahead of the row: the job has been canceled past us."""
    job_id = adopt_row(bench, waiting, "queued")
    waiting.cancel()
    receipt = operator.cancel(job_id, **WHY)
    assert receipt.is_done
    why = "RQ says that it is canceled already"
    assert (
        receipt.says == f"Cancel job {job_id}: asked of RQ; RQ did not cancel job {job_id}: {why}"
    )
    again = operator.cancel(job_id, **WHY)
    assert "anna asked to cancel it before, " in (again.done[0].note or "")


def test_a_preview_keeps_what_rq_refused(bench: Bench, operator: Operator, waiting: RQJob) -> None:
    job_id = adopt_row(bench, waiting, "started")
    preview = operator.preview("job.retry", [f"job/{job_id}"], actor="anna", via="page")
    assert "refused while that worker lives" in (preview.plan.items[0].note or "")
    receipt = operator.execute(preview.id, preview.token, **WHY)
    assert receipt.says.endswith(f"RQ did not retry job {job_id}: RQ says that it is queued")
    stored = bench.row("SELECT receipt FROM opsjobs.previews")["receipt"]
    assert stored["says"] == receipt.says


def test_one_refusal_leaves_the_others_of_the_action_alone(
    bench: Bench, operator: Operator, queue: Queue
) -> None:
    jobs = [queue.enqueue(take_plain) for _ in range(3)]
    ids = [adopt_row(bench, job, "queued") for job in jobs]
    jobs[1].cancel()
    receipt = operator.cancel(ids, **WHY)
    assert len(receipt.done) == 3
    assert receipt.says.count("RQ did not cancel") == 1
    assert {job.get_status() for job in jobs} == {JobStatus.CANCELED}


def test_managed_and_adopted_jobs_in_one_action(
    bench: Bench, operator: Operator, waiting: RQJob, record_job: Callable[..., int]
) -> None:
    managed, adopted = record_job(), adopt_row(bench, waiting, "queued")
    assert len(operator.cancel([managed, adopted], **WHY).done) == 2
    assert (bench.job(managed)["state"], bench.job(adopted)["state"]) == ("canceled", "queued")
    assert waiting.get_status() is JobStatus.CANCELED


def test_a_redis_that_is_away_is_said(
    bench: Bench, operator: Operator, waiting: RQJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = adopt_row(bench, waiting, "queued")
    waiting.connection.client_pause(2_000)
    try:
        receipt = operator.cancel(job_id, **WHY)
    finally:
        waiting.connection.client_unpause()
    assert "RQ was perhaps not asked: see what becomes of the job, and ask again" in receipt.says
    assert bench.job(job_id)["cancel_requested_by"] == "anna"


def test_a_place_that_the_settings_do_not_name_is_said(
    bench: Bench, operator: Operator, waiting: RQJob
) -> None:
    job_id = adopt_row(bench, waiting, "queued", rq_place="attic")
    assert operator.cancel(job_id, **WHY).says.endswith("this app knows no Redis attic")
    assert waiting.get_status() is JobStatus.QUEUED


KILLED = """
import os, signal, sys
from tests.support.host import create_app
from flask_opsjobs.actions import operator
operator.run_effects = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
app = create_app()
with app.app_context():
    ops = operator.Operator(app.extensions["opsjobs"])
    ops.cancel(int(sys.argv[1]), actor="anna", reason="because it is a test")
"""


def test_a_process_that_is_killed_before_it_asks_leaves_the_wish_and_nothing_repeats_it(
    bench: Bench, operator: Operator, waiting: RQJob, children: Children
) -> None:
    job_id = adopt_row(bench, waiting, "queued")
    child = children.python("-c", KILLED, str(job_id))
    assert child.wait(60) == -signal.SIGKILL
    assert bench.job(job_id)["cancel_requested_by"] == "anna"
    (audited,) = bench.rows("SELECT * FROM opsjobs.audit_events")
    assert (audited["action"], audited["outcome"]) == ("job.cancel", "done")
    assert waiting.get_status() is JobStatus.QUEUED
    # Whoever asks again gets it done.
    assert operator.cancel(job_id, **WHY).is_done
    assert waiting.get_status() is JobStatus.CANCELED

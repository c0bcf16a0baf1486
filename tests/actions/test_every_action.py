"""Every action on every state, read from the lifecycle:
what it changes, and that it leaves the rest alone.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from flask_opsjobs import endings
from flask_opsjobs.actions.domain import Action
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.actions.registry import actions_of
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.jobs.lifecycle import ARROWS, MANAGED_FINAL, MANAGED_STATES, WAITING
from flask_opsjobs.jobs.perform.outcomes import Outcome
from tests.actions.conftest import Reach
from tests.support.engine import Bench, take

WHY: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}
# Those that repair a fault are legal only where it is: test_rescue.py shows each state.
JOB_ACTIONS = [action for action in actions_of("job") if not action.is_repair]
# A value for each parameter of the actions on jobs.
PARAMS = {"due_at": "2999-01-01T00:00", "queue": "mail", "priority": 1, "args": None}


def _rows(bench: Bench, job_id: int) -> list[dict[str, Any]]:
    return bench.rows("SELECT * FROM opsjobs.jobs WHERE id = %s", job_id)


@pytest.mark.lane
@pytest.mark.parametrize("state", MANAGED_STATES)
@pytest.mark.parametrize("action", JOB_ACTIONS, ids=lambda action: action.short_name)
def test_each_action_on_each_state(
    bench: Bench, operator: Operator, reach: Reach, action: Action[Any], state: str
) -> None:
    job_id = reach(state)
    (before,) = _rows(bench, job_id)
    params = {param: PARAMS[param] for param in action.params}
    receipt = operator.run(action.name, [f"job/{job_id}"], **WHY, params=params)
    after = _rows(bench, job_id)
    (arrow,) = [arrow for arrow in ARROWS if arrow.name == action.short_name]
    if state not in arrow.sources:
        assert (receipt.outcome, receipt.code) == ("refused", "illegal")
        assert receipt.says.endswith(f"job {job_id}: it is {state}") or "again" in receipt.says
        assert after == [before]
    elif action.short_name == "delete":
        assert receipt.is_done
        assert after == []
    elif action.short_name == "run_again":
        assert receipt.is_done
        assert after == [before]
        new = bench.row("SELECT * FROM opsjobs.jobs WHERE run_again_from = %s", job_id)
        assert new["state"] == "available"
    elif state == "started":
        assert receipt.is_done
        assert after[0]["state"] == "started"
        assert after[0]["cancel_requested_by"] == "anna"
    else:
        assert receipt.is_done
        assert after[0]["state"] in arrow.targets
    assert (action in actions_of("job", state)) == (state in arrow.sources)


@pytest.mark.parametrize("action", JOB_ACTIONS, ids=lambda action: action.short_name)
def test_each_action_on_a_job_that_a_worker_has_taken(
    bench: Bench, operator: Operator, reach: Reach, action: Action[Any]
) -> None:
    job_id = reach("available")
    take(bench)
    (before,) = _rows(bench, job_id)
    assert (before["state"], before["reserved_by"]) == ("queued", bench.worker_id)
    params = {param: PARAMS[param] for param in action.params}
    receipt = operator.run(action.name, [f"job/{job_id}"], **WHY, params=params)
    (after,) = _rows(bench, job_id)
    (arrow,) = [arrow for arrow in ARROWS if arrow.name == action.short_name]
    if action.short_name == "cancel":
        assert receipt.is_done
        assert (after["state"], after["cancel_requested_by"]) == ("queued", "anna")
        return
    assert (receipt.outcome, receipt.code) == ("refused", "illegal")
    if "queued" in arrow.sources:
        why = "worker worker-1 has taken it and begins it at any moment"
        assert receipt.says.endswith(f"job {job_id}: {why}")
    assert after == before


def test_retry_makes_one_more_attempt_possible_and_keeps_the_history(
    bench: Bench, operator: Operator, exhausted: Callable[..., int]
) -> None:
    job_id = exhausted()
    assert bench.job(job_id)["ended_by"] == "exhausted"
    operator.retry(job_id, **WHY)
    job = bench.job(job_id)
    assert (job["attempt"], job["max_attempts"], job["state"]) == (1, 2, "available")
    assert (job["ended_at"], job["ended_by"], job["ended_reason"]) == (None, None, None)
    assert job["deadline_at"] is not None
    bench.dispatch(prefetch=10)
    bench.claim(job_id, 2)
    bench.record(job_id, 2, Outcome(kind="returned"))
    job = bench.job(job_id)
    assert (job["state"], job["attempt"]) == ("finished", 2)
    outcomes = bench.rows("SELECT outcome FROM opsjobs.attempts ORDER BY dispatch_no")
    assert [row["outcome"] for row in outcomes] == ["raised", "returned"]


def test_retry_of_one_that_backs_off_does_not_raise_the_limit(
    bench: Bench, operator: Operator, reach: Reach
) -> None:
    job_id = reach("retryable", max_attempts=3)
    receipt = operator.retry(job_id, **WHY)
    assert bench.job(job_id)["max_attempts"] == 3
    assert [change.what for change in receipt.done[0].changes] == ["state", "due"]


def test_a_deadline_that_has_passed_does_not_end_a_retried_job_again(
    bench: Bench, operator: Operator, exhausted: Callable[..., int]
) -> None:
    job_id = exhausted(deadline=timedelta(minutes=1))
    later = read_clock(bench.connection) + timedelta(hours=1)
    receipt = operator.run("job.retry", [f"job/{job_id}"], **WHY, now=later)
    (deadline,) = [change for change in receipt.done[0].changes if change.what == "deadline"]
    assert (deadline.before or "").endswith("passed")
    assert deadline.after is None
    assert endings.expire(bench.connection, later + timedelta(days=9)) == []
    assert bench.job(job_id)["state"] == "available"


def test_a_refused_delivery_does_not_count_after_a_retry(
    bench: Bench, operator: Operator, record_job: Callable[..., int]
) -> None:
    job_id = record_job()
    for number in (1, 2, 3):
        bench.dispatch(prefetch=10)
        endings.count_failed_deliveries(
            bench.connection, [(job_id, number)], read_clock(bench.connection)
        )
    assert bench.job(job_id)["ended_by"] == "undeliverable"
    operator.retry(job_id, **WHY)
    bench.dispatch(prefetch=10)
    endings.count_failed_deliveries(bench.connection, [(job_id, 4)], read_clock(bench.connection))
    assert bench.job(job_id)["state"] == "available"


@pytest.mark.parametrize(
    ("action", "state", "ended_by"),
    [("cancel", "canceled", "canceled"), ("discard", "failed", "discarded")],
)
@pytest.mark.parametrize("was", WAITING)
def test_an_end_carries_the_operators_reason(
    bench: Bench, operator: Operator, reach: Reach, action: str, state: str, ended_by: str, was: str
) -> None:
    job_id = reach(was)
    getattr(operator, action)(job_id, **WHY)
    job = bench.job(job_id)
    found = (job["state"], job["ended_by"], job["ended_reason"])
    assert found == (state, ended_by, "because it is a test")
    assert job["ended_at"] is not None


def test_what_is_stopped_carries_the_operators_reason(
    bench: Bench, operator: Operator, reach: Reach
) -> None:
    job_id = reach("started", max_attempts=5)
    operator.cancel(job_id, **WHY)
    bench.record(job_id, 1, Outcome(kind="canceled", reason="stopped while it ran"))
    job = bench.job(job_id)
    assert (job["state"], job["ended_reason"]) == ("canceled", "because it is a test")
    assert bench.attempt(job_id)["outcome"] == "canceled"


def test_what_is_lost_after_a_wish_to_stop_is_canceled_with_its_reason(
    bench: Bench, operator: Operator, reach: Reach
) -> None:
    job_id = reach("started")
    operator.cancel(job_id, **WHY)
    endings.rescue(bench.connection, [bench.worker_id], read_clock(bench.connection), "vanished")
    job = bench.job(job_id)
    assert (job["state"], job["ended_reason"]) == ("canceled", "because it is a test")


def test_a_second_wish_to_stop_is_skipped(operator: Operator, reach: Reach) -> None:
    job_id = reach("started")
    operator.cancel(job_id, **WHY)
    plan = operator.plan("job.cancel", [f"job/{job_id}"], actor="ben")
    assert [(skip.code, "anna" in skip.says) for skip in plan.skipped] == [("already", True)]


@pytest.mark.parametrize(
    ("kind", "words"),
    [("pool", "kills the child"), ("plain", "runs to its end")],
)
def test_a_plan_says_when_a_cancel_takes_effect(
    bench: Bench, operator: Operator, reach: Reach, kind: str, words: str
) -> None:
    job_id = reach("started")
    # The bench registers itself as ours; a worker of another kind would need its process.
    bench.rows("UPDATE opsjobs.workers SET kind = %s RETURNING 1", kind)
    (item,) = operator.plan("job.cancel", [f"job/{job_id}"], actor="anna").items
    assert words in (item.note or "")
    assert (item.changes[0].after == "started, as before") == (kind == "plain")


def test_run_again_copies_the_call_and_links_back(
    bench: Bench, operator: Operator, reach: Reach
) -> None:
    job_id = reach(
        "finished",
        text="hi",
        priority=2,
        tags=["a"],
        meta={"k": 1},
        timeout=9,
        max_attempts=4,
        deadline=timedelta(hours=1),
    )
    receipt = operator.run_again(job_id, **WHY)
    old = bench.job(job_id)
    new = bench.row("SELECT * FROM opsjobs.jobs WHERE run_again_from = %s", job_id)
    same = ("task", "queue", "lane", "args", "meta", "tags", "priority", "max_attempts")
    assert [new[column] for column in same] == [old[column] for column in same]
    assert (new["attempt"], new["dispatch_no"], new["deadline_at"]) == (0, 0, None)
    assert new["timeout_seconds"] == 9
    assert receipt.done[0].note == f"it runs again as job {new['id']}"
    counted = bench.row("SELECT sum(enqueued) AS enqueued FROM opsjobs.job_count_deltas")
    assert counted["enqueued"] == 2


def test_delete_takes_everything_but_the_audit(
    bench: Bench, operator: Operator, exhausted: Callable[..., int]
) -> None:
    job_id = exhausted()
    receipt = operator.delete(job_id, **WHY)
    assert bench.rows("SELECT 1 FROM opsjobs.attempts") == []
    event = bench.row("SELECT * FROM opsjobs.audit_events")
    assert event["sequence"] == receipt.audit_sequence
    assert event["before"][f"job/{job_id}"]["ended_by"] == "exhausted"
    assert event["after"] == {f"job/{job_id}": None}
    assert bench.row("SELECT sum(deleted) AS deleted FROM opsjobs.job_count_deltas")["deleted"] == 1


def test_what_was_dispatched_leaves_redis_when_it_is_canceled(
    bench: Bench, operator: Operator, reach: Reach, redis_client: Any
) -> None:
    canceled, discarded, kept = (reach("queued") for _ in range(3))
    operator.cancel(canceled, **WHY)
    operator.discard(discarded, **WHY)
    left = {key.decode().rpartition("opsjobs-")[2] for key in redis_client.keys("*opsjobs-*")}
    assert left == {f"{kept}-1"}
    # And when it had stayed there, its claim would find no row.
    assert bench.claim(canceled) != bench.claim(kept)


def test_retried_jobs_are_not_met_by_their_old_delivery(
    bench: Bench, operator: Operator, reach: Reach
) -> None:
    job_id = reach("queued")
    operator.cancel(job_id, **WHY)
    operator.retry(job_id, **WHY)
    assert "not_queued" in str(bench.claim(job_id, 1))
    bench.dispatch(prefetch=10)
    assert "dispatched_again" in str(bench.claim(job_id, 1))


def test_every_final_state_can_be_run_again_and_deleted() -> None:
    for state in MANAGED_FINAL:
        assert {"run_again", "delete"} <= {action.short_name for action in actions_of("job", state)}


def test_a_deadline_that_lies_ahead_stays_and_is_told(
    bench: Bench, operator: Operator, exhausted: Callable[..., int]
) -> None:
    job_id = exhausted(deadline=timedelta(hours=1))
    before = bench.job(job_id)["deadline_at"]
    receipt = operator.retry(job_id, **WHY)
    assert bench.job(job_id)["deadline_at"] == before
    assert (receipt.done[0].note or "").startswith("it must start before its deadline, 2")

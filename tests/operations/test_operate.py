"""The loop changes each row once, in stages, and proves a retry by the next attempts."""

from __future__ import annotations

import hashlib
import threading
from datetime import timedelta
from typing import Any

import pytest

from flask_opsjobs import ActionRefused, JobFilter, OpsJobs
from flask_opsjobs.core import db
from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.errors import EngineUnavailable
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.jobs.record.task import Task
from flask_opsjobs.loops import advance
from flask_opsjobs.loops import operate as operate_loop
from flask_opsjobs.loops.loop import Runner
from flask_opsjobs.operations import transitions
from flask_opsjobs.operations.actions import _WHY_NOT_UNDONE as WHY_NOT
from flask_opsjobs.operations.actions import UNDONE_BY
from flask_opsjobs.operations.operator import OPERABLE
from flask_opsjobs.workers import transitions as workers
from tests.operations.conftest import (
    FAILED,
    OTHER,
    RETURNED,
    SAME,
    WHY,
    Operations,
    counts_of,
    failure,
)
from tests.support.engine import Bench, tasks_of
from tests.support.policies import AllowAll
from tests.support.waiting import wait_until

WAITING = JobFilter(queue="default")


@pytest.mark.parametrize(
    ("action", "state"), [("job.cancel", "canceled"), ("job.discard", "failed")]
)
def test_a_cancel_or_discard_ends_all(operations: Operations, action: str, state: str) -> None:
    ids = operations.enqueue(250)
    operations.operator.start(action, WAITING, **WHY)
    operation = operations.run()
    assert operation["state"] == "finished"
    assert counts_of(operation) == {"done": 250}
    assert operations.states(ids) == {state}
    reasons = operations.bench.rows("SELECT DISTINCT ended_reason FROM opsjobs.jobs")
    assert reasons == [{"ended_reason": WHY["reason"]}]
    stages = ["operation.stage"] * 4
    assert operations.audited() == ["operation.start", *stages, "operation.finish"]


def test_a_delete_deletes_and_keeps_the_receipts(operations: Operations) -> None:
    operations.fail(30)
    operations.operator.start("job.delete", FAILED, **WHY)
    assert counts_of(operations.run()) == {"done": 30}
    assert operations.bench.rows("SELECT 1 FROM opsjobs.jobs") == []
    assert len(operations.receipts()) == 30


@pytest.mark.slow
def test_a_retry_goes_in_stages_that_the_next_attempts_prove(operations: Operations) -> None:
    ids = operations.fail(130)
    operations.operator.start("job.retry", FAILED, **WHY)
    operations.pass_all()
    assert operations.perform(RETURNED) == ids[:1]
    seen = []
    for _ in range(100):
        operations.pass_all()
        seen.append(len(operations.perform(RETURNED)))
    # One prefetch at a time: two, since one worker with one child listens.
    assert max(seen) == 2
    operation = operations.operation()
    assert (operation["state"], operation["stage"]) == ("finished", 4)
    assert counts_of(operation) == {"proven": 130}
    assert operations.states(ids) == {"finished"}
    attempts = operations.bench.row("SELECT count(*) AS n FROM opsjobs.attempts")
    assert attempts["n"] == 260


def test_the_stage_waits_for_its_proof(operations: Operations) -> None:
    operations.fail(20)
    operations.operator.start("job.retry", FAILED, **WHY)
    for _ in range(3):
        operations.pass_all()
    assert counts_of(operations.operation()) == {"done": 1}
    assert operations.perform(RETURNED)
    operations.pass_all()
    assert counts_of(operations.operation()) == {"proven": 1, "done": 2}
    assert operations.operation()["stage"] == 2


@pytest.mark.parametrize(("good", "spent"), [(0, 1), (1, 3), (11, 13)])
def test_it_stops_when_the_same_failure_comes_back(
    operations: Operations, good: int, spent: int
) -> None:
    """In stage 1 at the first one, in stage 2 at two; then at a tenth of the last ones."""
    operations.fail(150)
    operations.operator.start("job.retry", FAILED, **WHY)
    proven = 0
    for _ in range(10):
        operations.pass_all()
        if proven < good:
            proven += len(operations.perform(RETURNED))
        else:
            operations.perform(failure())
    operation = operations.operation()
    assert (operation["state"], operation["code"]) == ("stopped", "same_failure")
    assert operation["proven"] + operation["failed_same_error"] <= spent + 1
    assert operation["proven"] >= good
    assert operation["targets"] - sum(counts_of(operation).values()) > 100
    assert operations.audited()[-1] == "operation.stop"


def test_another_failure_does_not_stop_it(operations: Operations) -> None:
    operations.fail(20)
    operations.operator.start("job.retry", FAILED, **WHY)
    operation = operations.run(failure(OTHER))
    assert operation["state"] == "finished"
    assert counts_of(operation) == {"failed_other_error": 20}


def test_after_the_fix_it_is_resumed_and_begins_with_one(operations: Operations) -> None:
    operations.fail(15)
    started = operations.operator.start("job.retry", FAILED, **WHY)
    assert started.id is not None
    assert operations.run(failure())["state"] == "stopped"
    assert operations.operator.resume_operation(started.id, **WHY).is_done
    operations.pass_all()
    operation = operations.operation()
    assert (operation["stage"], operation["begun_after"]) == (1, 1)
    assert counts_of(operation) == {"failed_same_error": 1, "done": 1}
    operation = operations.run(RETURNED)
    assert operation["state"] == "finished"
    assert counts_of(operation) == {"failed_same_error": 1, "proven": 14}


def test_a_job_that_has_no_further_attempt_proves_nothing(operations: Operations) -> None:
    (job,) = operations.fail(1)
    operations.operator.start("job.retry", FAILED, **WHY)
    operations.pass_all()
    operations.operator.cancel(job, **WHY)
    operation = operations.run()
    assert (operation["state"], counts_of(operation)) == ("finished", {"unproven": 1})


def test_what_changed_since_is_skipped_with_its_reason(operations: Operations) -> None:
    ids = operations.fail(5)
    started = operations.operator.start("job.retry", FAILED, **WHY)
    again, gone, waits = ids[1:4]
    # Somebody retries one, and it fails once more; deletes one; retries one that waits.
    operations.operator.retry(again, **WHY)
    operations.perform(failure())
    operations.operator.delete(gone, **WHY)
    operations.operator.retry(waits, **WHY)
    operation = operations.run(RETURNED)
    assert operation["state"] == "finished"
    rows = {row["job_id"]: row for row in operations.receipts(started.id)}
    assert [rows[id]["result"] for id in ids] == ["proven", *["skipped"] * 3, "proven"]
    codes = [rows[id]["code"] for id in (again, gone, waits)]
    assert codes == ["changed", "not_found", "illegal"]
    assert rows[again]["says"] == (
        "it was failed after 1 attempts when it was frozen, and is failed after 2"
    )
    assert counts_of(operation) == {"proven": 2, "skipped": 3, "drifted": 3}


def test_it_stops_when_too_many_have_changed(operations: Operations) -> None:
    ids = operations.fail(40)
    operations.operator.start("job.delete", FAILED, **WHY)
    operations.operator.delete(ids[5:25], **WHY)
    operation = operations.run()
    assert (operation["state"], operation["code"]) == ("stopped", "drifted")
    assert operations.states(ids) == {"failed"}
    assert "of 11 jobs had changed" in operation["says"]


def test_a_job_that_moved_among_waiting_states_is_not_drift(operations: Operations) -> None:
    ids = operations.enqueue(6)
    operations.operator.start("job.cancel", WAITING, **WHY)
    operations.bench.dispatch(prefetch=3)
    assert counts_of(operations.run()) == {"done": 6}
    assert operations.states(ids) == {"canceled"}


class Changing(AllowAll):
    """A policy whose answers a test changes."""

    def __init__(self) -> None:
        self.denied: set[str] = set()
        self.denied_subjects: set[str] = set()
        self.bound: Any = None
        self.asked: list[tuple[str, str, str | None]] = []

    def can(self, actor: str, permission: str, subject: str | None = None) -> bool:
        self.asked.append((actor, permission, subject))
        if "raise" in self.denied:
            raise RuntimeError("the directory is away")
        return permission not in self.denied and subject not in self.denied_subjects

    def most_targets(self, actor: str, permission: str) -> Any:
        if isinstance(self.bound, Exception):
            raise self.bound
        return self.bound


@pytest.fixture
def policy(operations: Operations) -> Changing:
    policy = Changing()
    operations.bench.host.access = policy
    return policy


def test_the_policy_is_asked_for_each_row_with_the_name_of_who_started_it(
    operations: Operations, policy: Changing
) -> None:
    ids = operations.enqueue(12)
    policy.denied_subjects = {f"job/{ids[3]}"}
    operations.operator.start("job.cancel", WAITING, **WHY)
    policy.asked.clear()
    operations.run()
    rows = [asked for asked in policy.asked if asked[2] is not None]
    assert rows == [("anna", "job.cancel", f"job/{id}") for id in ids]
    assert operations.receipts()[3]["code"] == "unauthorized"
    assert counts_of(operations.operation()) == {"done": 11, "skipped": 1}


@pytest.mark.parametrize("how", ["job.cancel", "raise"])
def test_without_the_permission_it_stops(
    operations: Operations, policy: Changing, how: str
) -> None:
    ids = operations.enqueue(30)
    operations.operator.start("job.cancel", WAITING, **WHY)
    operations.pass_once()
    policy.denied = {how}
    operation = operations.run()
    assert (operation["state"], operation["code"]) == ("stopped", "unauthorized")
    assert counts_of(operation) == {"done": 1}
    assert operations.states(ids) == {"canceled", "available"}


def test_one_from_a_shell_asks_no_policy(operations: Operations, policy: Changing) -> None:
    operations.enqueue(3)
    policy.denied = {"raise"}
    policy.bound = 0
    operations.operator.start("job.cancel", WAITING, **WHY, authorize=False)
    assert operations.run()["state"] == "finished"


@pytest.mark.parametrize("bound", [0, 11, "ten", RuntimeError("no"), True, -1], ids=str)
def test_a_bound_of_the_policy_pauses_it_until_it_is_gone(
    operations: Operations, policy: Changing, bound: Any
) -> None:
    operations.enqueue(12)
    operations.operator.start("job.cancel", WAITING, **WHY)
    operations.pass_once()
    policy.bound = bound
    operation = operations.run()
    assert (operation["state"], operation["code"]) == ("paused", "most_targets")
    policy.bound = 12
    operations.pass_once()
    assert operations.run()["state"] == "finished"
    assert operations.audited()[1:3] == ["operation.pause", "operation.resume"]


def test_a_bound_is_told_by_the_draft_and_refuses_the_start(
    operations: Operations, policy: Changing
) -> None:
    operations.enqueue(12)
    policy.bound = 11
    draft = operations.operator.draft("job.cancel", WAITING, actor="anna")
    assert draft.bound == "anna may do job.cancel to 11 at once, not to 12"
    with pytest.raises(ActionRefused, match="11 at once, not to 12"):
        operations.operator.start_draft(draft.id or 0, **WHY)
    policy.bound = 20
    assert operations.operator.start_draft(draft.id or 0, **WHY).is_done
    with pytest.raises(ActionRefused, match="20 at once, not to 12, and 12 of running"):
        operations.operator.start("job.cancel", WAITING, **WHY)


def test_a_bound_holds_for_a_plan_of_chosen_targets_too(
    operations: Operations, policy: Changing
) -> None:
    ids = operations.enqueue(3)
    policy.bound = 2
    with pytest.raises(ActionRefused, match=r"may do job\.cancel to 2 at once, not to 3"):
        operations.operator.cancel(ids, **WHY)
    plan = operations.operator.plan("job.cancel", [f"job/{id}" for id in ids], actor="anna")
    assert {skip.code for skip in plan.skipped} == {"most_targets"}
    assert operations.operator.cancel(ids[:2], **WHY).is_done
    policy.bound = 0
    with pytest.raises(ActionRefused, match=r"job\.cancel is frozen now for anna"):
        operations.operator.cancel(ids[2], **WHY)
    assert operations.operator.cancel(ids[2], **WHY, authorize=False).is_done


def test_a_paused_queue_pauses_a_retry_until_it_is_resumed(operations: Operations) -> None:
    operations.fail(3)
    operations.operator.start("job.retry", FAILED, **WHY)
    operations.operator.pause("default", **WHY)
    operation = operations.run()
    assert (operation["state"], operation["code"]) == ("paused", "queue_paused")
    assert operation["says"] == "the queue default is paused"
    operations.pass_all()
    assert operations.audited().count("operation.pause") == 1
    operations.operator.resume("default", **WHY)
    operations.pass_all()
    assert counts_of(operations.operation()) == {"done": 1}


def test_without_a_live_worker_a_retry_waits(operations: Operations) -> None:
    operations.fail(3)
    operations.is_silent = True
    operations.operator.start("job.retry", FAILED, **WHY)
    operations.later(timedelta(minutes=1))
    assert operations.run()["code"] == "queue_unserved"
    operations.is_silent = False
    operations.pass_all()
    assert operations.operation()["state"] == "running"


def test_a_stage_that_is_not_proven_pauses_for_good(operations: Operations) -> None:
    operations.fail(3)
    started = operations.operator.start("job.retry", FAILED, **WHY)
    operations.pass_all()
    operations.later(timedelta(minutes=11))
    operation = operations.run()
    assert (operation["state"], operation["code"]) == ("paused", "unproven")
    operations.pass_all()
    assert operations.operation()["state"] == "paused"
    operations.operator.resume_operation(started.id or 0, **WHY)
    operations.pass_all()
    assert operations.operation()["stage"] == 2


def test_a_task_that_is_renamed_under_way_pauses_it_until_the_name_is_back(
    operations: Operations,
) -> None:
    """No worker has the old name: each hands its jobs back, and nothing of them is lost."""
    ids = operations.fail(15)
    started = operations.operator.start("job.retry", FAILED, **WHY)
    operations.pass_all()
    assert len(operations.perform(RETURNED)) == 1
    operations.pass_all()
    tasks = tasks_of(operations.bench.host)
    renamed = tasks.pop("note")
    handed_back = Outcome("not_run", "no task 'note' is declared here", ended_by="unknown_task")
    # A prefetch at a time: what was handed back is due later, and makes room for the next.
    for _ in range(10):
        operations.pass_all()
        operations.perform(handed_back)
    assert counts_of(operations.operation()) == {"done": 10, "proven": 1}
    operations.later(timedelta(minutes=11))
    operations.pass_all()
    operation = operations.operation()
    assert (operation["state"], operation["code"]) == ("paused", "unproven")
    assert operation["says"] == "10 jobs of stage 2 did not end within 10 minutes"
    tasks["note"] = renamed
    # As the dispatch loop does once they are due again.
    operations.bench.rows(
        "UPDATE opsjobs.jobs SET state = 'available', due_at = now() WHERE state = 'scheduled' RETURNING id"
    )
    assert len(operations.perform(RETURNED)) == 10
    operations.pass_all()
    assert counts_of(operations.operation()) == {"proven": 11}
    operations.operator.resume_operation(started.id or 0, **WHY)
    assert operations.run(RETURNED)["state"] == "finished"
    assert counts_of(operations.operation()) == {"proven": 15}
    assert operations.states(ids) == {"finished"}


def test_more_open_operations_than_one_pass_has_turns_for_get_one_each(
    operations: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operate_loop, "_MOST", 2)
    started = []
    for queue in ("a", "b", "c", "d", "e"):
        operations.enqueue(3, queue=queue)
        jobs = JobFilter(queue=queue)
        started.append(operations.operator.start("job.cancel", jobs, **WHY).id)

    def done() -> list[int]:
        return [operations.operation(id)["done"] for id in started]

    assert operations.pass_once(), "the others follow at once"
    assert done() == [1, 1, 0, 0, 0]
    operations.pass_once()
    operations.pass_once()
    assert done() == [1] * 5
    operations.pass_all()
    assert done() == [3] * 5


@pytest.mark.slow
def test_a_hundred_paused_operations_do_not_keep_the_next_one_from_its_turns(
    operations: Operations,
) -> None:
    (job,) = operations.enqueue(1)
    for _ in range(100):
        operations.operator.start("job.cancel", JobFilter(id=job), **WHY)
    paused = [f"operation/{id}" for id in range(1, 101)]
    assert operations.operator.run("operation.pause", paused, **WHY).is_done
    last = operations.operator.start("job.cancel", JobFilter(id=job), **WHY)
    operations.pass_all()
    assert last.id == 101
    assert operations.operation(101)["state"] == "finished"
    assert operations.states([job]) == {"canceled"}


def test_an_operator_pauses_resumes_and_cancels(operations: Operations) -> None:
    operations.enqueue(30)
    started = operations.operator.start("job.cancel", WAITING, **WHY)
    assert started.id is not None
    operations.pass_once()
    operations.operator.pause_operation(started.id, **WHY)
    operations.pass_all()
    assert counts_of(operations.operation()) == {"done": 1}
    assert operations.operation()["says"] == f"anna paused it: {WHY['reason']}"
    operations.operator.resume_operation(started.id, **WHY)
    operations.pass_once()
    operations.operator.cancel_operation(started.id, **WHY)
    operations.pass_all()
    operation = operations.operation()
    assert operation["state"] == "canceled"
    assert operation["done"] < 30
    with pytest.raises(ActionRefused, match="it is canceled"):
        operations.operator.resume_operation(started.id, **WHY)


def test_a_rate_bounds_the_rows_of_a_second(operations: Operations) -> None:
    operations.enqueue(60)
    operations.operator.start("job.cancel", WAITING, rate=10, **WHY)
    at = operations.now
    for tenth in range(31):
        while operations.pass_once(at + timedelta(seconds=tenth / 10)):
            pass
    assert 30 <= operations.operation()["done"] <= 32


@pytest.mark.parametrize("action", ["job.cancel", "job.discard"])
def test_an_undo_retries_what_was_ended(operations: Operations, action: str) -> None:
    ids = operations.enqueue(15)
    started = operations.operator.start(action, WAITING, **WHY)
    operations.run()
    receipt = operations.operator.undo_operation(started.id or 0, **WHY)
    assert receipt.done[0].note == "operation 2 undoes it: job.retry of 15 jobs"
    operation = operations.run(RETURNED)
    assert (operation["action"], operation["undo_of"]) == ("job.retry", started.id)
    assert operation["state"] == "finished"
    assert operations.states(ids) == {"finished"}


def test_an_undo_of_a_retry_cancels_what_still_waits(operations: Operations) -> None:
    ids = operations.fail(15)
    started = operations.operator.start("job.retry", FAILED, **WHY)
    operations.pass_all()
    operations.perform(RETURNED)
    operations.pass_all()
    operations.operator.cancel_operation(started.id or 0, **WHY)
    waiting = [row["job_id"] for row in operations.receipts() if row["result"] == "done"]
    assert len(waiting) == 2
    operations.operator.undo_operation(started.id or 0, **WHY)
    assert counts_of(operations.run()) == {"done": 2}
    assert operations.states(waiting) == {"canceled"}
    assert operations.states(ids[:1]) == {"finished"}


@pytest.mark.parametrize("action", sorted(OPERABLE))
def test_each_action_is_undone_or_says_why_not(operations: Operations, action: str) -> None:
    """The undo is an operation with the action that takes the other one back."""
    ids = operations.enqueue(1)
    started = operations.operator.start("job.cancel", WAITING, **WHY)
    operations.run()
    if action == "job.retry":
        operations.operator.retry(ids, **WHY)
    operations.bench.rows("UPDATE opsjobs.operations SET action = %s RETURNING 1", action)
    undo = lambda: operations.operator.undo_operation(started.id or 0, **WHY)  # noqa: E731
    if action in UNDONE_BY:
        assert undo().is_done
        assert operations.operation()["action"] == UNDONE_BY[action]
    else:
        with pytest.raises(ActionRefused, match=f"{action} cannot be undone: {WHY_NOT[action]}"):
            undo()


@pytest.mark.parametrize("action", sorted(UNDONE_BY))
def test_an_undo_is_undone_as_every_operation_is(operations: Operations, action: str) -> None:
    """Of each retry one job is proven and two wait, as far as it has so many; the rest of it is canceled."""
    is_retry = action == "job.retry"
    ids = operations.fail(4) if is_retry else operations.enqueue(4)
    operations.operator.start(action, FAILED if is_retry else WAITING, **WHY)
    seen = []
    for id in (1, 2, 3):
        operation = operations.operation()
        if operation["action"] == "job.retry":
            operations.pass_all()
            operations.perform(RETURNED)
            operations.pass_all()
            operations.operator.cancel_operation(id, **WHY)
        else:
            operations.run()
        seen.append((operation["action"], operation["undo_of"], operation["targets"]))
        operations.operator.undo_operation(id, **WHY)
        with pytest.raises(ActionRefused, match=f"operation {id + 1} undoes it already"):
            operations.operator.undo_operation(id, **WHY)
    back = UNDONE_BY[action]
    assert seen == [
        (action, None, 4),
        (back, 1, 2 if is_retry else 4),
        (UNDONE_BY[back], 2, 2),
    ]
    states = [operations.bench.job(id)["state"] for id in ids]
    ended = {"job.cancel": "canceled", "job.discard": "failed"}
    assert states == (
        ["finished", "finished", "available", "failed"]
        if is_retry
        else ["finished", "canceled", "canceled", ended[action]]
    )


def test_what_is_gone_cannot_be_undone(operations: Operations) -> None:
    operations.fail(1)
    started = operations.operator.start("job.delete", FAILED, **WHY)
    operations.run()
    with pytest.raises(ActionRefused, match="what was deleted is gone"):
        operations.operator.undo_operation(started.id or 0, **WHY)


def test_run_again_names_the_new_jobs_and_proves_them(operations: Operations) -> None:
    operations.fail(3)
    operations.operator.start("job.run_again", FAILED, **WHY)
    operation = operations.run(RETURNED)
    assert counts_of(operation) == {"proven": 3}
    for row in operations.receipts():
        new = operations.bench.job(row["new_job_id"])
        assert (new["run_again_from"], new["state"]) == (row["job_id"], "finished")


def test_a_rescue_takes_jobs_from_a_missing_worker(operations: Operations) -> None:
    ids = operations.enqueue(3, max_attempts=5)
    operations.bench.dispatch(prefetch=10)
    for id in ids:
        operations.bench.claim(id)
    workers.stop(operations.bench.connection, operations.bench.worker_id, operations.now)
    operations.later(timedelta(minutes=10))
    operations.operator.start("job.rescue", JobFilter(state="started"), **WHY)
    # Nobody else listens: it waits for a live worker.
    assert operations.run()["code"] == "queue_unserved"
    Bench(operations.bench.host, "another").close()
    operations.pass_all()
    assert counts_of(operations.operation()) == {"done": 1}
    assert operations.states(ids[:1]) == {"available"}


def test_the_audit_has_few_rows_and_the_hash_of_the_receipts(
    operations: Operations, host: Any
) -> None:
    operations.enqueue(300)
    started = operations.operator.start("job.discard", WAITING, **WHY)
    operations.run()
    assert len(operations.audited()) == 6
    stages = operations.bench.rows(
        "SELECT after FROM opsjobs.audit_events WHERE action = 'operation.stage' ORDER BY sequence"
    )
    assert [row["after"]["rows"] for row in stages] == [[1, 1], [2, 11], [12, 111], [112, 300]]
    for row in stages:
        low, high = row["after"]["rows"]
        lines = "\n".join(
            f"{each['number']} {each['job_id']} {each['result']}"
            for each in operations.receipts()
            if low <= each["number"] <= high
        )
        assert row["after"]["hash"] == hashlib.sha256(lines.encode()).hexdigest()
        found = transitions.hash_receipts(
            operations.bench.connection, started.id or 0, low - 1, high
        )
        assert found["hash"] == row["after"]["hash"]
        assert found["done"] == high - low + 1


def test_a_failure_of_one_operation_does_not_keep_another_from_its_turn(
    operations: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = operations.enqueue(2)
    for id in ids:
        operations.operator.start("job.cancel", JobFilter(id=id), **WHY)
    real = transitions.lock_open

    def break_first(connection: Any, operation: int) -> Any:
        if operation == 1:
            raise ValueError("broken on purpose")
        return real(connection, operation)

    monkeypatch.setattr(transitions, "lock_open", break_first)
    operations.pass_all()
    assert operations.bench.job(ids[0])["state"] == "available"
    assert operations.bench.job(ids[1])["state"] == "canceled"


def test_a_locked_job_is_waited_for_and_nothing_is_lost(operations: Operations) -> None:
    ids = operations.enqueue(2)
    operations.operator.start("job.cancel", WAITING, **WHY)
    holder = connect_apart(operations.bench.host.engine)
    with holder.transaction():
        holder.execute("SELECT 1 FROM opsjobs.jobs WHERE id = %s FOR UPDATE", [ids[0]])
        operations.pass_once()
        assert counts_of(operations.operation()) == {}
    holder.close()
    assert operations.run()["state"] == "finished"


def test_two_operations_over_the_same_jobs(operations: Operations) -> None:
    ids = operations.enqueue(30)
    for _ in range(2):
        operations.operator.start("job.cancel", WAITING, **WHY)
    operations.pass_all()
    first, second = (operations.operation(id) for id in (1, 2))
    done = [
        row["job_id"] for id in (1, 2) for row in operations.receipts(id) if row["result"] == "done"
    ]
    assert len(done) == len(set(done))
    assert first["done"] + second["done"] == len(done)
    assert operations.states(done) == {"canceled"}
    assert {*done} <= {*ids}


def test_a_step_is_retried_with_its_workflow(
    operations: Operations, opsjobs: OpsJobs, note: Task, db: Any
) -> None:
    flow = opsjobs.workflow("letters")
    first = flow.step("first", note, text="1")
    flow.step("second", note, text="2", after=first)
    run = flow.start()
    db.session.commit()
    advancing = Runner(advance.LOOP, operations.bench.host, "one")

    def advance_all() -> None:
        while advancing.run_once(operations.bench.connection):
            pass

    advance_all()
    operations.perform(Outcome(kind="discarded", reason="hopeless", failure_key=SAME.hex()))
    advance_all()
    state = "SELECT state FROM opsjobs.workflows WHERE id = %s"
    assert operations.bench.row(state, run.id)["state"] == "failed"
    operations.operator.start("job.retry", JobFilter(workflow=run.id, state="failed"), **WHY)
    operations.pass_all()
    assert operations.bench.row(state, run.id)["state"] == "running"

    def is_finished() -> bool:
        operations.perform(RETURNED)
        advance_all()
        return bool(operations.bench.row(state, run.id)["state"] == "finished")

    wait_until(is_finished)
    assert counts_of(operations.run()) == {"proven": 1}


def test_steps_that_failed_or_were_canceled_are_skipped(
    operations: Operations, opsjobs: OpsJobs, note: Task, db: Any
) -> None:
    """The failed first steps of three runs. What they doomed goes on; a job that is no step is skipped."""
    runs = []
    for _ in range(3):
        flow = opsjobs.workflow("letters")
        first = flow.step("first", note, text="1")
        flow.step("second", note, text="2", after=first)
        runs.append(flow.start().id)
    alone = note.enqueue(text="alone").id
    db.session.commit()
    advancing = Runner(advance.LOOP, operations.bench.host, "one")

    def states(name: str) -> set[str]:
        while advancing.run_once(operations.bench.connection):
            pass
        rows = operations.bench.rows(
            """SELECT j.state FROM opsjobs.steps s JOIN opsjobs.jobs j ON j.id = s.job_id
               WHERE s.name = %s""",
            name,
        )
        return {row["state"] for row in rows}

    assert states("first") == {"available"}
    operations.perform(Outcome(kind="discarded", reason="hopeless", failure_key=SAME.hex()))
    assert (states("first"), states("second")) == ({"failed"}, {"canceled"})
    draft = operations.operator.start("job.skip", FAILED, **WHY)
    assert draft.targets == 4
    assert counts_of(operations.run()) == {"done": 3, "skipped": 1}
    (refused,) = [row for row in operations.receipts() if row["result"] == "skipped"]
    assert (refused["job_id"], refused["code"]) == (alone, "illegal")
    assert refused["says"] == f"cannot skip job {alone}: it is no step of a workflow"
    assert (states("first"), states("second")) == ({"finished"}, {"available"})
    with pytest.raises(ActionRefused, match="what waited for the steps has gone on"):
        operations.operator.undo_operation(draft.id or 0, **WHY)
    operations.perform(RETURNED)
    assert states("second") == {"finished"}
    ended = operations.bench.rows("SELECT state FROM opsjobs.workflows WHERE id = ANY(%s)", runs)
    assert {row["state"] for row in ended} == {"finished"}


class Hanging(Changing):
    """A policy that hangs on one subject until it is let go."""

    def __init__(self, subject: str) -> None:
        super().__init__()
        self.subject = subject
        self.hangs = threading.Event()
        self.let_go = threading.Event()

    def can(self, actor: str, permission: str, subject: str | None = None) -> bool:
        if subject == self.subject:
            self.hangs.set()
            self.let_go.wait(60)
        return super().can(actor, permission, subject)


def test_a_policy_that_hangs_holds_up_no_other_operation_and_keeps_no_lock(
    operations: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operate_loop, "_LONGEST_TURN_SECONDS", 1.0)
    monkeypatch.setattr(db, "_END_IF_FROZEN", db._END_IF_FROZEN.replace("10s", "2s"))
    held, free = operations.enqueue(2), operations.enqueue(2, queue="mail")
    operations.operator.start("job.cancel", WAITING, **WHY)
    operations.operator.start("job.cancel", JobFilter(queue="mail"), **WHY)
    policy = Hanging(f"job/{held[0]}")
    operations.bench.host.access = policy
    wait_until(
        lambda: operations.pass_once() is None or operations.states(free) == {"canceled"}, 20
    )
    assert policy.hangs.is_set()
    passes = operations.bench.row("SELECT * FROM opsjobs.loop_runs ORDER BY id DESC LIMIT 1")
    assert passes["error"] == "operation 1 waits: its turn takes over 1 s"
    # Nobody waits for the policy: neither for the job, nor to cancel the operation.
    assert operations.bench.job(held[0])["state"] == "available"
    wait_until(lambda: cancels(operations), 20)
    policy.let_go.set()
    operations.pass_all()
    assert operations.operation(1)["state"] == "canceled"
    assert operations.operation(2)["state"] == "finished"
    assert operations.states(held) == {"available"}


def cancels(operations: Operations) -> bool:
    try:
        return operations.operator.cancel_operation(1, **WHY).is_done
    except EngineUnavailable:
        return False


def test_after_a_policy_that_was_slow_its_operation_goes_on(
    operations: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres has ended the session in the middle: nothing was changed, and the next turn does it."""
    monkeypatch.setattr(operate_loop, "_LONGEST_TURN_SECONDS", 0.2)
    monkeypatch.setattr(db, "_END_IF_FROZEN", db._END_IF_FROZEN.replace("10s", "2s"))
    ids = operations.enqueue(12)
    operations.operator.start("job.cancel", WAITING, **WHY)
    policy = Hanging(f"job/{ids[5]}")
    operations.bench.host.access = policy
    wait_until(lambda: operations.pass_once() is None or policy.hangs.is_set(), 20)
    ended = (
        "SELECT count(*) = 0 AS yes FROM pg_stat_activity WHERE datname = current_database()"
        " AND state LIKE 'idle in transaction%%'"
    )
    wait_until(lambda: operations.bench.row(ended)["yes"], 20)
    policy.let_go.set()
    wait_until(
        lambda: operations.pass_once() is None or operations.operation()["state"] == "finished", 20
    )
    assert operations.states(ids) == {"canceled"}
    assert counts_of(operations.operation()) == {"done": 12}


def test_a_policy_that_changes_its_answer_in_the_middle_of_a_chunk(
    operations: Operations, policy: Changing
) -> None:
    """What was allowed when its turn came is done; the others say why; then the operation stops."""
    ids = operations.enqueue(111 + 40)
    operations.operator.start("job.cancel", WAITING, **WHY)
    changes = f"job/{ids[130]}"
    plain = policy.can

    def can(actor: str, permission: str, subject: str | None = None) -> bool:
        if subject == changes:
            policy.denied = {"job.cancel"}
        return plain(actor, permission, subject)

    policy.can = can  # type: ignore[method-assign]
    operation = operations.run()
    assert (operation["state"], operation["done"], operation["skipped"]) == ("stopped", 130, 21)
    rows = operations.receipts()
    assert {row["code"] for row in rows[130:]} == {"unauthorized"}
    assert operations.states(ids[:130]) == {"canceled"}
    assert operations.states(ids[130:]) == {"available"}

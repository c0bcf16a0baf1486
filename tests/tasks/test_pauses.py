"""What operators decide about tasks: each action in each state, what goes on, and what waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flask_opsjobs import Limit, OpsJobs
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.actions.registry import ACTIONS, actions_of
from flask_opsjobs.engine.worker.claim import LimitedLane, claim_next
from flask_opsjobs.engine.worker.runtime import declare_limiters
from flask_opsjobs.errors import ActionRefused
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.record.task import Task
from flask_opsjobs.loops.loop import Runner
from flask_opsjobs.loops.recall import LOOP
from flask_opsjobs.tasks.lifecycle import ARROWS, STATES
from tests.conftest import MakeBench
from tests.support.engine import Bench, race, take
from tests.support.policies import AllowAll

WHY: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}
RecordJob = Callable[..., int]
# Due before all others, and not one of them of another task.
MANY = """
INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, created_at, due_at,
    limiter, partition, weight)
SELECT 'note', 'default', %s, 'available', '{}', 1, now(), now() - interval '1 day', %s, %s, %s
FROM generate_series(1, 10000) RETURNING 1
"""


@pytest.fixture
def operator(host: Host) -> Operator:
    return Operator(host)


@pytest.fixture
def other(opsjobs: OpsJobs) -> Task:
    """A second task of the same queue."""

    def other(text: str = "") -> None:
        """Does nothing."""

    return opsjobs.task(other)


def state(bench: Bench) -> str:
    return "paused" if bench.rows("SELECT 1 FROM opsjobs.task_pauses") else "open"


def count(bench: Bench, state: str) -> int:
    found: int = bench.row("SELECT count(*) AS n FROM opsjobs.jobs WHERE state = %s", state)["n"]
    return found


def in_redis(redis_client: Any) -> int:
    return len([key for key in redis_client.keys("*") if b"opsjobs-" in key])


@pytest.mark.parametrize("was", STATES)
@pytest.mark.parametrize("arrow", ARROWS, ids=lambda arrow: arrow.name)
def test_each_action_in_each_state(
    bench: Bench, operator: Operator, note: Task, arrow: Any, was: str
) -> None:
    if was == "paused":
        operator.pause_task("note", **WHY)
    before = bench.rows("SELECT * FROM opsjobs.task_pauses")
    receipt = operator.run(f"task.{arrow.name}", ["task/note"], actor="ben", reason=WHY["reason"])
    if was in arrow.sources:
        assert receipt.is_done
        assert (state(bench),) == arrow.targets
    else:
        assert (receipt.outcome, receipt.code) == ("refused", "illegal")
        assert bench.rows("SELECT * FROM opsjobs.task_pauses") == before
        by = ", by anna" if was == "paused" else ""
        assert receipt.says == f"task note is {was} already{by}"
    assert (ACTIONS[f"task.{arrow.name}"] in actions_of("task", was)) == (was in arrow.sources)


def test_who_paused_it_and_why_is_audited(bench: Bench, operator: Operator, note: Task) -> None:
    operator.pause_task("note", **WHY)
    row = bench.row("SELECT * FROM opsjobs.task_pauses")
    assert (row["paused_by"], row["paused_reason"]) == ("anna", "because it is a test")
    event = bench.row("SELECT * FROM opsjobs.audit_events")
    assert (event["subject"], event["permission"]) == ("task/note", "task.pause")
    assert event["before"]["task/note"]["state"] == "open"
    assert event["after"]["task/note"]["state"] == "paused"


def test_a_task_that_nothing_names_is_not_found(bench: Bench, operator: Operator) -> None:
    receipt = operator.run("task.pause", ["task/nobody"], **WHY)
    assert receipt.code == "unknown_target"
    assert state(bench) == "open"


def test_a_task_that_the_code_no_longer_declares_is_known_by_its_jobs(
    operator: Operator, opsjobs: OpsJobs, record_job: RecordJob
) -> None:
    record_job()
    opsjobs.tasks.pop("note")
    assert operator.pause_task("note", **WHY).is_done
    assert operator.resume_task("note", **WHY).is_done


def test_its_jobs_wait_and_others_of_the_queue_go_on(
    bench: Bench, operator: Operator, record_job: RecordJob, other: Task, redis_client: Any
) -> None:
    running, waiting = record_job(), record_job()
    bench.dispatch(prefetch=9)
    bench.claim(running)
    operator.pause_task("note", **WHY)
    # Recalled; what runs, runs on.
    assert [bench.job(id)["state"] for id in (running, waiting)] == ["started", "available"]
    assert in_redis(redis_client) == 1
    later, passing = record_job(), record_job(task=other)
    assert bench.job(later)["state"] == "available"
    assert bench.dispatch(prefetch=9) == 1
    assert bench.job(passing)["state"] == "queued"
    assert (bench.dispatch_all(), take(bench)) == (0, [])
    operator.resume_task("note", **WHY)
    assert {id for id, _ in take(bench)} == {waiting, later}


def test_ten_thousand_of_its_jobs_hide_no_job_behind_them(
    bench: Bench, operator: Operator, note: Task, record_job: RecordJob, other: Task
) -> None:
    operator.pause_task("note", **WHY)
    bench.rows(MANY, "default", None, None, None)
    taken, dispatched = record_job(task=other), record_job(task=other)
    assert take(bench, 1) == [(taken, 1)]
    assert bench.dispatch_all() == 1
    assert bench.job(dispatched)["state"] == "queued"


def test_nor_in_a_lane_of_a_limiter_that_they_share(
    bench: Bench, operator: Operator, host: Host, opsjobs: OpsJobs, record_job: RecordJob
) -> None:
    def limited(text: str = "") -> None:
        """Does nothing."""

    task = opsjobs.task(limit=Limit("api", concurrency=1))(limited)
    declare_limiters(host, "test")
    operator.pause_task("note", **WHY)
    lane = "default|api|"
    bench.rows(MANY, lane, "api", "", 1)
    claimed, dispatched = record_job(task=task), record_job(task=task)
    found = claim_next(bench.connection, LimitedLane(lane, "default"), 1, bench.worker_id, "w")
    assert [job.id for job in found.jobs] == [claimed]
    bench.rows("DELETE FROM opsjobs.leases RETURNING 1")
    assert bench.dispatch_all() == 1
    assert bench.job(dispatched)["state"] == "queued"


def test_what_a_dispatcher_pushed_after_the_pause_the_loop_recalls(
    host: Host, bench: Bench, operator: Operator, record_job: RecordJob, redis_client: Any
) -> None:
    job_id = record_job()
    bench.dispatch(prefetch=3)
    # As when the dispatcher read before the pause was committed: nobody recalled it yet.
    bench.rows("INSERT INTO opsjobs.task_pauses VALUES ('note', now(), 'anna', 'kept') RETURNING 1")
    assert bench.job(job_id)["state"] == "queued"
    Runner(LOOP, host).run_once(bench.connection)
    assert (bench.job(job_id)["state"], in_redis(redis_client)) == ("available", 0)
    run = bench.row("SELECT report FROM opsjobs.loop_runs WHERE loop = 'recall'")
    assert run["report"] == "recalled 1 job of paused tasks"


@pytest.mark.parametrize("turn", range(6))
def test_a_pause_against_a_dispatcher_and_a_claim(
    host: Host,
    make_bench: MakeBench,
    operator: Operator,
    record_job: RecordJob,
    redis_client: Any,
    turn: int,
) -> None:
    """After the next pass of the loop nothing is queued, and what was claimed in time runs once."""
    one, two = make_bench(), make_bench()
    ids = [record_job() for _ in range(6)]
    one.dispatch(prefetch=3)
    receipt, _, claimed = race(
        lambda: operator.run("task.pause", ["task/note"], **WHY),
        lambda: one.dispatch(prefetch=6),
        lambda: two.claim(ids[0]),
    )
    assert receipt.is_done
    Runner(LOOP, host).run_once(one.connection)
    is_claimed = not hasattr(claimed, "reason")
    assert (count(one, "queued"), count(one, "started")) == (0, is_claimed)
    assert count(one, "available") == 6 - is_claimed
    assert in_redis(redis_client) == is_claimed


def test_of_several_pauses_at_once_one_is_done(
    bench: Bench, operator: Operator, note: Task
) -> None:
    receipts = race(*[lambda: operator.run("task.pause", ["task/note"], **WHY)] * 3)
    assert sorted(receipt.outcome for receipt in receipts) == ["done", "refused", "refused"]
    assert state(bench) == "paused"


def test_of_several_resumes_at_once_one_is_done_and_its_jobs_run_once(
    bench: Bench, operator: Operator, record_job: RecordJob, redis_client: Any
) -> None:
    ids = [record_job() for _ in range(3)]
    operator.pause_task("note", **WHY)
    receipts = race(*[lambda: operator.run("task.resume", ["task/note"], **WHY)] * 3)
    assert sorted(receipt.outcome for receipt in receipts) == ["done", "refused", "refused"]
    assert state(bench) == "open"
    bench.dispatch(prefetch=10)
    assert count(bench, "queued") == in_redis(redis_client) == len(ids)


@pytest.mark.parametrize("time", range(5))
def test_a_resume_against_a_pause_ends_as_the_audit_says(
    bench: Bench, operator: Operator, note: Task, time: int
) -> None:
    operator.pause_task("note", **WHY)
    race(
        lambda: operator.run("task.resume", ["task/note"], **WHY),
        lambda: operator.run("task.pause", ["task/note"], **WHY),
    )
    done = bench.rows(
        "SELECT action FROM opsjobs.audit_events WHERE outcome = 'done' ORDER BY sequence"
    )
    actions = [row["action"] for row in done]
    assert actions in (["task.pause", "task.resume"], ["task.pause", "task.resume", "task.pause"])
    assert state(bench) == ("paused" if actions[-1] == "task.pause" else "open")


def test_a_preview_is_refused_once_somebody_else_has_paused_it(
    bench: Bench, operator: Operator, note: Task
) -> None:
    preview = operator.preview("task.pause", ["task/note"], actor="anna", via="page")
    operator.pause_task("note", actor="ben", reason="ben was faster than anna")
    receipt = operator.execute(preview.id, preview.token, **WHY)
    assert receipt.code == "drifted"
    assert {change.what: change.after for change in receipt.drifted}["task/note state"] == "paused"
    assert bench.row("SELECT * FROM opsjobs.task_pauses")["paused_by"] == "ben"


@pytest.mark.parametrize("again", [None, "ben", "anna"])
def test_a_preview_of_a_resume_is_refused_once_somebody_else_has_resumed_it(
    bench: Bench, operator: Operator, note: Task, again: str | None
) -> None:
    """Also when it was paused again meanwhile: that is another pause, with a reason of its own."""
    operator.pause_task("note", **WHY)
    preview = operator.preview("task.resume", ["task/note"], actor="anna", via="page")
    operator.resume_task("note", actor="ben", reason="ben was faster than anna")
    if again is not None:
        operator.pause_task("note", actor=again, reason="and it broke once more")
    before = bench.rows("SELECT * FROM opsjobs.task_pauses")
    receipt = operator.execute(preview.id, preview.token, **WHY)
    assert (receipt.outcome, receipt.code) == ("refused", "drifted")
    changed = {change.what.removeprefix("task/note "): change.after for change in receipt.drifted}
    expected = {
        None: {"state", "paused_at", "paused_by", "task/note"},
        "ben": {"paused_at", "paused_by"},
        "anna": {"paused_at"},
    }
    assert changed.keys() == expected[again]
    assert changed.get("paused_by") == (again if again == "ben" else None)
    assert bench.rows("SELECT * FROM opsjobs.task_pauses") == before
    assert state(bench) == ("open" if again is None else "paused")
    event = bench.row("SELECT * FROM opsjobs.audit_events ORDER BY sequence DESC LIMIT 1")
    assert (event["action"], event["code"]) == ("task.resume", "drifted")


def test_without_the_permission_it_is_refused(
    host: Host, bench: Bench, operator: Operator, note: Task
) -> None:
    class NoPause(AllowAll):
        def can(self, actor: str, permission: str, subject: str | None = None) -> bool:
            return (permission, subject) != ("task.pause", "task/note")

    host.access = NoPause()
    with pytest.raises(ActionRefused, match=r"it needs task\.pause") as refused:
        operator.pause_task("note", **WHY)
    assert refused.value.code == "unauthorized"
    assert state(bench) == "open"

"""What an operator decides, on real workers:
a job that runs is really stopped, one that is retried really runs.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from flask import Flask

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.engine.redis.broker import Broker
from flask_opsjobs.engine.redis.connections import RedisConnections
from tests.engine.conftest import site as site
from tests.engine.site import enqueue, rows, state_of
from tests.support.host import fail, hold, note
from tests.support.processes import Child, Children
from tests.support.waiting import wait_until

WHY: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}
# The next heartbeat comes after the test has given up waiting:
# what is seen before, a requested heartbeat has done.
SLOW = {
    "OPSJOBS_HEARTBEAT_SECONDS": 60,
    "OPSJOBS_LATE_SECONDS": 200,
    "OPSJOBS_MISSING_SECONDS": 600,
}


@pytest.fixture
def operator(site: Flask) -> Operator:
    return Operator(site.extensions["opsjobs"])


@pytest.fixture
def hold_one(site: Flask, tmp_path: Path) -> Any:
    """Records a job that runs until it is stopped, and waits until it has begun; its id."""

    def begin() -> int:
        gate = tmp_path / f"gate-{time.monotonic_ns()}"
        job_id = enqueue(hold, gate=str(gate))
        wait_until(lambda: Path(f"{gate}.begun").exists(), 20, what="the job to begin")
        wait_until(lambda: state_of(job_id) == "started", 20)
        return job_id

    return begin


def live_children(worker: Child) -> list[psutil.Process]:
    return [
        process for process in worker.job_children() if process.status() != psutil.STATUS_ZOMBIE
    ]


@pytest.mark.parametrize("kind", [(), ("--jobs-per-process", "1")])
def test_a_running_job_is_stopped_at_once_through_redis(
    children: Children, operator: Operator, hold_one: Any, kind: tuple[str, ...]
) -> None:
    worker = children.flask("opsjobs", "worker", *kind, **SLOW)
    job_id = hold_one()
    # A child for RQ's maintenance ends by itself soon after the start.
    count = 2 if kind else 1
    wait_until(lambda: len(live_children(worker)) == count, 30)
    before = live_children(worker)
    receipt = operator.cancel(job_id, **WHY)
    assert receipt.done[0].changes[0].after == "canceled, once it is stopped"
    wait_until(lambda: state_of(job_id) == "canceled", 10)
    ((reason, by),) = rows("SELECT ended_reason, cancel_requested_by FROM opsjobs.jobs")
    assert (reason, by) == ("because it is a test", "anna")
    killed = [child for child in before if not child.is_running()]
    assert len(killed) == 1, "the child that ran the job, and with a fresh process per job no spare"
    ((outcome, cause),) = rows("SELECT outcome, cause_of_death FROM opsjobs.attempts")
    assert (outcome, cause) == ("canceled", "killed by SIGKILL")
    # And the worker goes on.
    assert enqueue(note, path="/dev/null", line="x") > job_id
    wait_until(lambda: rows("SELECT count(*) FROM opsjobs.jobs WHERE state = 'finished'") == [(1,)])


@pytest.mark.parametrize("kind", [(), ("--jobs-per-process", "1")])
def test_a_running_job_is_stopped_at_the_next_heartbeat_when_redis_is_away(
    children: Children, operator: Operator, site: Flask, hold_one: Any, own_valkey: Any, kind: Any
) -> None:
    children.flask("opsjobs", "worker", *kind, OPSJOBS_HEARTBEAT_SECONDS=0.5)
    job_id = hold_one()
    # The operator's process alone cannot reach Redis: the worker's heartbeat goes through Postgres.
    host = site.extensions["opsjobs"]
    own_valkey.kill()
    host.broker = Broker(RedisConnections(site, own_valkey.url))
    receipt = operator.cancel(job_id, **WHY)
    assert receipt.says.endswith("Redis was not told: the worker stops it at its next heartbeat")
    assert rows("SELECT count(*) FROM opsjobs.audit_events WHERE outcome = 'done'") == [(1,)]
    wait_until(lambda: state_of(job_id) == "canceled", 10)


def test_a_job_on_a_plain_rq_worker_runs_to_its_end_as_the_plan_said(
    children: Children, operator: Operator, site: Flask, tmp_path: Path, redis_url: str
) -> None:
    gate = tmp_path / "gate"
    job_id = enqueue(hold, gate=str(gate))
    env = {"FLASK_APP": "tests.support.host"}
    children.python("-m", "rq.cli", "worker", "--url", redis_url, "default", env=env)
    wait_until(lambda: Path(f"{gate}.begun").exists(), 20)
    receipt = operator.cancel(job_id, **WHY)
    assert "runs to its end" in (receipt.done[0].note or "")
    gate.touch()
    wait_until(lambda: state_of(job_id) == "finished", 20)


def test_an_exhausted_job_runs_again_on_a_real_worker(
    children: Children, operator: Operator, site: Flask
) -> None:
    children.flask("opsjobs", "worker")
    job_id = enqueue(fail.options(max_attempts=1))
    wait_until(lambda: state_of(job_id) == "failed", 20)
    # Redis is told by the action itself: no loop runs here.
    operator.retry(job_id, **WHY)
    attempts = "SELECT count(*) FROM opsjobs.attempts WHERE outcome = 'raised'"
    wait_until(lambda: rows(attempts) == [(2,)], 20, what="the second attempt")
    assert rows("SELECT state, attempt, max_attempts FROM opsjobs.jobs") == [("failed", 2, 2)]


def test_what_is_run_again_really_runs(
    children: Children, operator: Operator, site: Flask, tmp_path: Path
) -> None:
    children.flask("opsjobs", "worker")
    path = tmp_path / "lines"
    job_id = enqueue(note, path=str(path), line="hello")
    wait_until(lambda: state_of(job_id) == "finished", 20)
    operator.run_again(job_id, **WHY)
    wait_until(lambda: path.read_text().splitlines() == ["hello", "hello"], 20)


# --- a process that dies in the middle

_KILLED_BEFORE_COMMIT = """
import os, signal
from flask_opsjobs.actions import execution
from tests.support.host import create_app
from flask_opsjobs.actions.operator import Operator
audit = execution.audit_transitions.append
def die(*args, **kwargs):
    audit(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)
execution.audit_transitions.append = die
app = create_app()
with app.app_context():
    door = Operator(app.extensions["opsjobs"])
    door.run("{action}", ["{target}"], actor="anna", reason="because it is a test", params={params})
"""
_KILLED_BEFORE_EFFECTS = """
import os, signal
from flask_opsjobs.actions import operator
from tests.support.host import create_app
operator.run_effects = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
app = create_app()
with app.app_context():
    door = operator.Operator(app.extensions["opsjobs"])
    door.run("{action}", ["{target}"], actor="anna", reason="because it is a test", params={params})
"""


def run_and_die(
    children: Children, script: str, action: str, target: str, params: Any = None
) -> None:
    child = children.python("-c", script.format(action=action, target=target, params=params))
    assert child.wait(30) == -signal.SIGKILL


def test_a_process_killed_before_its_commit_leaves_nothing(
    children: Children, operator: Operator, site: Flask
) -> None:
    job_id = enqueue(fail.options(delay=3600))
    before = rows("SELECT * FROM opsjobs.jobs")
    run_and_die(children, _KILLED_BEFORE_COMMIT, "job.discard", f"job/{job_id}")
    # Postgres notices the dead connection and gives the locks back.
    receipt = operator.run("job.cancel", ["job/99"], **WHY)
    assert receipt.audit_sequence == 1
    assert rows("SELECT * FROM opsjobs.jobs") == before
    assert rows("SELECT action FROM opsjobs.audit_events") == [("job.cancel",)]


@pytest.mark.parametrize("action", ["job.retry", "job.cancel", "queue.pause"])
def test_what_a_killed_process_did_not_do_after_its_commit_the_loops_do(
    children: Children,
    operator: Operator,
    site: Flask,
    action: str,
    tmp_path: Path,
    redis_client: Any,
) -> None:
    """A retried job is dispatched, a running one stopped, a paused queue emptied."""
    haste = {"OPSJOBS_HEARTBEAT_SECONDS": 0.5}
    target = "queue/default"
    if action == "queue.pause":
        waiting = [enqueue(note, path=str(tmp_path / "ran"), line=f"{n}") for n in range(2)]
        assert [state_of(job_id) for job_id in waiting] == ["queued", "queued"]
    else:
        children.flask("opsjobs", "worker", **haste)
        gate = tmp_path / "gate"
        task = fail.options(max_attempts=1) if action == "job.retry" else hold
        job_id = enqueue(task, **({} if action == "job.retry" else {"gate": str(gate)}))
        reached = "failed" if action == "job.retry" else "started"
        wait_until(lambda: state_of(job_id) == reached, 20)
        target = f"job/{job_id}"
    run_and_die(children, _KILLED_BEFORE_EFFECTS, action, target)
    assert rows("SELECT outcome FROM opsjobs.audit_events") == [("done",)]
    children.flask("opsjobs", "run", **haste)
    if action == "job.retry":
        wait_until(lambda: rows("SELECT attempt FROM opsjobs.jobs") == [(2,)], 20)
    elif action == "job.cancel":
        wait_until(lambda: state_of(job_id) == "canceled", 20)
    else:
        wait_until(lambda: {state_of(job_id) for job_id in waiting} == {"available"}, 20)
        wait_until(lambda: not redis_client.keys("*opsjobs-*"), 10)


@pytest.mark.parametrize("kind", [(), ("--jobs-per-process", "1")])
def test_a_rescheduled_job_is_not_run_by_the_delivery_that_a_killed_process_left(
    children: Children,
    operator: Operator,
    site: Flask,
    tmp_path: Path,
    redis_client: Any,
    kind: tuple[str, ...],
) -> None:
    """The process dies between the commit and the removal of the delivery from Redis."""
    path = tmp_path / "lines"
    job_id = enqueue(note, path=str(path), line="hello")
    assert state_of(job_id) == "queued"
    later = {"due_at": "2999-01-01T09:00"}
    run_and_die(children, _KILLED_BEFORE_EFFECTS, "job.reschedule", f"job/{job_id}", later)
    assert rows("SELECT action, outcome FROM opsjobs.audit_events") == [("job.reschedule", "done")]
    assert state_of(job_id) == "scheduled"
    delivery = f"rq:job:opsjobs-{job_id}-1"
    assert redis_client.exists(delivery)
    children.flask("opsjobs", "worker", *kind)
    wait_until(lambda: not redis_client.exists(delivery), 20, what="the worker to refuse it")
    assert rows("SELECT state, attempt FROM opsjobs.jobs") == [("scheduled", 0)]
    assert rows("SELECT count(*) FROM opsjobs.attempts") == [(0,)]
    assert not path.exists()
    operator.reschedule(job_id, None, **WHY)
    wait_until(lambda: state_of(job_id) == "finished", 20)
    assert path.read_text() == "hello\n"
    assert rows("SELECT attempt FROM opsjobs.jobs") == [(1,)]
    # A worker whose children do not begin it at once gives it back: a dispatch more, and no attempt.
    assert rows("SELECT outcome, dispatch_no > 1 FROM opsjobs.attempts") == [("returned", True)]

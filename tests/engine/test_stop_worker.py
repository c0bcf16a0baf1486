"""`worker.stop` on real workers: what still runs after the grace is killed, and runs again elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from rq import Worker

from flask_opsjobs.actions.operator import Operator
from tests.engine.site import enqueue, rows, state_of
from tests.engine.test_drain import QUICK, SLOW, name_of_worker, start
from tests.engine.test_drain import operator as operator
from tests.support.host import add, hold
from tests.support.processes import Children
from tests.support.waiting import wait_until

WHY: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}


def hold_one(gate: Path) -> int:
    job = enqueue(hold, gate=str(gate))
    wait_until(lambda: Path(f"{gate}.begun").exists(), 30, what="the job to begin")
    return job


@pytest.mark.slow
@pytest.mark.parametrize("is_drained", [False, True])
@pytest.mark.parametrize("grace", [0, 1])
def test_what_still_runs_is_killed_and_given_to_others(
    children: Children, operator: Operator, tmp_path: Path, grace: int, is_drained: bool
) -> None:
    worker = start(children, **SLOW)
    running = hold_one(tmp_path / "gate")
    waiting = [enqueue(add, a=1, b=number) for number in range(20)]
    name = name_of_worker()
    if is_drained:
        operator.drain_worker(name, **WHY)
    assert operator.stop_worker(name, grace=grace, **WHY).is_done
    assert worker.wait(30) == 0
    assert state_of(running) == "retryable"
    ((outcome, death, facts),) = rows("SELECT outcome, death, death_facts FROM opsjobs.attempts")
    assert (outcome, death, facts["by"]) == ("died", "stopped", "stopped with its worker")
    assert {state_of(job) for job in waiting} <= {"available", "queued"}
    assert rows("SELECT 1 FROM opsjobs.jobs WHERE reserved_by IS NOT NULL") == []
    assert rows("SELECT state FROM opsjobs.workers") == [("stopped",)]
    # Another worker ends them all, each once.
    (tmp_path / "gate").touch()
    operator.retry(running, **WHY)
    assert start(children, "--burst", **QUICK).wait(60) == 0
    assert {state_of(job) for job in (running, *waiting)} == {"finished"}
    assert rows("SELECT count(*) FROM opsjobs.attempts") == [(len(waiting) + 2,)]


def test_what_ends_within_the_grace_is_not_killed(
    children: Children, operator: Operator, tmp_path: Path
) -> None:
    worker = start(children, **SLOW)
    running = hold_one(tmp_path / "gate")
    operator.stop_worker(name_of_worker(), grace=3600, **WHY)
    (tmp_path / "gate").touch()
    assert worker.wait(30) == 0
    assert state_of(running) == "finished"
    assert rows("SELECT count(*) FROM opsjobs.attempts") == [(1,)]


def test_a_plain_rq_worker_ends_its_job_and_stops(
    site: Flask, children: Children, operator: Operator, tmp_path: Path, redis_url: str
) -> None:
    rq = str(Path(sys.executable).with_name("rq"))
    words = ("worker", "default", "--url", redis_url, "--name", "plain-1")
    worker = children.python(rq, *words, env={"FLASK_APP": "tests.support.host"})
    children.flask("opsjobs", "run")
    known = "SELECT 1 FROM opsjobs.workers WHERE name = 'plain-1' AND queues = '{default}'"
    wait_until(lambda: rows(known), 30, what="the loops to see the plain worker")
    running = hold_one(tmp_path / "gate")
    receipt = operator.stop_worker("plain-1", **WHY)
    assert [change.after for change in receipt.done[0].changes] == [
        "stopped, when its job has ended, asked of RQ"
    ]
    redis = site.extensions["opsjobs"].broker.queue("default").connection
    asked = "shutdown_requested_date"
    wait_until(
        lambda: redis.hexists(f"{Worker.redis_worker_namespace_prefix}plain-1", asked),
        20,
        what="the worker to hear of it",
    )
    assert worker.exit_code is None
    (tmp_path / "gate").touch()
    assert worker.wait(30) == 0
    assert state_of(running) == "finished"

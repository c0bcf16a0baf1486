"""`worker.drain` on real workers: they take nothing new, end what they run, give the rest back, and leave."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from redis import Redis

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.engine.worker.rq_slots import slot_name
from tests.engine.site import enqueue, rows, state_of
from tests.support.engine import Bench
from tests.support.host import add, hold
from tests.support.processes import Child, Children
from tests.support.waiting import wait_until

WHY: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}
# The next heartbeat comes after the test has given up waiting: the announcement has done what is seen before.
SLOW = {
    "OPSJOBS_HEARTBEAT_SECONDS": 60,
    "OPSJOBS_LATE_SECONDS": 200,
    "OPSJOBS_MISSING_SECONDS": 600,
}
QUICK = {"OPSJOBS_HEARTBEAT_SECONDS": 0.3}


@pytest.fixture
def operator(site: Flask) -> Operator:
    return Operator(site.extensions["opsjobs"])


def name_of_worker() -> str:
    ((name,),) = rows("SELECT name FROM opsjobs.workers WHERE ended_at IS NULL")
    return str(name)


def start(children: Children, *options: str, **config: Any) -> Child:
    worker = children.flask("opsjobs", "worker", "default", *options, **config)
    worker.wait_for("listens to", 30)
    return worker


@pytest.mark.parametrize("kind", [(), ("--jobs-per-process", "1")])
def test_it_ends_what_it_runs_and_leaves(
    children: Children,
    operator: Operator,
    tmp_path: Path,
    kind: tuple[str, ...],
    redis_client: Redis,
) -> None:
    worker = start(children, *kind, **SLOW)
    gate = tmp_path / "gate"
    running = enqueue(hold, gate=str(gate))
    wait_until(lambda: Path(f"{gate}.begun").exists(), 30, what="the job to begin")
    waiting = [enqueue(add, a=1, b=number) for number in range(20)]
    name = name_of_worker()
    operator.drain_worker(name, **WHY)
    # Since its child is busy for long, it may have given everything back before it hears of the drain.
    record = f"rq:worker:{slot_name(name, 1)}"
    wait_until(
        lambda: redis_client.hexists(record, "shutdown_requested_date"),
        20,
        what="the worker to hear of the drain",
    )
    wait_until(
        lambda: not rows("SELECT 1 FROM opsjobs.jobs WHERE reserved_by IS NOT NULL"),
        20,
        what="what it had reserved to be given back",
    )
    assert worker.exit_code is None
    gate.touch()
    assert worker.wait(30) == 0
    assert state_of(running) == "finished"
    assert {state_of(job) for job in waiting} <= {"available", "queued"}
    assert rows("SELECT count(*) FROM opsjobs.attempts") == [(1,)]
    assert rows("SELECT state FROM opsjobs.workers") == [("stopped",)]


def beats() -> int:
    ((number,),) = rows("SELECT heartbeat_no FROM opsjobs.workers")
    return int(number)


def wait_for_beats(number: int) -> None:
    """Wait until so many more heartbeats were written."""
    until = beats() + number
    wait_until(lambda: beats() >= until, 30, what="heartbeats")


def test_it_hears_of_it_by_its_heartbeat_too(children: Children, bench: Bench) -> None:
    worker = start(children, **QUICK)
    bench.connection.execute(
        "UPDATE opsjobs.workers SET drain_requested_at = now(), drain_requested_by = 'anna'"
    )
    assert worker.wait(30) == 0


@pytest.mark.slow
def test_the_first_sigterm_after_a_drain_kills_no_job(
    children: Children, operator: Operator, tmp_path: Path
) -> None:
    worker = start(children, **QUICK)
    gate = tmp_path / "gate"
    running = enqueue(hold, gate=str(gate))
    wait_until(lambda: Path(f"{gate}.begun").exists(), 30, what="the job to begin")
    operator.drain_worker(name_of_worker(), **WHY)
    # More than a second, in which a second signal would count as an echo of the first.
    wait_for_beats(6)
    worker.signal(signal.SIGTERM)
    wait_for_beats(3)
    assert state_of(running) == "started"
    gate.touch()
    assert worker.wait(30) == 0
    assert state_of(running) == "finished"


@pytest.mark.slow
def test_drained_while_it_takes_no_job_is_lost_or_performed_twice(
    children: Children, operator: Operator
) -> None:
    """A worker takes from a full queue while it is drained; another one ends the rest."""
    jobs = [enqueue(add, a=1, b=number) for number in range(300)]
    first = start(children, "--processes", "2", **QUICK)
    name = name_of_worker()
    done = "SELECT count(*) FROM opsjobs.jobs WHERE state = 'finished'"
    wait_until(lambda: rows(done)[0][0] > 0, 30)
    operator.drain_worker(name, **WHY)
    assert first.wait(60) == 0
    assert (
        rows("SELECT 1 FROM opsjobs.jobs WHERE reserved_by IS NOT NULL OR state = 'started'") == []
    )
    second = start(children, "--burst", **QUICK)
    assert second.wait(60) == 0
    assert rows(done) == [(len(jobs),)]
    assert rows("SELECT count(*) FROM opsjobs.attempts") == [(len(jobs),)]

"""Who waits for whom in a worker: jobs beside long ones, urgent ones, plain RQ jobs, many lanes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Queue

from tests.engine.site import enqueue, rows, state_of
from tests.support.host import db as host_db
from tests.support.host import hold, note, note_of_account, note_run
from tests.support.processes import Child, Children
from tests.support.waiting import wait_until

pytestmark = pytest.mark.chaos

FINISHED = "SELECT count(*) FROM opsjobs.jobs WHERE state = 'finished'"
RESERVED = "SELECT count(*) FROM opsjobs.jobs WHERE reserved_by IS NOT NULL"


def enqueue_runs(path: Path, count: int, seconds: float = 0.0) -> None:
    note_run.enqueue_many({"path": str(path), "seconds": seconds} for _ in range(count))
    host_db.session.commit()


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def worker(children: Children, *words: str, **config: Any) -> Child:
    child = children.flask("opsjobs", "worker", "default", *words, **config)
    child.wait_for("listens to", 20)
    return child


def finished(number: int) -> bool:
    return rows(FINISHED) == [(number,)]


def test_a_long_job_does_not_delay_thousands_of_short_ones_in_its_queue(
    site: Any, children: Children, tmp_path: Path, is_long: bool
) -> None:
    """It runs until the test opens its gate: in the long form for five minutes, beside 10,000 of 1 ms."""
    ran, gate = tmp_path / "ran", tmp_path / "gate"
    number, seconds = (10_000, 0.001) if is_long else (1_000, 0.0)
    enqueue_runs(ran, number // 4, seconds)
    long = enqueue(hold, gate=str(gate), timeout=400)
    enqueue_runs(ran, number - number // 4, seconds)
    first = worker(children, "--processes", "2")
    wait_until(lambda: finished(number), 60)
    assert state_of(long) == "started"
    if is_long:
        until = time.monotonic() + 300
        wait_until(lambda: time.monotonic() > until, 310, every=1)
        enqueue_runs(ran, 500, seconds)
        number += 500
        wait_until(lambda: finished(number), 20)
    gate.touch()
    wait_until(lambda: finished(number + 1), 20)
    assert rows("SELECT DISTINCT attempt FROM opsjobs.jobs") == [(1,)]
    assert first.terminate() == 0


@pytest.mark.slow
def test_a_worker_that_is_full_leaves_the_rest_to_an_idle_one(
    site: Any, children: Children, tmp_path: Path
) -> None:
    """Its jobs were short, so it had taken hundreds ahead when the long one began."""
    ran, gate = tmp_path / "ran", tmp_path / "gate"
    enqueue_runs(ran, 500)
    long = enqueue(hold, gate=str(gate))
    enqueue_runs(ran, 500)
    full = worker(children)
    wait_until(Path(f"{gate}.begun").exists, 30)
    wait_until(lambda: rows(RESERVED) == [(0,)] or rows(RESERVED) == [(1,)], 10)
    assert len(lines(ran)) < 1000
    idle = worker(children)
    wait_until(lambda: finished(1000), 30)
    assert state_of(long) == "started"
    gate.touch()
    wait_until(lambda: finished(1001), 20)
    assert full.terminate() == idle.terminate() == 0


@pytest.mark.slow
def test_an_urgent_job_waits_only_for_what_is_reserved(
    site: Any, children: Children, tmp_path: Path
) -> None:
    """0.1 s of work: with one child at most ten jobs of 10 ms, and the one that runs."""
    ran = tmp_path / "ran"
    enqueue_runs(ran, 300, seconds=0.01)
    worker(children, OPSJOBS_RESERVE_SECONDS=0.1)
    wait_until(lambda: len(lines(ran)) >= 50, 30)
    enqueue(note.options(priority=0), path=str(ran), line="urgent")
    before = len(lines(ran))
    wait_until(lambda: "urgent" in lines(ran), 20)
    assert lines(ran).index("urgent") - before <= 12


@pytest.mark.parametrize(("number", "seconds", "most"), [(2000, 0, 800), (300, 0.01, 60)])
def test_a_plain_rq_job_waits_only_for_its_turn_beside_a_backlog(
    number: int,
    seconds: float,
    most: int,
    site: Any,
    children: Children,
    redis_client: Redis,
    tmp_path: Path,
) -> None:
    ran = tmp_path / "ran"
    enqueue_runs(ran, number, seconds=seconds)
    worker(children)
    wait_until(lambda: len(lines(ran)) >= number / 10, 30)
    job = Queue("default", connection=redis_client).enqueue(
        "tests.support.host.note_plainly", str(ran), "plain"
    )
    before = len(lines(ran))
    wait_until(lambda: "plain" in lines(ran), 30)
    assert lines(ran).index("plain") - before <= most, "not for the whole backlog"
    wait_until(lambda: job.get_status() == "finished", 20)


@pytest.mark.slow
def test_many_lanes_with_one_job_each_need_no_loop(
    site: Any, children: Children, tmp_path: Path, is_long: bool
) -> None:
    """Pitfall: a prefetch that is refilled once a second runs so many jobs a second.

    100 lanes, in the long form 1,000.
    """
    ran, number = tmp_path / "ran", 1000 if is_long else 100
    children.flask("opsjobs", "worker", "limited", "--processes", "2").wait_for("listens to", 20)
    note_of_account.enqueue_many({"path": str(ran), "account": each} for each in range(number))
    host_db.session.commit()
    wait_until(lambda: finished(number), max(30, number / 5))
    assert len(set(lines(ran))) == len(lines(ran)) == number

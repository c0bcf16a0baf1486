"""Kills and stops of children and workers at full speed: nothing is lost, nothing runs that should not."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from flask_opsjobs.engine.worker.places import SHORT_SECONDS
from tests.support.host import db as host_db
from tests.support.host import hold, kill_worker, note_run
from tests.support.processes import Child, is_alive
from tests.support.waiting import wait_until

from .conftest import CALM, HASTE, Site

pytestmark = pytest.mark.chaos


def enqueue_runs(site: Site, path: Path, count: int, seconds: float = 0.0) -> None:
    with site.app.app_context():
        note_run.enqueue_many({"path": str(path), "seconds": seconds} for _ in range(count))
        host_db.session.commit()


def runs(path: Path) -> Counter[tuple[int, int]]:
    """How often each attempt, as (job id, number of the attempt), really ran."""
    lines = path.read_text().splitlines() if path.exists() else []
    return Counter((int(job), int(attempt)) for job, attempt in map(str.split, lines))


def attempts(site: Site) -> list[tuple[int, int, str]]:
    found: list[Any] = site.rows("SELECT job_id, attempt, outcome FROM opsjobs.attempts")
    return found


def reserved(site: Site) -> int:
    ((number,),) = site.rows("SELECT count(*) FROM opsjobs.jobs WHERE reserved_by IS NOT NULL")
    return int(number)


def kill_one_child(worker: Child, dice: random.Random) -> int | None:
    """Kill a child of the worker; its pid."""
    with suppress(psutil.NoSuchProcess):
        if children := worker.job_children():
            child = dice.choice(children)
            child.kill()
            return child.pid
    return None


@pytest.mark.slow
def test_a_child_is_killed_again_and_again(
    new_site: Site, tmp_path: Path, jobs_of_pool: int, is_long: bool
) -> None:
    """Every 20 ms in the long form, else after every ten jobs."""
    site, count = new_site, jobs_of_pool if is_long else jobs_of_pool // 8
    path, dice = tmp_path / "ran", random.Random(12)
    # The few jobs of the short form last until ten of them have ended several times.
    enqueue_runs(site, path, count, seconds=0.001 if is_long else 0.01)
    site.moving_loops()
    worker = site.worker("--processes", "2", "default")

    before = 0
    killed: Counter[int | None] = Counter()

    def all_finished() -> bool:
        nonlocal before
        ended = site.states().get("finished", 0)
        if is_long or ended >= before + 10:
            killed[kill_one_child(worker, dice)] += 1
            before = ended
        return ended == count

    # Each death costs a fork, and 20,000 jobs take more than ten minutes beside other work on two processors.
    wait_until(all_finished, 1800 if is_long else 600, every=0.02)
    ran, rows = runs(path), attempts(site)
    assert {job for job, _ in ran} == {job for job, _, _ in rows}, "0 lost"
    assert len({job for job, _, _ in rows}) == count
    assert set(ran.values()) == {1}, "no attempt ran twice"
    assert len(rows) == len({(job, attempt) for job, attempt, _ in rows})
    outcomes = Counter(outcome for *_, outcome in rows)
    assert outcomes["returned"] == count
    assert set(outcomes) <= {"returned", "died"}
    assert outcomes["died"] > 0, "some were killed in the middle of a job"
    with_job = set(ran) - {
        (job, attempt) for job, attempt, outcome in rows if outcome == "returned"
    }
    ends_by_death = {(job, attempt) for job, attempt, outcome in rows if outcome == "died"}
    assert with_job <= ends_by_death, "an attempt for each child that had a job when it was killed"
    pids = site.rows("SELECT pid FROM opsjobs.attempts WHERE outcome = 'died'")
    assert Counter(pid for (pid,) in pids) <= killed, "one for each child that was killed, at most"
    died = Counter(job for job, _, outcome in rows if outcome == "died")
    untouched = [attempt for job, attempt, _ in rows if job not in died]
    assert set(untouched) == {1}
    print(f"{count} jobs, {len(died)} children died in the middle of one: {dict(outcomes)}")
    assert worker.terminate() == 0


def unrecorded(site: Site, path: Path) -> set[int]:
    """The jobs that ran, and whose end is not written."""
    ended = {job for (job,) in site.rows("SELECT id FROM opsjobs.jobs WHERE state = 'finished'")}
    return {job for job, _ in runs(path)} - ended


def ran_twice(path: Path) -> set[int]:
    return {job for job, number in Counter(job for job, _ in runs(path)).items() if number > 1}


def wait_until_at_work(site: Site, path: Path) -> None:
    """Wait until a worker runs jobs at full speed."""
    wait_until(lambda: len(runs(path)) > 50 and reserved(site) > 10, 30, every=0.001)


@pytest.mark.slow
def test_a_killed_worker_leaves_no_attempt_of_what_it_did_not_begin(
    new_site: Site, tmp_path: Path, jobs_of_pool: int, is_long: bool
) -> None:
    site, path = new_site, tmp_path / "ran"
    # One that is only silent is rescued after this test. In the long form loops look every ten seconds.
    config: dict[str, Any] = {**CALM}
    if is_long:
        config["OPSJOBS_HEARTBEAT_SECONDS"] = 10
    enqueue_runs(site, path, jobs_of_pool)
    worker = site.worker("--processes", "2", "default", **config)
    wait_until_at_work(site, path)
    children = worker.job_children()
    worker.kill()
    killed = time.monotonic()
    wait_until(lambda: not any(is_alive(child) for child in children), 20, every=0.001)
    left, ran, lost = reserved(site), runs(path), unrecorded(site, path)
    assert left > 0
    begun = {(job, attempt) for job, attempt, _ in attempts(site)}
    assert begun <= set(ran), "no attempt row of what did not begin"
    site.loops(**config)
    wait_until(lambda: reserved(site) == 0, 60, what="its jobs are rescued")
    assert runs(path) == ran, "nothing ran after it"
    site.worker("default", **config)
    theirs = {
        job for (job,) in site.rows("SELECT id FROM opsjobs.jobs WHERE lost_reservations > 0")
    }
    wait_until(
        lambda: theirs <= {job for job, _ in (runs(path) - ran)}, 60, what="they run elsewhere"
    )
    took = time.monotonic() - killed
    site.wait_until_all("finished", jobs_of_pool)
    # Those that ended within the last flush, and were not recorded: they alone ran again.
    assert ran_twice(path) <= lost
    print(
        f"{left} reserved jobs of a killed worker ran elsewhere within {took:.1f} s;"
        f" {len(ran_twice(path))} of {jobs_of_pool} jobs ran twice"
    )
    assert not is_long or took < 15
    assert site.rows("SELECT count(*) FROM opsjobs.jobs WHERE lost_reservations > 0") == [(0,)]


@pytest.mark.slow
def test_a_worker_that_stood_still_runs_little_twice(
    new_site: Site, tmp_path: Path, jobs_of_pool: int
) -> None:
    """All of it stands still, until its jobs were rescued and have run elsewhere; then it goes on."""
    site, path = new_site, tmp_path / "ran"
    count = jobs_of_pool // 4
    enqueue_runs(site, path, count, seconds=0.003)
    site.moving_loops()
    worker = site.worker("--processes", "2", "default")
    wait_until_at_work(site, path)
    family = [psutil.Process(worker.pid), *worker.children()]
    for process in family:
        process.suspend()
    before = site.worker("default")
    # A flush that was under way is committed by now.
    stood, lost = runs(path), unrecorded(site, path)
    site.wait_until_all("finished", count, 120)
    for process in family:
        # The worker goes on first, and may have killed its child by now.
        with suppress(psutil.NoSuchProcess):
            process.resume()
    assert before.terminate() == 0
    # It goes on with other jobs.
    enqueue_runs(site, path, 50, seconds=0.001)
    site.wait_until_all("finished", count + 50)
    assert worker.terminate() == 0
    twice = ran_twice(path)
    print(f"{len(stood)} jobs had run when a worker stood still, {len(twice)} ran twice")
    assert len(twice - lost) <= 2, (
        "what was not recorded, and what its children were about to begin"
    )


@pytest.mark.slow
def test_a_child_that_stands_still_runs_nothing_twice(
    new_site: Site, tmp_path: Path, jobs_of_pool: int, is_long: bool
) -> None:
    """At full speed, each time until a reservation has ended; the other child goes on."""
    site, path, dice = new_site, tmp_path / "ran", random.Random(4)
    enqueue_runs(site, path, jobs_of_pool // 3, seconds=0.002)
    worker = site.worker("--processes", "2", "default")
    wait_until_at_work(site, path)
    times = 20 if is_long else 1
    for _ in range(times):
        if not reserved(site):
            enqueue_runs(site, path, 1000, seconds=0.002)
        child = dice.choice(wait_until(worker.job_children))
        child.suspend()
        until = time.monotonic() + HASTE["OPSJOBS_MISSING_SECONDS"] / 4 + 0.1
        before = len(runs(path))
        wait_until(lambda until=until: time.monotonic() > until, every=0.01)
        assert len(runs(path)) > before, "the other child goes on"
        child.resume()
    ((count,),) = site.rows("SELECT count(*) FROM opsjobs.jobs")
    site.wait_until_all("finished", count, 120)
    assert ran_twice(path) == set()
    assert len(runs(path)) == count
    late = worker.log.count("does not run here: its reservation had ended")
    print(f"{count} jobs, a child stood still {times} times; {late} jobs began elsewhere instead")
    assert worker.terminate() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_worker_gives_back_what_it_has_reserved(
    new_site: Site, tmp_path: Path, number: int, jobs_of_pool: int, is_long: bool
) -> None:
    site, path = new_site, tmp_path / "ran"
    gate = tmp_path / "gate"
    with site.app.app_context():
        hold.enqueue(gate=str(gate))
        host_db.session.commit()
    # In the short form so long that a child gets the next one after its end, and is not taken for stuck.
    enqueue_runs(site, path, jobs_of_pool, seconds=0.0 if is_long else 0.05)
    worker = site.worker("--processes", "2", "default", OPSJOBS_RESERVE_SECONDS=20, **CALM)
    wait_until(Path(f"{gate}.begun").exists, every=0.001)
    # When some have run of many that were taken at once.
    worker.freeze_when(lambda: reserved(site) > 50 and len(runs(path)) > 5)
    left, ran, began = reserved(site), len(runs(path)), time.monotonic()
    worker.signal(number)
    worker.thaw()
    wait_until(lambda: reserved(site) == 0, 20, every=0.001, what="all, while one job runs on")
    took = time.monotonic() - began
    assert is_long or len(runs(path)) <= ran + 1, "none was sent to a child"
    print(f"a worker that stops gives {left} jobs back within {took * 1000:.0f} ms")
    assert not is_long or took < 0.1
    gate.touch()
    assert worker.wait(20) == 0
    assert reserved(site) == 0
    states = site.states()
    assert states["finished"] == len(runs(path)) + 1 == len(attempts(site))
    assert set(states) <= {"finished", "available", "queued"}
    lost = "SELECT count(*) FROM opsjobs.jobs WHERE lost_reservations > 0 OR attempt > 1"
    assert site.rows(lost) == [(0,)]


BEGINS_LATE = """
import sys, time
from flask_opsjobs.cli.worker import run
from flask_opsjobs.engine.worker import child
from flask_opsjobs.engine.worker.parent import WorkerOptions
from tests.support.host import create_app
from tests.support.waiting import wait_until

read = child.read_job_order

def read_late(body):
    order = read(body)
    if order.task == "kill_worker":
        late = time.monotonic() + 0.2
        wait_until(lambda: time.monotonic() > late, every=0.01)
    return order

child.read_job_order = read_late
app = create_app()
with app.app_context():
    sys.exit(run(app, ["default"], WorkerOptions(processes=2)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("begins", ["at once", "late"])
def test_a_job_that_kills_its_worker_ends_alone(
    new_site: Site, tmp_path: Path, begins: str
) -> None:
    """Ten times over with `--times 10`. On a busy machine a child begins late."""
    site, path = new_site, tmp_path / "ran"
    with site.app.app_context():
        killer = kill_worker.enqueue().id
        host_db.session.commit()
    enqueue_runs(site, path, 400, seconds=0.01 if begins == "late" else 0.001)
    site.moving_loops()

    def is_over() -> bool:
        if not workers or workers[-1].exit_code is not None:
            if begins == "late":
                workers.append(site.python(BEGINS_LATE))
            else:
                workers.append(site.worker("--processes", "2", "default"))
        return site.states() == {"finished": 400, "failed": 1}

    workers: list[Child] = []
    wait_until(is_over, 120)
    # A reservation that ended before the job began is an attempt that does not count.
    ends = site.rows("SELECT outcome FROM opsjobs.attempts WHERE job_id = %s", killer)
    assert Counter(outcome for (outcome,) in ends if outcome != "snoozed") == {"lost": 3}, (
        "it ends at its max_attempts"
    )
    lost = site.rows(
        "SELECT worker_id, started_at, job_id = %s FROM opsjobs.attempts WHERE outcome = 'lost' ORDER BY 2",
        killer,
    )
    killed = {worker: at for worker, at, is_killer in lost if is_killer}
    _, second, _ = killed.values()
    long = timedelta(seconds=SHORT_SECONDS)
    # On a busy machine a job may run for longer than a short one. It need not end before the killer begins.
    beside = [
        at
        for worker, at, is_killer in lost
        if not is_killer and not (worker in killed and killed[worker] - at > long)
    ]
    assert len(beside) <= 1, (
        "the first time it may take the job beside it along, if that is not short"
    )
    assert all(at < second for at in beside), "afterwards it is alone, or beside one that runs long"

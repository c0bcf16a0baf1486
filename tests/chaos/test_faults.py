"""Faults one by one: one part of a worker fails or stands still, and the others do not."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from rq import Queue

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.core import sql
from flask_opsjobs.core.db import connect_apart
from tests.support.host import db as host_db
from tests.support.host import hold, large, measure, note_run
from tests.support.waiting import wait_until

from .conftest import CALM, HASTE, Site
from .test_deaths import all_returned, attempts, enqueue, wait_until_ended
from .test_pool import reserved, runs

pytestmark = pytest.mark.chaos

# Postgres gets four seconds for an answer, and rescues come later.
SOON = {"OPSJOBS_MISSING_SECONDS": 16}


@pytest.fixture(autouse=True)
def _nobody_stays(shared_site: Site) -> Iterator[None]:
    """A test that fails leaves no worker to the next one."""
    yield
    shared_site.end()


def enqueue_notes(site: Site, path: Path, count: int, **args: Any) -> list[int]:
    return enqueue(site, [(note_run, {"path": str(path), **args})] * count)


@contextmanager
def recorded_notes(
    site: Site, path: Path, count: int
) -> Iterator[tuple[list[int], Callable[[], None]]]:
    """Jobs that are recorded, for which a busy machine needs seconds, and what commits them at once."""
    with site.app.app_context():
        jobs = [note_run.enqueue(path=str(path)).id for _ in range(count)]
        yield jobs, host_db.session.commit


def ran_once(path: Path, jobs: Sequence[int]) -> bool:
    return runs(path) == dict.fromkeys([(job_id, 1) for job_id in jobs], 1)


@contextmanager
def standing(site: Site, condition: str) -> Iterator[None]:
    """Let a session of Postgres stand still: its client waits for an answer, and gives it up.

    Then it goes on, does what it was asked for, and ends.
    """
    find = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle'"
        f" AND pid <> pg_backend_pid() AND {condition}"
    )
    ((pid,),) = wait_until(lambda: len(found := site.rows(find)) == 1 and found, what=find)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    wait_until(lambda: not site.rows("SELECT FROM pg_stat_activity WHERE pid = %s", pid))


# What the two of them ask when nothing is to do.
OF_TAKER = "query ~ 'state = .queued. AND reserved_by = .1'"
OF_RECORDER = "query ~ 'max.latest.last_at'"


def test_a_take_whose_answer_is_lost(shared_site: Site, tmp_path: Path, is_long: bool) -> None:
    """The row says that the worker has taken it, and the worker does not know it."""
    worker = shared_site.worker("nothing", "default", "--no-scheduler", **CALM)
    ((worker_id,),) = shared_site.rows("SELECT max(id) FROM opsjobs.workers")
    with shared_site.app.app_context():
        job_id = note_run.options(delay=0.1).enqueue(path=str(tmp_path / "ran")).id
        host_db.session.commit()
    take = {
        "queues": ["default"],
        "limit": 1,
        "bytes": 1,
        "waited": None,
        "worker_id": worker_id,
    }
    with closing(connect_apart(shared_site.app.extensions["opsjobs"].engine)) as connection:
        with connection.transaction():  # else the worker may take it first
            due = "UPDATE opsjobs.jobs SET state = 'available' WHERE id = %s"
            connection.execute(due, [job_id])
            assert connection.execute(sql.load("take_jobs"), take).fetchone()[1] == job_id
        began = time.monotonic()
    wait_until_ended(shared_site, [job_id], 20)
    took = time.monotonic() - began
    assert not is_long or took < 2 * HASTE["OPSJOBS_HEARTBEAT_SECONDS"] + 0.5
    assert ran_once(tmp_path / "ran", [job_id])
    assert worker.terminate() == 0


@pytest.mark.slow
def test_the_connection_of_the_recorder_stands_still(
    shared_site: Site, tmp_path: Path, jobs_of_pool: int, is_long: bool
) -> None:
    """Until all jobs have ended, in the long form for three minutes."""
    path, began = tmp_path / "ran", time.monotonic()
    worker = shared_site.worker("--processes", "2", "default", OPSJOBS_MISSING_SECONDS=24)
    most = 0

    def have_ended() -> bool:
        nonlocal most
        ended = "SELECT count(*) FROM opsjobs.jobs WHERE id = ANY (%s) AND ended_at IS NOT NULL"
        ((number,),) = shared_site.rows(ended, jobs)
        if not number:
            most = max(most, reserved(shared_site))
        return number == len(jobs)

    # More than it may hold, and so few that they have come before it asks on another connection.
    count = min(jobs_of_pool, 2000)
    with (
        recorded_notes(shared_site, path, count) as (jobs, commit),
        standing(shared_site, OF_RECORDER),
    ):
        commit()
        wait_until(have_ended, 60)
        if is_long:
            wait_until(lambda: time.monotonic() > began + 180, 190, every=1)
            jobs += enqueue_notes(shared_site, path, 500)
            wait_until(have_ended, 20)
    print(
        f"{len(jobs)} jobs beside a recorder that waits; at most {most} were taken and not recorded"
    )
    assert 400 < most <= 800, "what it has taken, also what has run and is not recorded"
    assert ran_once(path, jobs)
    assert all_returned(shared_site, jobs)
    assert "no answer within 6 s" in worker.log
    assert worker.terminate() == 0


@pytest.mark.slow
def test_no_more_is_popped_while_the_taker_stands_still(shared_site: Site, tmp_path: Path) -> None:
    """All that a worker pops it reserves later, and then holds."""
    path, host = tmp_path / "ran", shared_site.app.extensions["opsjobs"]
    why: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}
    worker = shared_site.worker("default", **SOON)
    wait_until_ended(shared_site, enqueue_notes(shared_site, path, 1))
    wait_until(lambda: len(worker.job_children()) == 1, what="RQ's maintenance has ended")
    path.unlink()
    with shared_site.valkey.client() as redis:
        queue, least = Queue("default", connection=redis), 0

        def has_given_up() -> bool:
            nonlocal least
            number = queue.count
            if "no answer within 4 s" in worker.log:
                return True
            least = number
            return False

        with shared_site.app.app_context():
            Operator(host).set_prefetch("default", 1000, **why)
        with (
            recorded_notes(shared_site, path, 300) as (jobs, commit),
            standing(shared_site, OF_TAKER),
        ):
            commit()
            assert queue.count > 290
            wait_until(has_given_up, 20)
            with shared_site.app.app_context():
                Operator(host).set_prefetch("default", None, **why)
    assert least > 290
    wait_until_ended(shared_site, jobs)
    assert ran_once(path, jobs)
    assert worker.terminate() == 0


@pytest.mark.slow
def test_the_connection_of_the_taker_stands_still(shared_site: Site, tmp_path: Path) -> None:
    path, gate = tmp_path / "ran", tmp_path / "gate"
    worker = shared_site.worker("--processes", "3", "default", **CALM)
    limited = note_run.options(timeout=1, max_attempts=1)
    late, unwanted, held = jobs = enqueue(
        shared_site,
        [
            (limited, {"path": str(path), "seconds": 30}),
            (hold, {"gate": str(tmp_path / "none")}),
            (hold, {"gate": str(gate)}),
        ],
    )
    wait_until(lambda: len(site_states(shared_site, jobs, "started")) == 3)
    with standing(shared_site, OF_TAKER):
        waiting = enqueue_notes(shared_site, path, 5)
        why: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}
        Operator(shared_site.app.extensions["opsjobs"]).cancel(unwanted, **why)
        wait_until_ended(shared_site, [unwanted, late], 20)
        assert attempts(shared_site, [late])[late][0][0] == "timed_out"
        assert attempts(shared_site, [unwanted])[unwanted][0][0] == "canceled"
        worker.signal(signal.SIGTERM)
        gate.touch()
        # Long before the taker would ask on another connection, after 150 s.
        assert worker.wait(20) == 0
    assert all_returned(shared_site, [held])
    assert reserved(shared_site) == 0
    assert site_states(shared_site, waiting, "finished") == []


@pytest.mark.slow
def test_a_stop_while_the_connection_of_the_recorder_stands_still(
    shared_site: Site, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    worker = shared_site.worker("default", **CALM)
    jobs = enqueue(shared_site, [(hold, {"gate": str(gate)})])
    wait_until(lambda: site_states(shared_site, jobs, "started") == jobs)
    with standing(shared_site, OF_RECORDER):
        worker.signal(signal.SIGTERM)
        gate.touch()
        assert worker.wait(16) == 0
    assert all_returned(shared_site, jobs)


def site_states(site: Site, jobs: Sequence[int], state: str) -> list[int]:
    """Those of the jobs that are in this state."""
    found = site.rows(
        "SELECT id FROM opsjobs.jobs WHERE id = ANY (%s) AND state = %s", list(jobs), state
    )
    return [job_id for (job_id,) in found]


# While the file exists that is named first, the system refuses every fork, or each child ends at its start.
WITHOUT_CHILDREN = """
import os, sys
from flask_opsjobs.cli.worker import run
from flask_opsjobs.engine.worker import children
from flask_opsjobs.engine.worker.parent import WorkerOptions
from tests.support.host import create_app

fault, how = sys.argv[1:]
fork, run_child = os.fork, children.run_child

def refuse():
    if how == "refused" and os.path.exists(fault):
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return fork()

def end(*args):
    if how == "ends" and os.path.exists(fault):
        os._exit(7)
    run_child(*args)

os.fork, children.run_child = refuse, end
# It takes many jobs ahead, also where a busy machine lets each run for long.
app = create_app(OPSJOBS_RESERVE_SECONDS=2)
with app.app_context():
    sys.exit(run(app, ["default"], WorkerOptions(with_scheduler=False)))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("refused", "cannot be forked: [Errno 11] Resource temporarily unavailable"),
        ("ends", "exited with 7 before its function returned"),
    ],
)
def test_no_child_can_be_started(
    shared_site: Site, tmp_path: Path, how: str, sentence: str
) -> None:
    path, fault = tmp_path / "ran", tmp_path / "fault"
    loops = shared_site.moving_loops()  # it makes the job due again whose child is killed
    worker = shared_site.python(WITHOUT_CHILDREN, str(fault), how)
    worker.wait_for("listens to", 30)
    jobs = enqueue_notes(shared_site, path, 300, seconds=0.01)
    wait_until(lambda: len(runs(path)) > 5 and reserved(shared_site) > 10, every=0.002)
    fault.touch()
    for child in worker.job_children():
        child.kill()
    worker.wait_for(f"child 1 {sentence}")
    wait_until(lambda: reserved(shared_site) == 0, 5)
    assert site_states(shared_site, jobs, "finished") != jobs
    told = "SELECT left_children::text FROM opsjobs.workers ORDER BY id DESC LIMIT 1"
    wait_until(lambda: sentence in shared_site.rows(told)[0][0])
    fault.unlink()
    wait_until_ended(shared_site, jobs)
    ran = runs(path)
    assert {job_id for job_id, _ in ran} == set(jobs)
    assert set(ran.values()) == {1}
    assert worker.terminate() == 0
    loops.kill()


@pytest.mark.slow
def test_a_lane_whose_first_jobs_are_overdue(shared_site: Site, tmp_path: Path) -> None:
    """No loop ends them."""
    path = tmp_path / "ran"
    overdue = enqueue_notes(shared_site, path, 1000)
    shared_site.rows(
        "UPDATE opsjobs.jobs SET deadline_at = now() - interval '1 s' WHERE id = ANY (%s) RETURNING id",
        overdue,
    )
    jobs = enqueue_notes(shared_site, path, 10)
    worker = shared_site.worker("default")
    wait_until_ended(shared_site, [*overdue, *jobs])
    ends = "SELECT DISTINCT state, ended_by FROM opsjobs.jobs WHERE id = ANY (%s)"
    assert shared_site.rows(ends, overdue) == [("failed", "deadline")]
    assert ran_once(path, jobs)
    assert worker.terminate() == 0


NARROW_SOCKETS = """
import socket, sys
from flask_opsjobs.cli.worker import run
from flask_opsjobs.engine.worker.parent import WorkerOptions
from tests.support.host import create_app

socketpair = socket.socketpair

def narrow(*args):
    pair = socketpair(*args)
    for one in pair:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return pair

socket.socketpair = narrow
app = create_app()
with app.app_context():
    sys.exit(run(app, ["default"], WorkerOptions(processes=2, with_scheduler=False)))
"""


def test_a_socket_takes_four_kilobytes_at_once(shared_site: Site, tmp_path: Path) -> None:
    """So large orders are passed as files, and of small ones only some are sent ahead."""
    calls: list[tuple[Any, dict[str, Any]]] = [(note_run, {"path": str(tmp_path / "ran")})] * 100
    calls += [(measure, {"text": "x" * 900_000}), (large, {"size": 200_000})]
    jobs = enqueue(shared_site, calls * 4)
    worker = shared_site.python(NARROW_SOCKETS)
    wait_until_ended(shared_site, jobs)
    assert all_returned(shared_site, jobs)
    assert sorted(runs(tmp_path / "ran").values()) == [1] * 400
    sizes = "SELECT length(value #>> '{}') FROM opsjobs.outputs WHERE job_id = ANY (%s)"
    assert shared_site.rows(sizes, jobs) == [(200_000,)] * 4
    assert worker.terminate() == 0


@pytest.mark.slow
def test_sixty_four_children(shared_site: Site, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    worker = shared_site.worker("--processes", "64", "default")
    jobs = enqueue(shared_site, [(hold, {"gate": str(gate)})] * 64)
    wait_until(lambda: len(site_states(shared_site, jobs, "started")) == 64, 30)
    gate.touch()
    wait_until_ended(shared_site, jobs)
    assert all_returned(shared_site, jobs)
    pids = "SELECT count(DISTINCT pid) FROM opsjobs.attempts WHERE job_id = ANY (%s)"
    assert shared_site.rows(pids, jobs) == [(64,)]
    assert worker.terminate() == 0

"""Jobs that were sent ahead to a child: what it has not received others run, and nothing runs twice."""

from __future__ import annotations

import os
import random
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.errors import ActionRefused
from tests.support.host import db as host_db
from tests.support.host import note_run
from tests.support.waiting import wait_until

from .conftest import Site
from .test_pool import (
    attempts,
    enqueue_runs,
    kill_one_child,
    ran_twice,
    reserved,
    runs,
    wait_until_at_work,
)

pytestmark = pytest.mark.chaos

WHY: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}


def all_ran_once(site: Site, path: Path, count: int) -> bool:
    rows = attempts(site)
    each_once = len(runs(path)) == count and set(runs(path).values()) == {1}
    return each_once and {(number, end) for _, number, end in rows} == {(1, "returned")}


def test_children_are_killed_while_fifty_jobs_are_ahead(
    new_site: Site, tmp_path: Path, jobs_of_pool: int
) -> None:
    """No-op jobs: each child has been sent as many as it may."""
    site, path, dice = new_site, tmp_path / "ran", random.Random(13)
    count = jobs_of_pool // 2
    enqueue_runs(site, path, count)
    site.moving_loops()
    worker = site.worker("--processes", "3", "default")
    before = kills = 0

    def all_finished() -> bool:
        nonlocal before, kills
        ended = site.states().get("finished", 0)
        if ended >= before + 20:
            kill_one_child(worker, dice)
            before, kills = ended, kills + 1
        return ended == count

    wait_until(all_finished, 600, every=0.005)
    ran, rows = runs(path), attempts(site)
    assert len({job for job, _ in ran}) == count, "0 lost"
    assert set(ran.values()) == {1}, "no attempt ran twice"
    ends = [outcome for *_, outcome in rows]
    died = ends.count("died")
    assert ends.count("returned") == count
    assert len(ends) == count + died
    assert died < kills, "of those that were sent ahead none had an attempt"
    # A job that wrote its line and died before it returned.
    assert len(ran_twice(path)) <= died
    print(f"{count} jobs, {kills} kills: {died} died, {len(ran) - count} of them had run")
    assert worker.terminate() == 0


# The first child that receives a fiftieth order stands still then, if `flag` is a file. However slow the
# machine is, no child is killed for its silence before the test says that it may be.
PATIENT_WORKER = """
import os, signal, sys
from flask_opsjobs.cli.worker import run
from flask_opsjobs.engine.worker import child
from flask_opsjobs.engine.worker.parent import Parent, WorkerOptions
from tests.support.host import create_app

read, why_hung = child.read_job_order, Parent._why_hung
flag = sys.argv[1]
orders = 0

def stand_still(body):
    global orders
    orders += 1
    if orders == 50:
        try:
            os.unlink(flag)
        except FileNotFoundError:
            pass
        else:
            with open(flag + ".pid", "w") as file:
                file.write(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGSTOP)
    return read(body)

def be_patient(*asked):
    return why_hung(*asked) if os.path.exists(flag + ".may-kill") else None

child.read_job_order = stand_still
Parent._why_hung = staticmethod(be_patient)
app = create_app()
with app.app_context():
    sys.exit(run(app, ["default"], WorkerOptions(processes=2, with_scheduler=False)))
"""


@pytest.mark.slow
def test_what_a_frozen_child_has_not_received_runs_elsewhere(
    new_site: Site, tmp_path: Path
) -> None:
    site, path, count = new_site, tmp_path / "ran", 300
    worker = site.python(PATIENT_WORKER, str(tmp_path / "flag"))
    enqueue_runs(site, path, count, seconds=0.003)
    wait_until_at_work(site, path)
    # Not the one that does RQ's maintenance.
    child = psutil.Process(site.rows("SELECT pid FROM opsjobs.attempts LIMIT 1")[0][0])
    child.suspend()
    # All but the one that it runs, or is about to begin.
    wait_until(lambda: site.states().get("finished", 0) >= count - 1, 60)
    assert child.status() == psutil.STATUS_STOPPED
    child.resume()
    site.wait_until_all("finished", count)
    assert ran_twice(path) == set()
    assert all_ran_once(site, path, count)
    assert worker.terminate() == 0


@pytest.mark.slow
@pytest.mark.parametrize("way", ["begins late", "is killed"])
def test_a_child_that_has_received_its_order_stands_still(
    new_site: Site, tmp_path: Path, way: str
) -> None:
    """Resumed, it does not begin it, since the reservation has ended; else it is killed after 5 s."""
    site, path, flag, count = new_site, tmp_path / "ran", tmp_path / "flag", 400
    flag.touch()
    worker = site.python(PATIENT_WORKER, str(flag))
    enqueue_runs(site, path, count, seconds=0.002)
    told = Path(f"{flag}.pid")
    pid = int(wait_until(lambda: told.exists() and told.read_text(), 30))
    if way == "begins late":
        # A quarter of OPSJOBS_MISSING_SECONDS.
        until = time.monotonic() + 0.7
        wait_until(lambda: time.monotonic() > until, every=0.01)
        psutil.Process(pid).resume()
        worker.wait_for("does not run here: its reservation had ended", 30)
    else:
        wait_until(lambda: site.states().get("finished", 0) == count - 1, 60)
        assert reserved(site) == 1
        Path(f"{flag}.may-kill").touch()
        wait_until(lambda: not psutil.pid_exists(pid), 30)
    site.wait_until_all("finished", count)
    assert all_ran_once(site, path, count)
    assert worker.terminate() == 0


@pytest.mark.slow
def test_a_child_that_leaves_leaves_its_orders_to_others(new_site: Site, tmp_path: Path) -> None:
    site, path, count = new_site, tmp_path / "ran", 500
    enqueue_runs(site, path, count)
    worker = site.worker("--processes", "2", "--jobs-per-process", "20", "default")
    site.wait_until_all("finished", count)
    assert all_ran_once(site, path, count)
    pids = "SELECT count(DISTINCT pid) FROM opsjobs.attempts"
    ((processes,),) = site.rows(pids)
    assert processes >= count / 20
    assert worker.terminate() == 0


def test_jobs_behind_one_that_is_unexpectedly_long_do_not_wait_for_it(
    new_site: Site, tmp_path: Path, is_long: bool
) -> None:
    """It has the same task as the others, so it was expected to be as short."""
    site, path, gate = new_site, tmp_path / "ran", tmp_path / "gate"
    enqueue_runs(site, path, 200, seconds=0.0005)
    with site.app.app_context():
        long = note_run.enqueue(path=str(path), gate=str(gate)).id
        host_db.session.commit()
    enqueue_runs(site, path, 200, seconds=0.0005)
    worker = site.worker("--processes", "2", "default")
    wait_until(lambda: (long, 1) in runs(path), 20, every=0.001)
    began = time.monotonic()
    wait_until(lambda: len(runs(path)) == 401, 30, every=0.001)
    took = time.monotonic() - began
    print(f"all others ran within {took * 1000:.0f} ms of the begin of one that runs on")
    assert not is_long or took < 1.0
    gate.touch()
    site.wait_until_all("finished", 401)
    assert all_ran_once(site, path, 401)
    assert worker.terminate() == 0


@pytest.mark.parametrize("domain", ["queue", pytest.param("task", marks=pytest.mark.variants)])
def test_a_pause_takes_back_what_was_sent_ahead(
    new_site: Site, tmp_path: Path, domain: str
) -> None:
    site, path = new_site, tmp_path / "ran"
    target = {"queue": "queue/default", "task": f"task/{note_run.name}"}[domain]
    enqueue_runs(site, path, 1000, seconds=0.003)
    worker = site.worker("--processes", "2", "default")
    wait_until_at_work(site, path)
    operator = Operator(site.app.extensions["opsjobs"])
    with site.app.app_context():
        assert operator.run(f"{domain}.pause", [target], **WHY).is_done
    wait_until(lambda: reserved(site) == 0, 5, every=0.001)
    wait_until(lambda: len(attempts(site)) == len(runs(path)), 5)
    assert len(runs(path)) < 1000
    with site.app.app_context():
        assert operator.run(f"{domain}.resume", [target], **WHY).is_done
    site.wait_until_all("finished", 1000)
    assert all_ran_once(site, path, 1000)
    assert worker.terminate() == 0


@pytest.mark.slow
def test_a_cancel_of_what_begins_next_ends_that_job_only(new_site: Site, tmp_path: Path) -> None:
    """Of the first reserved jobs: in the parent, sent ahead, received, or begun."""
    site, path, dice, count = new_site, tmp_path / "ran", random.Random(14), 600
    enqueue_runs(site, path, count, seconds=0.003)
    worker = site.worker("--processes", "2", "default")
    wait_until_at_work(site, path)
    operator = Operator(site.app.extensions["opsjobs"])
    wished: set[int] = set()
    first = "SELECT id FROM opsjobs.jobs WHERE reserved_by IS NOT NULL ORDER BY id LIMIT 40"
    while len(wished) < 40:
        if not (reserved_now := [job_id for (job_id,) in site.rows(first)]):
            break
        job_id = dice.choice(reserved_now)
        with site.app.app_context(), suppress(ActionRefused):  # it has ended
            operator.cancel(job_id, **WHY)
            wished.add(job_id)
    open_jobs = "SELECT count(*) FROM opsjobs.jobs WHERE ended_at IS NULL"
    wait_until(lambda: site.rows(open_jobs) == [(0,)], 60)
    ends, ran = {job: outcome for job, _, outcome in attempts(site)}, runs(path)
    canceled = {job for (job,) in site.rows("SELECT id FROM opsjobs.jobs WHERE state = 'canceled'")}
    assert canceled <= wished
    assert len(attempts(site)) == len(ends), "nobody has a second attempt"
    assert {ends.get(job) for job in canceled} <= {None, "canceled"}
    assert {job for job, outcome in ends.items() if outcome == "returned"} == {
        job for (job,) in site.rows("SELECT id FROM opsjobs.jobs WHERE state = 'finished'")
    }
    assert {job for job, _ in ran} <= set(ends)
    assert set(ran.values()) == {1}
    print(
        f"{len(wished)} wishes, {len(canceled)} canceled, {len(canceled - set(ends))} before they began"
    )
    assert worker.terminate() == 0


def test_a_child_holds_no_socket_of_another_one(new_site: Site, tmp_path: Path) -> None:
    """Nor does one that was forked later, when others had theirs."""
    site, path = new_site, tmp_path / "ran"
    worker = site.worker("--processes", "4", "default")
    enqueue_runs(site, path, 4)
    # From now on it is connected.
    site.wait_until_all("finished", 4)
    children = wait_until(lambda: len(found := worker.job_children()) == 4 and found)
    children[0].kill()
    wait_until(lambda: children[0] not in (found := worker.job_children()) and len(found) == 4)
    enqueue_runs(site, path, 400)
    site.wait_until_all("finished", 404)

    def sockets(pid: int) -> set[str]:
        folder = Path(f"/proc/{pid}/fd")
        links = {os.readlink(one) for one in folder.iterdir()}
        return {link for link in links if link.startswith("socket:")}

    theirs = [sockets(child.pid) for child in worker.job_children()]
    ours = sockets(worker.pid)
    for place, one in enumerate(theirs):
        for other in theirs[place + 1 :]:
            assert one & other == set()
    # Its end of the orders, which the parent keeps.
    assert [len(one & ours) for one in theirs] == [1] * 4
    assert worker.terminate() == 0

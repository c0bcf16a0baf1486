"""What goes wrong with real processes is an incident, what looks like it is not, and its end clears it.

Here are the classes whose rows tests/lifeline/test_detectors.py writes as a fault would leave them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.loops import detect
from flask_opsjobs.testing.postgres import TemporaryPostgres
from tests.support import host as host_module
from tests.support.host import hold, hold_one, note_start, witness_alone
from tests.support.waiting import wait_until

from .conftest import Passes, Site

pytestmark = [pytest.mark.chaos, pytest.mark.slow]


@pytest.fixture
def own_postgres() -> Iterator[TemporaryPostgres]:
    """It answers a commit before it has written it, as many hosts have set theirs."""
    with TemporaryPostgres(durable=True, settings={"synchronous_commit": "off"}) as server:
        yield server


def enqueue(site: Site, task: Any, **arguments: Any) -> int:
    with site.app.app_context():
        job = task.enqueue(**arguments)
        host_module.db.session.commit()
    return int(job.id)


def incidents(site: Site, state: str) -> set[tuple[str, str]]:
    """The class and the subject of each incident in this state. A deleted row is one of its own."""
    found = site.rows("SELECT class, subject FROM opsjobs.incidents WHERE state = %s", state)
    return {(class_, subject) for class_, subject in found if class_ != "integrity_off"}


def look(site: Site, *seconds: float) -> None:
    """Make a detecting pass as if it were so many seconds later. No process of the loops may run."""
    with closing(Passes(site, detect.LOOP)) as passes:
        for each in seconds:
            passes.make(timedelta(seconds=each))


@contextmanager
def locked(site: Site, statement: str, *values: Any) -> Iterator[None]:
    """Hold locks in a transaction that stays open, as somebody's in `psql`."""
    with closing(connect_apart(site.app.extensions["opsjobs"].engine)) as connection:
        connection.autocommit = False
        connection.execute(statement, values)
        yield


def test_faults_at_a_running_site(new_site: Site, tmp_path: Path) -> None:
    """`lease_leaked`, `workflow_stuck`, `loop_silent` and `retry_storm`, one after the other in one site."""
    site = new_site
    leave_out_a_loop(site)
    loops = site.loops(OPSJOBS_ADOPT=False)
    site.worker("--processes", "6", "default", "limited", "mail")
    gate = leak_a_lease(site, tmp_path)
    make_a_storm(site, tmp_path)
    run, first_gate, second = start_runs(site, tmp_path)
    with locked(site, "SELECT FROM opsjobs.jobs WHERE id = %s FOR UPDATE", second):
        first_gate.touch()
        trouble = "SELECT trouble FROM opsjobs.workflows WHERE id = %s"
        wait_until(lambda: site.rows(trouble, run) != [(None,)], 20)
        # What `CREATE INDEX` holds: others read the table, and the loop `advance` cannot write it.
        with locked(site, "LOCK TABLE opsjobs.signals IN SHARE MODE"):
            at_once = {("loop_silent", "loop/advance"), ("retry_storm", "queue/default")}
            wait_until(lambda: incidents(site, "open") >= at_once, 40)
            wait_until(lambda: repeats(site) == {"default": 125, "mail": 125}, 20)
            loops.kill()
    later = {("lease_leaked", "limiter/one"), ("workflow_stuck", f"workflow/{run}")}
    assert incidents(site, "open") == at_once
    look(site, 35, 70, 75)
    assert incidents(site, "open") == at_once | later

    loops = site.loops(OPSJOBS_ADOPT=False)
    state = "SELECT state FROM opsjobs.workflows WHERE id = %s"
    wait_until(lambda: site.rows(state, run) == [("finished",)], 20)
    loops.kill()
    # Nobody releases it by himself: its job has no row.
    assert site.rows("DELETE FROM opsjobs.leases WHERE limiter = 'one' RETURNING 1") == [(1,)]
    look(site, 900)
    assert incidents(site, "open") == at_once | later, "after a sleep nothing is cleared"
    look(site, 905, 910)
    assert incidents(site, "open") == set()
    assert incidents(site, "resolved") == at_once | later
    gate.touch()


def leave_out_a_loop(site: Site) -> None:
    """A deploy turns the loop `adopt` off: nobody makes passes of it any more, and it is not silent."""
    old = site.loops()
    adopted = "SELECT FROM opsjobs.loop_runs WHERE loop = 'adopt'"
    wait_until(lambda: site.rows(adopted), 30)
    assert old.terminate(30) == 0


def leak_a_lease(site: Site, folder: Path) -> Path:
    """Somebody deletes the row of a limited job while it runs; its place is given back by its end only.

    No kill leaves that: one statement ends an attempt and gives its place back. A job of another limiter
    runs until somebody makes the returned file.
    """
    leaks, runs = folder / "leaks", folder / "runs"
    job = enqueue(site, hold_one, gate=str(leaks))
    other = enqueue(site, witness_alone, gate=str(runs))
    started = "SELECT count(*) FROM opsjobs.jobs WHERE state = 'started' AND id = ANY (%s)"
    wait_until(lambda: site.rows(started, [job, other]) == [(2,)], 30)
    assert site.rows("DELETE FROM opsjobs.jobs WHERE id = %s RETURNING id", job) == [(job,)]
    leaks.touch()
    wait_until(lambda: lets_go(site, job), 20)
    return runs


def make_a_storm(site: Site, folder: Path) -> None:
    """In two queues 25 jobs fail five times each. In the other one 300 more jobs return at once."""
    path = str(folder / "began")
    with site.app.app_context():
        host_module.give.options(queue="mail").enqueue_many([{}] * 300)
        for task in (note_start.options(queue="mail"), note_start):
            task.enqueue_many([{"path": path, "fails": 5}] * 25)
        host_module.db.session.commit()


def repeats(site: Site) -> dict[str, int]:
    """How many attempts of each queue repeated a failed one."""
    ended = "SELECT queue, count(*) FROM opsjobs.attempts a JOIN opsjobs.jobs j ON j.id = job_id"
    return dict(site.rows(f"{ended} WHERE a.attempt > 1 AND outcome IS NOT NULL GROUP BY 1"))


def start_runs(site: Site, folder: Path) -> tuple[int, Path, int]:
    """Start a run whose first step waits for a file, and one that waits for a signal.

    Return the first run, that file, and the job of its second step.
    """
    gate = folder / "first"
    with site.app.app_context():
        flow = host_module.opsjobs.workflow("order")
        first = flow.step("first", hold, gate=str(gate))
        flow.step("second", host_module.give, after=[first])
        run = flow.start()
        waits = host_module.opsjobs.workflow("waits")
        waits.wait("paid", signal="payment", key="order-42")
        waits.start()
        host_module.db.session.commit()
    wait_until(Path(f"{gate}.begun").exists, 20)
    second = "SELECT job_id FROM opsjobs.steps WHERE workflow_id = %s AND name = 'second'"
    ((job,),) = site.rows(second, run.id)
    return run.id, gate, job


def test_a_job_whose_end_postgres_has_lost_is_held_by_nobody(site: Site, tmp_path: Path) -> None:
    """A power cut takes the last commits, also the end of a job of which its worker has let go.

    The worker rescues such a job after two heartbeats, unless somebody's transaction holds its row.
    """
    worker = site.worker("--processes", "2", "default")
    gates = tmp_path / "ends", tmp_path / "runs"
    lost, runs = (enqueue(site, hold, gate=str(gate)) for gate in gates)
    started = "SELECT count(*) FROM opsjobs.jobs WHERE state = 'started'"
    wait_until(lambda: site.rows(started) == [(2,)], 30)
    stop_writing(site)
    gates[0].touch()
    state = "SELECT state FROM opsjobs.jobs WHERE id = %s"
    wait_until(lambda: site.rows(state, lost) == [("finished",)], 10)
    wait_until(lambda: lets_go(site, lost), 10)
    worker.freeze()
    site.postgres.kill()
    site.postgres.start()
    assert wait_until(lambda: site.rows(state, lost), 20) == [("started",)]
    with locked(site, "SELECT FROM opsjobs.jobs WHERE id = %s FOR UPDATE", lost):
        worker.thaw()
        loops = site.loops()
        wait_until(lambda: incidents(site, "open"), 30)
        facts = "SELECT class, facts->'jobs' FROM opsjobs.incidents"
        assert site.rows(facts) == [("held_by_nobody", [lost])]
    wait_until(lambda: site.rows(state, lost) == [("finished",)], 20)
    assert site.rows(state, runs) == [("started",)]
    loops.kill()
    look(site, 15, 30, 45)
    assert [class_ for class_, _ in incidents(site, "resolved")] == ["held_by_nobody"]
    gates[1].touch()


def lets_go(site: Site, job: int) -> bool:
    """Whether the worker of a job does not name it any more."""
    return not site.rows("SELECT FROM opsjobs.workers WHERE %s = ANY (reserved)", f"{job}-1")


def stop_writing(site: Site) -> None:
    """Let Postgres write all that it has, and from now on only what a commit waits for."""
    site.rows("CHECKPOINT")
    writers = "backend_type IN ('walwriter', 'checkpointer', 'background writer')"
    found = site.rows(f"SELECT pid FROM pg_stat_activity WHERE {writers}")
    assert len(found) == 3
    for (pid,) in found:
        psutil.Process(pid).suspend()

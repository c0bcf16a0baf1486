"""What goes wrong with real processes is an incident, and what looks like it is not. Its end clears the
incident, and when it goes wrong again the incident reopens.

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
from tests.support import host as host_module
from tests.support.database import MigratedPostgres
from tests.support.host import hold, hold_one, note_start, witness_alone
from tests.support.processes import Child
from tests.support.waiting import wait_until

from .conftest import Passes, Site

pytestmark = [pytest.mark.chaos, pytest.mark.slow]


@pytest.fixture
def own_postgres() -> Iterator[MigratedPostgres]:
    """It answers a commit before it has written it, as many hosts have set theirs."""
    with MigratedPostgres(synchronous_commit="off") as server:
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
    """`lease_leaked`, `workflow_stuck`, `loop_silent` and `retry_storm`, each twice, all in one site."""
    site = new_site
    leave_out_a_loop(site)
    loops = site.loops(OPSJOBS_ADOPT=False)
    site.worker("--processes", "6", "default", "limited", "mail")
    run, jobs, gates = start_runs(site, tmp_path)
    repeat_many(site, tmp_path, "mail", 25, beside=300)
    at_once = {("loop_silent", "loop/advance"), ("retry_storm", "queue/default")}
    later = {("lease_leaked", "limiter/one"), ("workflow_stuck", f"workflow/{run}")}

    repeat_many(site, tmp_path, "default", 25)
    other = leak_a_lease(site, tmp_path / "1")
    with stuck(site, run, jobs[1], gates[0], at_once):
        wait_until(lambda: repeats(site) == {"default": 125, "mail": 125}, 40)
        loops.kill()
    assert incidents(site, "open") == at_once
    look(site, 35, 70, 75)
    assert incidents(site, "open") == at_once | later
    other.touch()

    loops = site.loops(OPSJOBS_ADOPT=False)
    trouble = "SELECT trouble FROM opsjobs.workflows WHERE id = %s"
    wait_until(lambda: site.rows(trouble, run) == [(None,)], 20)
    release_lease(site)
    # As many that do not fail: most attempts of the queue are first ones again.
    run_without_a_fault(site, 110)
    loops.kill()
    look(site, 100)
    assert incidents(site, "open") == at_once | later, "after a sleep nothing is cleared"
    look(site, 105, 120, 136, 141)
    assert incidents(site, "open") == set()
    assert incidents(site, "resolved") == at_once | later

    loops = site.loops(OPSJOBS_ADOPT=False)
    repeat_many(site, tmp_path, "default", 5)
    other = leak_a_lease(site, tmp_path / "2")
    with stuck(site, run, jobs[2], gates[1], at_once):
        loops.kill()
    look(site, 146, 207)
    assert incidents(site, "open") == at_once | later
    episodes = "SELECT DISTINCT episode FROM opsjobs.incidents WHERE class <> 'integrity_off'"
    assert site.rows(episodes) == [(2,)]
    other.touch()


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
    folder.mkdir()
    leaks, runs = folder / "leaks", folder / "runs"
    job = enqueue(site, hold_one, gate=str(leaks))
    other = enqueue(site, witness_alone, gate=str(runs))
    started = "SELECT count(*) FROM opsjobs.jobs WHERE state = 'started' AND id = ANY (%s)"
    wait_until(lambda: site.rows(started, [job, other]) == [(2,)], 30)
    assert site.rows("DELETE FROM opsjobs.jobs WHERE id = %s RETURNING id", job) == [(job,)]
    leaks.touch()
    wait_until(lambda: lets_go(site, job), 20)
    return runs


def release_lease(site: Site) -> None:
    """Nobody releases it by himself: its job has no row."""
    assert site.rows("DELETE FROM opsjobs.leases WHERE limiter = 'one' RETURNING 1") == [(1,)]


def repeat_many(site: Site, folder: Path, queue: str, jobs: int, beside: int = 0) -> None:
    """So many jobs of a queue fail five times each; beside them so many return at once."""
    with site.app.app_context():
        host_module.give.options(queue=queue).enqueue_many([{}] * beside)
        fails = [{"path": str(folder / "began"), "fails": 5}] * jobs
        note_start.options(queue=queue).enqueue_many(fails)
        host_module.db.session.commit()


def run_without_a_fault(site: Site, jobs: int) -> None:
    """So many jobs run and return."""
    with site.app.app_context():
        host_module.give.enqueue_many([{}] * jobs)
        host_module.db.session.commit()
    done = """SELECT count(*) FROM opsjobs.jobs
        WHERE task = 'give' AND queue = 'default' AND state = 'finished'"""
    wait_until(lambda: site.rows(done) == [(jobs,)], 30)


@contextmanager
def stuck(
    site: Site, run: int, step: int, gate: Path, until: set[tuple[str, str]]
) -> Iterator[None]:
    """A run cannot be advanced to its next step, and then the loop `advance` itself is stuck.

    After the block that loop would advance the run.
    """
    with locked(site, "SELECT FROM opsjobs.jobs WHERE id = %s FOR UPDATE", step):
        gate.touch()
        trouble = "SELECT trouble FROM opsjobs.workflows WHERE id = %s"
        wait_until(lambda: site.rows(trouble, run) != [(None,)], 20)
        # What `CREATE INDEX` holds: others read the table, and the loop `advance` cannot write it.
        with locked(site, "LOCK TABLE opsjobs.signals IN SHARE MODE"):
            wait_until(lambda: incidents(site, "open") >= until, 40)
            yield


def repeats(site: Site) -> dict[str, int]:
    """How many attempts of each queue repeated a failed one."""
    ended = "SELECT queue, count(*) FROM opsjobs.attempts a JOIN opsjobs.jobs j ON j.id = job_id"
    return dict(site.rows(f"{ended} WHERE a.attempt > 1 AND outcome IS NOT NULL GROUP BY 1"))


def start_runs(site: Site, folder: Path) -> tuple[int, list[int], list[Path]]:
    """Start a run of three steps, of which two wait for files, and one that waits for a signal.

    Return the first run, the jobs of its steps, and those files.
    """
    gates = [folder / "first", folder / "second"]
    with site.app.app_context():
        flow = host_module.opsjobs.workflow("order")
        first = flow.step("first", hold, gate=str(gates[0]))
        second = flow.step("second", hold, gate=str(gates[1]), timeout=600, after=[first])
        flow.step("third", host_module.give, after=[second])
        run = flow.start()
        waits = host_module.opsjobs.workflow("waits")
        waits.wait("paid", signal="payment", key="order-42")
        waits.start()
        host_module.db.session.commit()
    wait_until(Path(f"{gates[0]}.begun").exists, 20)
    steps = "SELECT job_id FROM opsjobs.steps WHERE workflow_id = %s ORDER BY job_id"
    return run.id, [job for (job,) in site.rows(steps, run.id)], gates


def test_a_job_whose_end_postgres_has_lost_is_held_by_nobody(site: Site, tmp_path: Path) -> None:
    """A power cut takes the last commits, also the end of a job of which its worker has let go.

    The worker rescues such a job after two heartbeats, unless somebody's transaction holds its row.
    """
    worker = site.worker("--processes", "3", "default")
    gates = [tmp_path / name for name in ("first", "again", "runs")]
    *jobs, runs = (enqueue(site, hold, gate=str(gate), timeout=600) for gate in gates)
    started = "SELECT count(*) FROM opsjobs.jobs WHERE state = 'started'"
    wait_until(lambda: site.rows(started) == [(3,)], 30)
    for episode, lost, gate, later in ((1, jobs[0], gates[0], 0), (2, jobs[1], gates[1], 50)):
        lose_the_end(site, worker, lost, gate)
        with locked(site, "SELECT FROM opsjobs.jobs WHERE id = %s FOR UPDATE", lost):
            worker.thaw()
            loops = site.loops()
            wait_until(lambda: incidents(site, "open"), 30)
            facts = "SELECT class, facts->'jobs', episode FROM opsjobs.incidents"
            assert site.rows(facts) == [("held_by_nobody", [lost], episode)]
        wait_until(lambda lost=lost: state_of(site, lost) == "finished", 20)
        assert state_of(site, runs) == "started"
        loops.kill()
        look(site, later + 15, later + 30, later + 45)
        assert [class_ for class_, _ in incidents(site, "resolved")] == ["held_by_nobody"]
    gates[2].touch()


def lose_the_end(site: Site, worker: Child, job: int, gate: Path) -> None:
    """End a job, cut the power of Postgres before that is on the disk, and freeze its worker meanwhile."""
    stop_writing(site)
    gate.touch()
    wait_until(lambda: state_of(site, job) == "finished", 10)
    wait_until(lambda: lets_go(site, job), 10)
    worker.freeze()
    site.postgres.kill()
    site.postgres.start()
    assert wait_until(lambda: state_of(site, job), 20) == "started"


def state_of(site: Site, job: int) -> str | None:
    """The state of a job; None while Postgres is away."""
    rows = site.rows("SELECT state FROM opsjobs.jobs WHERE id = %s", job)
    return rows[0][0] if rows else None


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

"""Kill each part in the middle: no job is lost, and none whose end was recorded runs again."""

from __future__ import annotations

import signal
import time
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis import Redis
from rq import Queue

from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.engine.dispatch import after_commit
from flask_opsjobs.engine.reconcile.observe import observe
from tests.support.database import Administrator
from tests.support.host import add, die, hold, note, witness, witness_alone
from tests.support.host import db as host_db
from tests.support.processes import Child, is_alive
from tests.support.waiting import wait_until

from .conftest import Site

pytestmark = [pytest.mark.chaos, pytest.mark.slow]
# The kinds of a worker. To fork for each of some hundred jobs takes most of the time, and the parent is the
# same, which is killed or stands still.
KINDS = [(), pytest.param(("--jobs-per-process", "1"), marks=pytest.mark.variants)]


def enqueue(site: Site, task: Any, **args: Any) -> int:
    with site.app.app_context():
        job = task.enqueue(**args)
        host_db.session.commit()
    return job.id


def enqueue_notes(site: Site, path: Path, count: int) -> None:
    with site.app.app_context():
        note.enqueue_many({"path": str(path), "line": str(number)} for number in range(count))
        host_db.session.commit()


def ran(path: Path) -> list[int]:
    return sorted(int(line) for line in path.read_text().split()) if path.exists() else []


def test_the_child_by_sigkill(new_site: Site) -> None:
    new_site.worker()
    new_site.moving_loops()
    job_id = enqueue(new_site, die, attempts=1)
    new_site.wait_until_all("finished", 1)
    attempts = new_site.rows(
        "SELECT outcome, cause_of_death FROM opsjobs.attempts WHERE job_id = %s ORDER BY dispatch_no",
        job_id,
    )
    assert [outcome for outcome, _ in attempts] == ["died", "returned"]
    assert "SIGKILL" in attempts[0][1]


def test_worker_and_child_together(new_site: Site, tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")
    first = new_site.worker("default")
    new_site.moving_loops()
    job_id = enqueue(new_site, hold, gate=gate)
    wait_until(Path(gate + ".begun").exists, 20)
    # A job that runs for a moment only is not written as started: its end says when it began.
    wait_until(lambda: new_site.states() == {"started": 1}, 10)
    first.kill_all()
    Path(gate + ".begun").unlink()
    new_site.worker("default")
    wait_until(Path(gate + ".begun").exists, 30, what="the rescued job has begun again")
    Path(gate).touch()
    new_site.wait_until_all("finished", 1)
    attempts = new_site.rows(
        "SELECT outcome, cause_of_death FROM opsjobs.attempts WHERE job_id = %s ORDER BY dispatch_no",
        job_id,
    )
    assert [outcome for outcome, _ in attempts] == ["lost", "returned"]
    assert "vanished" in attempts[0][1]


def test_a_child_does_not_outlive_its_sigkilled_worker(new_site: Site, tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")
    worker = new_site.worker("default")
    enqueue(new_site, hold, gate=gate)
    wait_until(Path(gate + ".begun").exists, 20)
    children = worker.job_children()
    assert children
    worker.kill()
    wait_until(
        lambda: not any(is_alive(child) for child in children), 5, what="its children are gone"
    )


DIES_BEFORE_ITS_PUSH = """
import os, signal
from tests.support.host import add, create_app, db
app = create_app()
app.extensions["opsjobs"].broker.push = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
with app.app_context():
    add.enqueue(a=1, b=2)
    db.session.commit()
"""


def test_the_dispatcher_between_commit_and_push(site: Site, children: Any) -> None:
    """A host's process dispatches in its hook, commits, and is killed where it would push."""
    environ = {"TEST_DATABASE_URL": site.database_url, "TEST_REDIS_URL": site.valkey.url}
    dispatcher = children.python("-c", DIES_BEFORE_ITS_PUSH, env=environ)
    assert dispatcher.wait() == -signal.SIGKILL
    site.worker()
    assert site.states() == {"queued": 1}
    site.moving_loops()
    site.wait_until_all("finished", 1)


def test_redis_restarted_empty_while_jobs_are_queued(new_site: Site, tmp_path: Path) -> None:
    path = tmp_path / "ran"
    enqueue_notes(new_site, path, 30)
    assert new_site.states().get("queued", 0) > 0
    new_site.valkey.kill()
    new_site.valkey.start()
    new_site.worker()
    new_site.moving_loops()
    new_site.wait_until_all("finished", 30)
    assert ran(path) == list(range(30))


@pytest.mark.parametrize("kind", KINDS)
def test_redis_killed_and_restarted_empty_under_load(
    new_site: Site, tmp_path: Path, kind: tuple[str, ...]
) -> None:
    path = tmp_path / "ran"
    enqueue_notes(new_site, path, 200)
    worker = new_site.worker(*kind)
    new_site.moving_loops()
    wait_until(lambda: len(ran(path)) >= 40, 30)
    new_site.valkey.kill()
    new_site.valkey.start()
    new_site.wait_until_all("finished", 200)
    assert ran(path) == list(range(200)), "each once: only the deliveries were lost"
    assert worker.exit_code is None


@pytest.mark.parametrize("kind", KINDS)
def test_redis_frozen_under_load(new_site: Site, tmp_path: Path, kind: tuple[str, ...]) -> None:
    """Pitfall: RQ's command channel dies on a time-out, and its worker waits for minutes."""
    path = tmp_path / "ran"
    enqueue_notes(new_site, path, 100)
    worker = new_site.worker(*kind)
    new_site.moving_loops()
    wait_until(lambda: len(ran(path)) >= 20, 30)
    new_site.valkey.freeze()
    try:
        worker.wait_for("Redis is away", 30)
    finally:
        new_site.valkey.thaw()
    new_site.wait_until_all("finished", 100)
    assert set(ran(path)) == set(range(100))
    assert worker.exit_code is None
    assert worker.terminate() == 0


def test_redis_frozen_leaves_host_requests_unharmed(
    new_site: Site, redis_waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The hook is silent as long as the test lasts.
    monkeypatch.setattr(after_commit, "_PAUSE_SECONDS", 3600)
    enqueue(new_site, add, a=0, b=0)
    new_site.valkey.freeze()
    try:
        for number in range(20):
            enqueue(new_site, add, a=number, b=1)
    finally:
        new_site.valkey.thaw()
    # One request pays 0.2 s twice at most; the others find the hook silent.
    assert redis_waits in ([0.2], [0.2, 0.2])
    new_site.worker()
    new_site.moving_loops()
    new_site.wait_until_all("finished", 21)


def test_redis_away_leaves_host_requests_unharmed(new_site: Site, redis_waits: list[float]) -> None:
    new_site.valkey.kill()
    enqueue(new_site, add, a=1, b=1)
    assert redis_waits == [0.2]
    new_site.valkey.start()
    new_site.worker()
    new_site.moving_loops()
    new_site.wait_until_all("finished", 1)


@pytest.mark.parametrize("kind", KINDS)
def test_postgres_killed_under_load(site: Site, tmp_path: Path, kind: tuple[str, ...]) -> None:
    path = tmp_path / "ran"
    count = 300
    enqueue_notes(site, path, count)
    site.worker(*kind)
    site.worker(*kind)
    site.moving_loops()
    for share in (0.2, 0.5):
        wait_until(
            lambda share=share: len(ran(path)) >= count * share, 60, what="some jobs have run"
        )
        ended = {id for (id,) in site.rows("SELECT id FROM opsjobs.jobs WHERE state = 'finished'")}
        site.postgres.kill()
        site.postgres.start()
        # An end that was recorded stays.
        wait_until(lambda: site.rows("SELECT 1"), 30, what="Postgres is back")
        still = {id for (id,) in site.rows("SELECT id FROM opsjobs.jobs WHERE state = 'finished'")}
        assert ended <= still
    site.wait_until_all("finished", count, timeout=90)
    assert set(ran(path)) == set(range(count)), "every job ran"
    # Once each, but for those that had run when the kill took the record of it: the at-least-once window.
    assert len(ran(path)) - count <= 40


def test_flushall_while_a_job_runs(new_site: Site, tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")
    new_site.worker("default")
    new_site.moving_loops()
    job_id = enqueue(new_site, hold, gate=gate)
    wait_until(Path(gate + ".begun").exists, 20)
    new_site.valkey.flushall()
    # Longer than a recall needs: a heartbeat that holds it says that it runs.
    passes = "SELECT passes FROM opsjobs.loop_runs WHERE loop = 'recall' ORDER BY id DESC LIMIT 1"
    wait_until(
        lambda: (new_site.rows(passes) or [(0,)])[0][0] >= 3, 30, what="three passes of recall"
    )
    Path(gate).touch()
    new_site.wait_until_all("finished", 1)
    assert new_site.rows("SELECT attempt FROM opsjobs.jobs WHERE id = %s", job_id) == [(1,)]


def test_a_worker_stops_in_order_and_loses_nothing(new_site: Site, tmp_path: Path) -> None:
    path = tmp_path / "ran"
    enqueue_notes(new_site, path, 60)
    worker = new_site.worker()
    wait_until(lambda: len(ran(path)) >= 5, 30)
    assert worker.terminate() == 0
    states = new_site.states()
    assert states.get("started", 0) == 0
    assert sum(states.values()) == 60
    new_site.worker()
    new_site.moving_loops()
    new_site.wait_until_all("finished", 60)
    assert ran(path) == list(range(60)), "none ran twice"


def wait_until_a_second_signal_is_no_echo(redis: Redis) -> None:
    """RQ takes one within a second for an echo of the first. Counted from when the worker has seen the first,
    which may be late.
    """
    for key in redis.smembers("rq:workers"):
        wait_until(lambda key=key: redis.hget(key, "shutdown_requested_date"), 20)
    seen = time.monotonic()
    wait_until(lambda: time.monotonic() - seen > 1.2)


@pytest.mark.parametrize("kind", [(), ("--jobs-per-process", "1")])
def test_a_second_signal_ends_the_job_at_hand_and_it_runs_again(
    new_site: Site, tmp_path: Path, kind: tuple[str, ...]
) -> None:
    gate = str(tmp_path / "gate")
    worker = new_site.worker("default", *kind)
    job_id = enqueue(new_site, hold, gate=gate)
    wait_until(Path(gate + ".begun").exists, 20)
    worker.signal(signal.SIGTERM)
    with Redis.from_url(new_site.valkey.url) as redis:
        wait_until_a_second_signal_is_no_echo(redis)
    worker.signal(signal.SIGTERM)
    worker.wait(20)
    (outcome, cause), *_ = new_site.rows(
        "SELECT outcome, cause_of_death FROM opsjobs.attempts WHERE job_id = %s", job_id
    )
    assert outcome == "died"
    assert "stopped" in cause
    assert new_site.rows("SELECT state FROM opsjobs.jobs WHERE id = %s", job_id) == [("retryable",)]


@pytest.mark.parametrize("kind", [(), ("--jobs-per-process", "1")])
def test_a_second_signal_ends_a_plain_rq_job(
    new_site: Site, tmp_path: Path, kind: tuple[str, ...]
) -> None:
    gate = str(tmp_path / "gate")
    worker = new_site.worker("default", "--log-level", "INFO", *kind)
    with Redis.from_url(new_site.valkey.url) as redis:
        queue = Queue("default", connection=redis)
        job = queue.enqueue("tests.support.host.hold_plainly", gate)
        wait_until(Path(gate + ".begun").exists, 20)
        assert f"default: {job.description} ({job.id})" in worker.log, "RQ's line"
        of_jobs = worker.job_children()
        worker.signal(signal.SIGTERM)
        wait_until_a_second_signal_is_no_echo(redis)
        assert worker.exit_code is None, "the first signal waits for the job"
        worker.signal(signal.SIGTERM)
        assert worker.wait(20) == 0
        assert job.get_status() == "failed"
        assert not [child for child in of_jobs if child.is_running()]


GETS_TWO_SIGNALS_BEFORE_ITS_JOB_IS_SENT = """
import os, signal, sys
from flask_opsjobs.cli.worker import run
from flask_opsjobs.engine.worker.frames import PlainRun
from flask_opsjobs.engine.worker.parent import Parent, WorkerOptions
from tests.support.host import create_app

send = Parent._send_rq_work

def be_told_twice(self, place, work, *limit):
    if isinstance(work, PlainRun):
        os.kill(os.getpid(), signal.SIGTERM)
        self._stopped_at -= 2
        os.kill(os.getpid(), signal.SIGTERM)
    send(self, place, work, *limit)

Parent._send_rq_work = be_told_twice
app = create_app()
with app.app_context():
    sys.exit(run(app, ["default"], WorkerOptions(with_scheduler=False)))
"""


def test_a_second_signal_before_the_child_has_the_job_ends_it_all_the_same(
    new_site: Site, tmp_path: Path
) -> None:
    with Redis.from_url(new_site.valkey.url) as redis:
        queue = Queue("default", connection=redis)
        job = queue.enqueue("tests.support.host.hold_plainly", str(tmp_path / "gate"))
        assert new_site.python(GETS_TWO_SIGNALS_BEFORE_ITS_JOB_IS_SENT).wait(30) == 0
        assert job.get_status() == "failed"


# --- freezes: a process stands still, its job is rescued and runs elsewhere, and then it goes on


def enqueue_witnesses(site: Site, count: int, task: Any = witness, **args: Any) -> list[int]:
    return [enqueue(site, task, **args) for _ in range(count)]


def begun(site: Site, job_id: int) -> list[int]:
    """The processes in which the function began, in order."""
    found = site.rows("SELECT pid FROM public.begun WHERE job_id = %s ORDER BY at", job_id)
    return [pid for (pid,) in found]


def wait_until_ended(site: Site, jobs: list[int], timeout: float = 60) -> None:
    ended = "SELECT count(*) FROM opsjobs.jobs WHERE id = ANY (%s) AND ended_at IS NOT NULL"
    wait_until(lambda: site.rows(ended, jobs) == [(len(jobs),)], timeout, what=f"ends of {jobs}")


def family(child: Child) -> list[psutil.Process]:
    return [psutil.Process(child.pid), *child.children()]


def is_stopped(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_STOPPED


FREEZES_BEFORE_ITS_FIRST_JOB_IS_SENT = """
import os, select, signal, sys
from flask_opsjobs.cli.worker import run
from flask_opsjobs.engine.worker.parent import Parent, WorkerOptions
from tests.support.host import create_app

send = Parent._send_job

def freeze(self, place, *args, **options):
    Parent._send_job = send
    os.kill(os.getpid(), signal.SIGSTOP)
    is_sent = send(self, place, *args, **options)
    # Until its child answers. Meanwhile this process would take back what the child is slow to receive.
    if is_sent:
        select.select([place.child], [], [], 20)
    return is_sent

Parent._send_job = freeze
app = create_app()
jobs_per_process = 1 if "--jobs-per-process" in sys.argv else 1000
with app.app_context():
    sys.exit(run(app, ["default"], WorkerOptions(jobs_per_process=jobs_per_process)))
"""


def freeze_between_reservation_and_function(site: Site, kind: tuple[str, ...]) -> None:
    """The worker stands still with a reserved job;
    its job is rescued, runs elsewhere and ends; then it goes on.
    """
    (job_id,) = jobs = enqueue_witnesses(site, 1)
    frozen = site.python(FREEZES_BEFORE_ITS_FIRST_JOB_IS_SENT, *kind)
    wait_until(
        lambda: is_stopped(frozen.pid), 30, what="the worker has reserved it and stands still"
    )
    other = site.worker("default")
    wait_until_ended(site, jobs)
    other.terminate()
    frozen.thaw()
    # When this one has ended, the frozen worker has dealt with the one before.
    jobs += enqueue_witnesses(site, 1)
    wait_until_ended(site, jobs)
    assert len(begun(site, job_id)) == 1, "it did not begin a second time"
    site.assert_unharmed(jobs)
    frozen.wait_for(f"job {job_id} does not run here: its reservation had ended")


@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_frozen_between_reservation_and_function(
    new_site: Site, kind: tuple[str, ...]
) -> None:
    new_site.moving_loops()
    freeze_between_reservation_and_function(new_site, kind)


PLAIN_APP_THAT_FREEZES_AFTER_A_CLAIM = """
import os, signal, sys
sys.path.insert(0, os.getcwd())
from flask_opsjobs.engine.worker import plain_worker
from tests.support.host import create_app

claim = plain_worker.claim

def claim_and_freeze(*args, **options):
    claimed = claim(*args, **options)
    os.kill(os.getpid(), signal.SIGSTOP)
    return claimed

plain_worker.claim = claim_and_freeze
"""


def test_a_plain_rq_worker_frozen_between_claim_and_function(
    new_site: Site, tmp_path: Path
) -> None:
    """A worker of RQ's own, with its work horse: RQ's key of it expires, and its job runs elsewhere."""
    app = tmp_path / "plain_app.py"
    app.write_text(PLAIN_APP_THAT_FREEZES_AFTER_A_CLAIM)
    jobs = enqueue_witnesses(new_site, 1)
    plain = new_site.plain_worker("default", app=str(app))
    wait_until(
        lambda: any(is_stopped(each.pid) for each in plain.children()),
        30,
        what="its work horse stands",
    )
    (work_horse,) = plain.job_children()
    plain.freeze()
    with Redis.from_url(new_site.valkey.url) as redis:
        for key in redis.smembers("rq:workers"):  # What its expiry leaves, 8 minutes later.
            redis.delete(key)
    host = new_site.app.extensions["opsjobs"]
    with closing(connect_apart(host.engine)) as connection:
        later = read_clock(connection) + timedelta(minutes=10)
        _, vanished = observe(connection, host.broker, ["default"], later)
    assert len(vanished) == 1
    new_site.moving_loops()
    other = new_site.worker("default")
    wait_until_ended(new_site, jobs)
    assert other.terminate() == 0
    work_horse.resume()
    plain.thaw()
    wait_until(lambda: not is_alive(work_horse), 30, what="its end")
    new_site.assert_unharmed(jobs)
    assert len(begun(new_site, jobs[0])) == 1


def freeze_while_it_runs(site: Site, kind: tuple[str, ...], gate: Path) -> None:
    """A worker and its child stand still in the middle of a job, which then runs elsewhere; then they go on.

    The job has a limit of one at a time.
    """
    frozen = site.worker("limited", *kind)
    (job_id,) = jobs = enqueue_witnesses(site, 1, witness_alone, gate=str(gate))
    (first,) = wait_until(lambda: begun(site, job_id), 20, what="it has begun")
    processes = family(frozen)
    for process in processes:
        process.suspend()
    other = site.worker("limited", *kind)
    _, second = wait_until(
        lambda: len(begun(site, job_id)) == 2 and begun(site, job_id), 30, what="it runs elsewhere"
    )
    for process in processes:
        # The worker goes on first, and may have killed its child by now.
        with suppress(psutil.NoSuchProcess):
            process.resume()
    if not kind:
        wait_until(lambda: not psutil.pid_exists(first), 10, what="the first child is gone")
    frozen.wait_for("does not run here any more", 10)
    assert psutil.pid_exists(second)
    assert site.rows("SELECT job_id, dispatch_no FROM opsjobs.leases") == [(job_id, 2)]
    gate.touch()
    wait_until_ended(site, jobs)
    # The worker that was frozen goes on.
    assert other.terminate() == 0
    jobs += enqueue_witnesses(site, 1, witness_alone)
    wait_until_ended(site, jobs)
    attempts = "SELECT outcome FROM opsjobs.attempts WHERE job_id = %s ORDER BY dispatch_no"
    assert site.rows(attempts, job_id) == [("lost",), ("returned",)]
    site.assert_unharmed(jobs)


@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_frozen_while_it_runs_a_job_that_is_rescued(
    new_site: Site, tmp_path: Path, kind: tuple[str, ...]
) -> None:
    new_site.moving_loops()
    freeze_while_it_runs(new_site, kind, tmp_path / "gate")


# --- Postgres refuses what it took before: a failover, a recorder without a connection


def enqueue_many_witnesses(site: Site, count: int, dsn: str) -> list[int]:
    with site.app.app_context():
        witness.enqueue_many([{"dsn": dsn}] * count)
        host_db.session.commit()
        host_db.engine.dispose()
    return [id for (id,) in site.rows("SELECT id FROM opsjobs.jobs")]


def count_begun(site: Site) -> int:
    return int(site.rows("SELECT count(*) FROM public.begun")[0][0])


def make_the_database_read_only(
    site: Site, administrator: Administrator, workers: list[Child]
) -> None:
    """As a failover to a replica does.

    Each worker holds the one delivery that it took; then the database writes.
    """
    administrator.fail_over()
    for worker in workers:
        worker.wait_for("ReadOnlySqlTransaction", 30)
    with Redis.from_url(site.valkey.url) as redis:
        queue = Queue("default", connection=redis)
        before, began = queue.count, time.monotonic()
        wait_until(lambda: time.monotonic() - began > 8, 10)
        assert queue.count >= before - len(workers)
    administrator.fail_back()


def cut_the_recorders_off(site: Site, administrator: Administrator, workers: list[Child]) -> None:
    """Claims go on and no outcome is written, until lifeline has rescued the first jobs;
    then outcomes are written.
    """
    administrator.cut_recorders_off()
    for worker in workers:
        worker.wait_for("takes no more jobs", 30)
    before = count_begun(site)
    lost = "SELECT 1 FROM opsjobs.jobs WHERE lost_reservations > 0"
    wait_until(lambda: site.rows(lost), 30, what="the first jobs were rescued")
    passes = "SELECT max(passes) FROM opsjobs.loop_runs WHERE loop = 'dispatch'"
    ((seen,),) = site.rows(passes)
    wait_until(lambda: site.rows(passes)[0][0] > seen + 2, 20, what="they were dispatched again")
    assert count_begun(site) == before, "none was performed that could not be recorded"
    administrator.let_recorders_in()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", [make_the_database_read_only, cut_the_recorders_off])
def test_postgres_refuses_what_workers_write(
    site: Site, administrator: Administrator, kind: tuple[str, ...], fault: Any
) -> None:
    # More than run before the fault: with a process for each job they take far longer.
    jobs = enqueue_many_witnesses(site, 150 if kind else 300, administrator.dsn)
    url = administrator.url_of_role()
    workers = [site.worker(*kind, SQLALCHEMY_DATABASE_URI=url) for _ in range(2)]
    loops = site.moving_loops()
    wait_until(lambda: count_begun(site) >= 20, 40, what="some jobs have begun")
    fault(site, administrator, workers)
    wait_until_ended(site, jobs, 120)
    site.assert_unharmed(jobs)
    for child in [*workers, loops]:
        assert child.exit_code is None
        assert "Traceback" not in child.log
        assert child.log.count("Postgres is away") <= 2

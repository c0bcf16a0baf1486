"""RQ's scheduler under our worker: plain jobs for later run, whatever becomes of Redis,
of a job, or of the worker.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psutil
import pytest
from redis import Redis
from rq import Queue, Repeat, Retry
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.scheduler import RQScheduler

from flask_opsjobs.engine.worker.rq_scheduler import OpsScheduler
from flask_opsjobs.testing.valkey import Valkey
from tests.support.processes import Child, Children, is_alive
from tests.support.waiting import wait_until

KINDS = [(), ("--jobs-per-process", "1")]
LOCK = RQScheduler.get_locking_key("default")
SOON = timedelta(milliseconds=10)


@pytest.fixture
def queue(site: Any, redis_client: Redis) -> Queue:
    """A queue of the host, which uses RQ beside us."""
    return Queue("default", connection=redis_client)


def schedulers_of(worker: Child, redis: Redis) -> list[psutil.Process]:
    """The processes of the worker that have registered as RQ's scheduler: one at most."""
    pids = {int(redis.hget(key, "pid") or 0) for key in redis.keys("rq:scheduler:*")}
    return [process for process in worker.children() if process.pid in pids and is_alive(process)]


def scheduler_of(worker: Child, redis: Redis) -> psutil.Process:
    """The process of the worker's scheduler."""
    (found,) = wait_until(lambda: schedulers_of(worker, redis), 20, what="a scheduler")
    return found


def wait_until_finished(job: RQJob, timeout: float = 30) -> None:
    wait_until(lambda: job.get_status(refresh=True) == JobStatus.FINISHED, timeout)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_jobs_for_later_are_run(children: Children, kind: tuple[str, ...], queue: Queue) -> None:
    """Each of RQ's three ways: a time, an interval between retries, and between repetitions."""
    later = queue.enqueue_in(SOON, "os.getpid", result_ttl=60)
    retried = queue.enqueue("os.no_such_function", retry=Retry(max=1, interval=1))
    repeated = queue.enqueue("os.getpid", repeat=Repeat(times=1, interval=1), result_ttl=60)
    worker = children.flask("opsjobs", "worker", "default", *kind)
    wait_until_finished(later)
    wait_until(lambda: len(repeated.results()) == 2, 30, what="both results")
    wait_until(lambda: retried.get_status(refresh=True) == JobStatus.FAILED, 30)
    assert worker.terminate() == 0
    assert not queue.connection.exists(LOCK), "the next one need not wait for it"


def test_a_burst_runs_what_is_due(children: Children, queue: Queue) -> None:
    due = queue.enqueue_in(timedelta(0), "os.getpid", result_ttl=60)
    later = queue.enqueue_in(timedelta(hours=1), "os.getpid")
    assert children.flask("opsjobs", "worker", "default", "--burst").wait(30) == 0
    wait_until_finished(due, 1)
    assert later.get_status(refresh=True) == JobStatus.SCHEDULED
    assert not queue.connection.exists(LOCK)


def test_it_can_be_left_out(children: Children, queue: Queue) -> None:
    worker = children.flask("opsjobs", "worker", "default", "--no-scheduler")
    worker.wait_for("listens to")
    assert (schedulers_of(worker, queue.connection), queue.connection.exists(LOCK)) == ([], 0)


def test_it_leaves_a_queue_to_another_scheduler(children: Children, queue: Queue) -> None:
    other = RQScheduler([queue], connection=queue.connection)
    assert other.acquire_locks() == {"default"}
    worker = children.flask("opsjobs", "worker", "default")
    worker.wait_for("listens to")
    assert schedulers_of(worker, queue.connection) == []
    assert queue.connection.get(LOCK) == other.name.encode()


def test_it_stops_at_once(queue: Queue) -> None:
    """RQ's own sleeps to the end of its interval, and so each stop of a worker took up to a second."""
    scheduler = OpsScheduler([queue], connection=queue.connection, interval=600)
    scheduler.acquire_locks()
    process = scheduler.start()
    wait_until(lambda: queue.connection.hget(scheduler.key, "pid"), what="its birth")
    process.terminate()
    process.join(20)
    assert process.exitcode == 0
    assert not queue.connection.exists(LOCK)


@pytest.mark.chaos
def test_it_dies_with_its_worker(children: Children, queue: Queue) -> None:
    worker = children.flask("opsjobs", "worker", "default")
    scheduler = scheduler_of(worker, queue.connection)
    worker.kill()
    wait_until(lambda: not scheduler.is_running(), 10)


LOOKS_OFTEN = """
import sys
from flask_opsjobs.cli.worker import run
from flask_opsjobs.engine.worker import rq_link
from flask_opsjobs.engine.worker.parent import WorkerOptions
from tests.support.host import create_app

rq_link.SCHEDULER_SECONDS = 0.2
app = create_app()
with app.app_context():
    sys.exit(run(app, ["default"], WorkerOptions()))
"""


@pytest.mark.slow
@pytest.mark.chaos
def test_another_worker_takes_over(children: Children, queue: Queue) -> None:
    first = children.flask("opsjobs", "worker", "default")
    scheduler_of(first, queue.connection)
    second = children.python("-c", LOOKS_OFTEN)
    second.wait_for("listens to", 30)
    assert schedulers_of(second, queue.connection) == []
    first.kill_all()
    queue.connection.delete(LOCK)  # What its expiry leaves after a minute.
    killed = scheduler_of(second, queue.connection)
    killed.kill()
    wait_until(lambda: not is_alive(killed), 10)
    scheduler_of(second, queue.connection)  # A new one.
    wait_until_finished(queue.enqueue_in(SOON, "os.getpid", result_ttl=60))


@pytest.mark.slow
@pytest.mark.chaos
def test_it_outlasts_redis(site: Any, children: Children, own_valkey: Valkey) -> None:
    worker = children.flask("opsjobs", "worker", "default", OPSJOBS_REDIS_URL=own_valkey.url)
    with own_valkey.client() as redis:
        scheduler = scheduler_of(worker, redis)
    own_valkey.kill()
    worker.wait_for("RQ's scheduler waits for Redis", 20)
    own_valkey.start()
    with own_valkey.client() as redis:
        job = Queue("default", connection=redis).enqueue_in(SOON, "os.getpid", result_ttl=60)
        wait_until_finished(job)
        assert scheduler_of(worker, redis) == scheduler, "it never ended"
    assert worker.log.count("RQ's scheduler waits for Redis") == 1
    assert worker.terminate() == 0


def test_a_job_that_cannot_be_read_holds_up_no_other(children: Children, queue: Queue) -> None:
    unreadable = queue.enqueue_in(SOON, "os.getpid")
    job = queue.enqueue_in(SOON, "os.getpid", result_ttl=60)
    queue.connection.hset(unreadable.key, "timeout", "not a number")
    worker = children.flask("opsjobs", "worker", "default")
    wait_until_finished(job)
    assert queue.connection.hget(unreadable.key, "status") == b"failed"
    assert queue.connection.zcard(queue.scheduled_job_registry.key) == 0
    assert f"RQ job {unreadable.id} on queue default cannot be read" in worker.log

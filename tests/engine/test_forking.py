"""What a child of a worker inherits from its parent's other threads: no lock that one of them holds."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from flask import Flask
from sqlalchemy import make_url

from flask_opsjobs.engine.redis.broker import broker_of
from flask_opsjobs.engine.redis.connections import RedisConnections
from flask_opsjobs.engine.worker import runtime
from flask_opsjobs.engine.worker.parent import WorkerOptions
from flask_opsjobs.testing.valkey import Valkey
from tests.engine.site import rows
from tests.support.busy_parent import enqueue_another
from tests.support.host import db, give
from tests.support.processes import Children
from tests.support.waiting import wait_until

JOBS = 30
BURST = ("--burst", "--jobs-per-process", "1", "default")


@pytest.mark.slow
@pytest.mark.processes
def test_no_child_hangs_in_a_lock_that_a_thread_of_the_host_held_at_the_fork(
    site: Flask, children: Children
) -> None:
    site.extensions["opsjobs"].dispatcher = None
    enqueue_another.enqueue_many({} for _ in range(JOBS))
    db.session.commit()
    app = ("-m", "flask", "--app", "tests.support.busy_parent")
    worker = children.python(*app, "opsjobs", "worker", *BURST)
    assert worker.wait(30) == 0
    assert rows("SELECT outcome, count(*) FROM opsjobs.attempts GROUP BY 1") == [("returned", JOBS)]
    assert rows("SELECT state, count(*) FROM opsjobs.jobs WHERE queue = 'other' GROUP BY 1") != []


CANNOT_BE_FLUSHED = """
import os, sys
from flask_opsjobs.cli.worker import run
from flask_opsjobs.engine.worker.parent import WorkerOptions
from tests.support.host import create_app

class Stream:
    write = sys.stdout.write
    parent = os.getpid()

    def flush(self):
        if os.getpid() != self.parent:
            raise RuntimeError("this stream cannot be flushed")

app = create_app()
sys.stdout = Stream()
with app.app_context():
    options = WorkerOptions(jobs_per_process=1, burst=True, with_scheduler=False)
    sys.exit(run(app, ["default"], options))
"""


@pytest.mark.processes
def test_a_child_whose_last_step_raises_does_not_go_on_as_its_parent(
    site: Flask, children: Children
) -> None:
    """It would release the fork lock, which it does not hold, and end the worker's other children."""
    site.extensions["opsjobs"].dispatcher = None
    give.enqueue_many({"value": number} for number in range(5))
    db.session.commit()
    worker = children.python("-c", CANNOT_BE_FLUSHED)
    assert worker.wait(30) == 0
    assert rows("SELECT outcome, count(*) FROM opsjobs.attempts GROUP BY 1") == [("returned", 5)]
    assert "release unlocked lock" not in worker.log


class CountingLock:
    """Notes how many sockets of this process lead to Redis when the lock is taken, and when it is let go."""

    def __init__(self, url: str) -> None:
        self._port = make_url(url).port
        self.counts: list[int] = []

    def __enter__(self) -> None:
        self.counts.append(self._count())

    def __exit__(self, *_error: object) -> None:
        self.counts.append(self._count())

    def _count(self) -> int:
        sockets = psutil.Process().net_connections("tcp")
        return sum(bool(each.raddr) and each.raddr.port == self._port for each in sockets)


def test_a_worker_connects_to_redis_under_the_lock_that_forks_need(
    site: Flask, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by the connections that its dispatch uses."""
    lock = CountingLock(redis_url)
    monkeypatch.setattr(runtime, "fork_lock", lock)
    connections = broker_of(site.extensions["opsjobs"]).connections
    before = connections.wire("default", quick=True)
    worker = runtime.WorkerRuntime(site, ["default"], WorkerOptions())
    assert lock.counts == [], "it connects when it runs"
    for redis in (connections.wire("default", quick=True).redis, worker._link._redis):
        lock.counts.clear()
        assert redis.ping()
        first, second = lock.counts
        assert second == first + 1
        redis.close()
    assert connections.wire("default", quick=True) is not before


_FORKS_WITH_LARGE_PAGES = """
import os
from flask_opsjobs.engine.worker.forking import use_large_pages

objects = [{"number": number} for number in range(200_000)]

def in_large_pages():
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("AnonHugePages"))

before = in_large_pages()
use_large_pages()
assert in_large_pages() > before
if (pid := os.fork()) == 0:
    number = sum(each["number"] for each in objects)
    os._exit(0 if number == 199_999 * 100_000 else 1)
assert os.waitpid(pid, 0)[1] == 0
"""


@pytest.mark.processes
@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="no large pages"
)
def test_a_process_that_forks_for_each_job_uses_large_pages(children: Children) -> None:
    """The system copies an entry for each page at a fork. Linux makes large ones on demand since 6.1."""
    assert children.python("-c", _FORKS_WITH_LARGE_PAGES).wait(30) == 0


@pytest.mark.chaos
def test_a_redis_that_stands_still_keeps_nobody_waiting_for_that_lock(
    site: Flask, own_valkey: Valkey
) -> None:
    """It takes a connection, and answers nothing: pitfall, the lock was held until the time-out of 5 s."""
    lock = CountingLock(own_valkey.url)
    connections = RedisConnections(site, own_valkey.url)
    connections.connect_with(lock)
    redis = connections.wire("default").redis
    own_valkey.freeze()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(redis.ping)
        wait_until(lambda: lock.counts == [0, 1] or answer.done(), 20)
        assert not answer.done()
        own_valkey.thaw()
        assert answer.result() is True

"""A plugin for pytest in RQ's own tests: there `Worker` is ours, and `SimpleWorker` is what its child is.

It is loaded in a process whose package `tests` is RQ's, so it makes a small host of its own.
`RQ_TESTS_REDIS_PORT` says where Redis listens, `RQ_TESTS_DATABASE_URL` where Postgres does; without the
latter RQ's own worker is tested.
"""

from __future__ import annotations

import inspect
import math
import os
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import redis
import rq
import rq.worker
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from rq.job import Job as RQJob
from rq.utils import now
from rq.worker.base import BaseWorker

from flask_opsjobs import OpsJobs
from flask_opsjobs.engine.redis.connections import RedisConnections, Wire, _with_limits
from flask_opsjobs.engine.worker import child, runtime
from flask_opsjobs.engine.worker.forking import fork_lock
from flask_opsjobs.engine.worker.parent import WorkerOptions
from flask_opsjobs.engine.worker.plain_runs import PlainRunRecord
from flask_opsjobs.engine.worker.rq_scheduler import make_scheduler
from flask_opsjobs.engine.worker.rq_slots import SlotWorker
from flask_opsjobs.engine.worker.runtime import WorkerRuntime

# A test that takes longer hangs. It fails, and those after it are run. RQ's slowest waits for 65 s.
MOST_SECONDS = 150.0


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, Any, Any]:
    """Not by SIGALRM, which RQ uses itself."""

    def fail(*_: Any) -> None:
        raise TimeoutError(f"took longer than {MOST_SECONDS:g} s")

    signal.signal(signal.SIGUSR2, fail)
    timer = threading.Timer(MOST_SECONDS, os.kill, (os.getpid(), signal.SIGUSR2))
    timer.daemon = True
    timer.start()
    try:
        return (yield)
    finally:
        timer.cancel()


class Policy:
    """Both policies of the host; it has no pages."""

    def current_actor(self) -> str | None:
        return None

    def can(self, actor: str, permission: str, subject: str | None = None) -> bool:
        return False

    def is_hidden_key(self, key: str) -> bool:
        return False

    def clean_text(self, text: str) -> str:
        return text


def let_redis_listen_at(port: int) -> None:
    """RQ's tests call `Redis()` for a server on Redis' own port."""
    for kind in (redis.Redis, redis.Connection):
        make = inspect.unwrap(kind.__init__)
        host, default, *others = make.__defaults__ or ()
        assert default == 6379
        make.__defaults__ = (host, port, *others)


def make_app(database_url: str, port: int) -> Flask:
    app = Flask("rq_tests")
    app.config.update(
        SECRET_KEY="only for tests",
        SQLALCHEMY_DATABASE_URI=database_url,
        OPSJOBS_REDIS_URL=f"redis://127.0.0.1:{port}/0",
    )
    SQLAlchemy(app)
    OpsJobs().init_app(app, access=Policy(), display=Policy())
    return app


class Child(SlotWorker):
    """What a child of ours is for RQ, made as RQ makes its workers. It runs jobs in this process."""

    app: Flask

    def __init__(self, *args: Any, **options: Any) -> None:
        BaseWorker.__init__(self, *args, **options)
        self._app = self.app
        self._counted = [0, 0]

    def validate_queues(self) -> None:
        """Read the queues that a test gives as our maintenance reads its own, which it makes from names."""
        for queue in self.queues:
            if type(queue) is rq.Queue and issubclass(self.queue_class, rq.Queue):
                queue.__class__ = self.queue_class
        super().validate_queues()


class SimpleWorker(Child):
    """A child without its parent, under RQ's own loop."""

    # Nobody renews its records while it works.
    get_heartbeat_ttl = rq.SimpleWorker.get_heartbeat_ttl


class OurWorker(Child, rq.Worker):
    """A worker of ours with one child, whose name for RQ is that of RQ's worker.

    Of parts that ours does not have, such as `monitor_work_horse`, RQ's own are tested.
    """

    _is_in_child = False

    def work(self, burst: bool = False, *args: Any, **options: Any) -> bool:
        """Run a worker of ours. With an option that ours does not have, run its child under RQ's loop."""
        if options.keys() & {"max_idle_time", "dequeue_strategy"}:
            self._is_in_child = True
            return super().work(burst, *args, **options)
        return self._run(self.queue_names(), burst=burst, **options)

    def execute_job(self, job: RQJob, queue: rq.Queue) -> None:
        """Let a worker of ours run one job, unless this is in its child."""
        if self._is_in_child:
            super().execute_job(job, queue)
        else:
            queue.push_job_id(job.id, at_front=True)
            self._run([queue.name], max_jobs=1)

    def run_job(self, *args: Any) -> PlainRunRecord | None:
        self._is_in_child = True
        return super().run_job(*args)

    def _run(self, queues: list[str], *, with_scheduler: bool = False, **options: Any) -> bool:
        options["with_scheduler"] = with_scheduler
        self.birth_date = self.last_heartbeat = now()
        host = self.app.extensions["opsjobs"]
        host.settings = replace(host.settings, heartbeat_seconds=self.job_monitoring_interval)
        with self._is_place():
            ours = WorkerRuntime(self.app, queues, WorkerOptions(**options))
            # Before the first job, as RQ does; ours does it beside the first jobs.
            self.maintain()
            ours._parent._errands._maintained_at = math.inf
            if with_scheduler:
                self.scheduler = make_scheduler(self.queues, self.connection, self.serializer)
            ours.run(tell_ready=lambda: None)
        stops, has_run = ours._parent._stops, ours._parent._given > 0
        # As RQ does: it notes a stop while a job runs, and raises at a second signal.
        self._stop_requested = stops > 0 and has_run
        if stops > 1:
            raise SystemExit
        return has_run

    @contextmanager
    def _is_place(self) -> Generator[None]:
        """Let the worker's place be this worker, on the Redis of its test."""
        wire = Wire(_with_limits(self.connection, 5.0, fork_lock), self.serializer)
        with (
            mock.patch.object(RedisConnections, "_make", return_value=wire),
            mock.patch.object(runtime, "SlotWorker", return_value=self),
            mock.patch.object(child, "SlotWorker", return_value=self),
        ):
            yield


def test_our_worker(database_url: str, port: int) -> None:
    Child.app = make_app(database_url, port)
    rq.SimpleWorker = rq.worker.SimpleWorker = SimpleWorker
    rq.Worker = rq.worker.Worker = OurWorker


redis_port = int(os.environ["RQ_TESTS_REDIS_PORT"])
let_redis_listen_at(redis_port)
if url := os.environ.get("RQ_TESTS_DATABASE_URL"):
    test_our_worker(url, redis_port)

"""A plugin for pytest in RQ's own tests: there `SimpleWorker` is what a child of our worker is for RQ.

It is loaded in a process whose package `tests` is RQ's, so it makes a small host of its own.
`RQ_TESTS_REDIS_PORT` says where Redis listens, `RQ_TESTS_DATABASE_URL` where Postgres does; without the
latter RQ's own worker is tested.
"""

from __future__ import annotations

import inspect
import os
import signal
import threading
from collections.abc import Generator
from typing import Any

import pytest
import redis
import rq
import rq.worker
from flask import Flask
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs import OpsJobs
from flask_opsjobs.engine.worker.rq_slots import SlotWorker

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


def test_our_worker(database_url: str, port: int) -> None:
    app = make_app(database_url, port)

    class OurWorker(SlotWorker):
        """What a child of ours is for RQ, made as RQ makes its workers."""

        def __init__(self, *args: Any, **options: Any) -> None:
            rq.worker.SimpleWorker.__init__(self, *args, **options)
            self._app = app

    rq.SimpleWorker = rq.worker.SimpleWorker = OurWorker


redis_port = int(os.environ["RQ_TESTS_REDIS_PORT"])
let_redis_listen_at(redis_port)
if url := os.environ.get("RQ_TESTS_DATABASE_URL"):
    test_our_worker(url, redis_port)

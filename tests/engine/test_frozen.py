"""A process that is frozen in the middle of a transaction stops nobody, and does no harm when it goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest
from flask import Flask

from flask_opsjobs.endings.advance import advance
from flask_opsjobs.endings.fold import fold
from flask_opsjobs.engine.worker.runtime import declare_limiters
from flask_opsjobs.jobs.perform.current import Claimed
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.loops import expire
from flask_opsjobs.loops.loop import Runner
from tests.conftest import MakeApp
from tests.support import host as host_module
from tests.support.engine import Bench
from tests.support.graphs import CALLBACK, Graph
from tests.support.processes import Child, Children
from tests.support.waiting import wait_until

pytestmark = pytest.mark.chaos

LOOP = """
import logging
import sys
from flask_opsjobs.loops import LOOPS
from flask_opsjobs.loops.process import LoopsProcess
from tests.support.freezing import freeze_before
from tests.support.host import create_app
name, statement = sys.argv[1:]
logging.basicConfig()
host = create_app(OPSJOBS_PREFETCH=1_000).extensions["opsjobs"]
freeze_before(statement)
sys.exit(LoopsProcess(host, [loop for loop in LOOPS if loop.name == name]).run())
"""
WORKER = """
import sys
from flask.cli import main
from tests.support.freezing import freeze_before
freeze_before("claim_limited_jobs")
sys.argv = ["flask", "--app", "tests.support.host", "opsjobs", "worker", "limited"]
main()
"""


@pytest.fixture
def app(make_app: MakeApp) -> Iterator[Flask]:
    """The host of child processes, without dispatch."""
    app = make_app(opsjobs=host_module.opsjobs)
    with app.app_context():
        yield app


def wait_until_frozen(child: Child) -> None:
    process = psutil.Process(child.pid)
    wait_until(lambda: process.status() == psutil.STATUS_STOPPED, 30, what=f"{child} is frozen")


def thaw(child: Child) -> None:
    """Let it go on: it must say once that its session has ended, and that it has another one."""
    child.thaw()
    child.wait_for("Postgres is back", 30)
    assert child.log.count("Postgres is away (") == 1


def commit(app: Flask) -> None:
    app.extensions["sqlalchemy"].session.commit()


class Dispatched:
    """Limited jobs, each of an account of its own: a dispatch locks the bucket of its lane."""

    loop, statement = "dispatch", "dispatch_lane"

    def __init__(self, app: Flask, bench: Bench) -> None:
        self._app, self._bench = app, bench
        self._accounts = count()

    def make(self) -> int:
        account = next(self._accounts)
        job = host_module.note_of_account.enqueue(path="", account=account).id
        commit(self._app)
        return job

    def do(self, job: int) -> None:
        assert self._bench.dispatch(self._bench.job(job)["lane"]) == 1

    def is_done(self, job: int) -> bool:
        return bool(self._bench.job(job)["state"] == "queued")

    def once(self, job: int) -> bool:
        return bool(self._bench.job(job)["dispatch_no"] == 1)


class Expired:
    """Jobs whose deadline has passed. One pass of this loop runs at a time."""

    loop, statement = "expire", "expire_jobs"

    def __init__(self, app: Flask, bench: Bench) -> None:
        self._app, self._bench = app, bench

    def make(self) -> int:
        job = host_module.add.options(deadline=timedelta(milliseconds=1)).enqueue(a=1, b=2).id
        commit(self._app)
        return job

    def do(self, job: int) -> None:
        runner = Runner(expire.LOOP, self._bench.host, "other")

        def make_pass() -> bool:
            runner.run_once(self._bench.connection)
            return self.is_done(job)

        wait_until(make_pass)

    def is_done(self, job: int) -> bool:
        return bool(self._bench.job(job)["state"] == "failed")

    def once(self, job: int) -> bool:
        return bool(self._bench.job(job)["ended_by"] == "deadline")


class Advanced:
    """Runs of one step, which has ended; the end of the run enqueues a callback."""

    loop, statement = "advance", "end_workflow"

    def __init__(self, _app: Flask, bench: Bench) -> None:
        self._bench = bench

    def make(self) -> int:
        graph = Graph.make(self._bench.connection, "a", [], on_end=CALLBACK)
        graph.end("a")
        return graph.run

    def do(self, run: int) -> None:
        wait_until(lambda: advance(self._bench.connection, run, 1_000_000))

    def is_done(self, run: int) -> bool:
        found = self._bench.row("SELECT state FROM opsjobs.workflows WHERE id = %s", run)
        return bool(found["state"] == "finished")

    def once(self, run: int) -> bool:
        calls = "SELECT FROM opsjobs.jobs WHERE task = 'call' AND args->>'workflow_id' = %s"
        return len(self._bench.rows(calls, str(run))) == 1


class Folded:
    """Batches of one member, which has ended; the end of the batch enqueues a callback."""

    loop, statement = "fold", "end_batch"

    def __init__(self, app: Flask, bench: Bench) -> None:
        self._app, self._bench = app, bench

    def make(self) -> int:
        with host_module.opsjobs.batch("import", on_end=host_module.hear_batch) as batch:
            job = batch.enqueue(host_module.give).id
        commit(self._app)
        self._bench.dispatch(prefetch=1_000)
        self._bench.claim(job)
        self._bench.record(job, 1, Outcome(kind="returned"))
        return batch.id

    def do(self, batch: int) -> None:
        wait_until(lambda: fold(self._bench.connection, batch))

    def is_done(self, batch: int) -> bool:
        found = self._bench.row("SELECT state FROM opsjobs.batches WHERE id = %s", batch)
        return bool(found["state"] == "finished")

    def once(self, batch: int) -> bool:
        calls = "SELECT FROM opsjobs.jobs WHERE task = %s AND args->>'batch_id' = %s"
        return len(self._bench.rows(calls, host_module.hear_batch.name, str(batch))) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [Dispatched, Expired, Advanced, Folded], ids=lambda kind: kind.loop
)
def test_a_loop_that_is_frozen_in_a_transaction(
    kind: Callable[..., Any], app: Flask, bench: Bench, children: Children
) -> None:
    work = kind(app, bench)
    declare_limiters(bench.host, "test")
    first = work.make()
    child = children.python("-c", LOOP, work.loop, work.statement)
    wait_until_frozen(child)
    work.do(first)
    assert work.is_done(first), "Postgres gave its locks to others"
    thaw(child)
    second = work.make()
    wait_until(lambda: work.is_done(second), 30, what="it goes on")
    assert work.once(first)
    assert work.once(second)


def test_a_worker_that_is_frozen_in_a_claim(
    app: Flask, bench: Bench, children: Children, tmp_path: Path
) -> None:
    """Its job has a limiter: whoever claims another job of the account waits for the bucket."""
    path = tmp_path / "ran"
    declare_limiters(bench.host, "test")

    def make() -> int:
        job = host_module.note_of_account.enqueue(path=str(path), account=7).id
        commit(app)
        bench.dispatch("limited|account|7")
        return job

    first = make()
    child = children.python("-c", WORKER)
    wait_until_frozen(child)
    number = bench.job(first)["dispatch_no"]
    assert isinstance(bench.claim(first, number), Claimed), "Postgres gave its locks to others"
    thaw(child)
    bench.record(first, number, Outcome(kind="returned"))
    second = make()
    wait_until(lambda: bench.job(second)["state"] == "finished", 30, what="it goes on")
    assert path.read_text() == "7\n", "it did not begin the job that somebody else claimed"
    assert [bench.job(job)["attempt"] for job in (first, second)] == [1, 1]

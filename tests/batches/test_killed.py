"""Workers that are killed by SIGKILL while they end the members of a batch and fold it.

The first worker is killed before its first statement, the next one before its second, and so on, until one
comes to its end.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
from flask import Flask

from flask_opsjobs import endings
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.loops.fold import LOOP
from flask_opsjobs.loops.loop import Runner
from tests.batches.conftest import batch_of
from tests.conftest import MakeApp
from tests.support import host as host_module
from tests.support.dying import wait_until_rolled_back
from tests.support.engine import Bench
from tests.support.processes import Children

# It ends a member after another, and does after each what the recorder of a worker does.
WORKER = """
import sys
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.endings.pending_batches import PendingBatches
from flask_opsjobs.engine.dispatch.dispatch import Refill
from flask_opsjobs.jobs.perform.outcomes import Outcome
from tests.support.dying import die_before
from tests.support.engine import Bench
from tests.support.host import create_app
from tests.support.waiting import wait_until
number, *jobs = map(int, sys.argv[1:])
app = create_app()
with app.app_context():
    host = app.extensions["opsjobs"]
    bench, batches = Bench(host, f"killed-{number}"), PendingBatches(only_last=True)
    for job in jobs:
        bench.claim(job)
    die_before(number)
    for job, kind in zip(jobs, ("raised", "returned"), strict=True):
        batches.note(bench.record(job, 1, Outcome(kind=kind)))
        wait_until(lambda: batches.due_in() == 0)
        if lanes := batches.advance(bench.connection):
            now = read_clock(bench.connection)
            Refill(host, print).dispatch(bench.connection, lanes, now)
"""


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    """The host of child processes, without dispatch."""
    return make_app(opsjobs=host_module.opsjobs)


@pytest.fixture
def make_batch(app: Flask, bench: Bench) -> Callable[[], tuple[int, list[int]]]:
    """Makes a closed batch of two members that are dispatched; returns its id and theirs."""

    def make() -> tuple[int, list[int]]:
        with app.app_context():
            session = app.extensions["sqlalchemy"].session
            call = host_module.hear_batch
            batch = host_module.opsjobs.batch("import", on_end=call, on_failure=call)
            with batch:
                once = host_module.give.options(max_attempts=1)
                jobs = [batch.enqueue(task, value=7).id for task in (once, host_module.give)]
            session.commit()
        bench.dispatch(prefetch=1_000)
        assert [bench.job(job)["state"] for job in jobs] == ["queued", "queued"]
        return batch.id, jobs

    return make


def end_what_is_left(bench: Bench, jobs: list[int]) -> None:
    """Give up the attempts of a dead worker, and let another one make the next."""
    workers = [bench.job(job)["worker_id"] for job in jobs]
    endings.rescue(bench.connection, workers, read_clock(bench.connection), "it is gone")
    bench.dispatch(prefetch=1_000)
    for job in jobs:
        row = bench.job(job)
        if row["state"] == "queued":
            bench.claim(job, row["dispatch_no"])
            bench.record(job, row["dispatch_no"], Outcome(kind="returned"))


def test_a_worker_that_is_killed_while_it_ends_members_and_folds(
    host: Host, bench: Bench, children: Children, make_batch: Callable[[], tuple[int, list[int]]]
) -> None:
    """Each end is counted once, and the loop ends the batch within two passes. It calls back once."""
    exit_code, number = -signal.SIGKILL, 0
    states = []
    while exit_code == -signal.SIGKILL:
        number += 1
        batch, jobs = make_batch()
        exit_code = children.python("-c", WORKER, str(number), *map(str, jobs)).wait(30)
        wait_until_rolled_back(bench.connection)
        states.append(bench.row("SELECT state FROM opsjobs.batches WHERE id = %s", batch)["state"])
        end_what_is_left(bench, jobs)
        runner = Runner(LOOP, host)
        for _ in range(2):
            runner.run_once(bench.connection)
        row = batch_of(bench, batch)
        counts = (row["enqueued"], sum(row["ends"].values()), row["lost"])
        assert (row["state"], row["end_no"], counts) == ("failed", 1, (2, 2, 0)), number
        events = bench.rows(
            "SELECT event FROM opsjobs.callbacks WHERE of_id = %s ORDER BY event", batch
        )
        assert [one["event"] for one in events] == ["end", "failure"], number
        assert bench.rows("SELECT * FROM opsjobs.batch_end_events") == []
    assert exit_code == 0
    assert number > 10
    assert (states[0], states[-1]) == ("running", "failed")

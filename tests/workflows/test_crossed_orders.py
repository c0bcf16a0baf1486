"""Operators, workers, hosts and all loops at once, on connections of their own, each in an order of its own.

The steps of runs, the members of a batch and the jobs of two cron entries share one limit. Nobody deadlocks,
no job is lost, and nothing happens twice.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from psycopg import Rollback

from flask_opsjobs import Limit, OpsJobs, Task, endings
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.actions.planning import MOST_TARGETS
from flask_opsjobs.batches import transitions as batch_transitions
from flask_opsjobs.batches.checks import check_batches
from flask_opsjobs.core.db import Connection
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.endings import EndedAttempt
from flask_opsjobs.endings.pending_batches import PendingBatches
from flask_opsjobs.endings.pending_runs import PendingRuns
from flask_opsjobs.engine.dispatch.dispatch import Refill
from flask_opsjobs.engine.worker.runtime import declare_limiters
from flask_opsjobs.host import Host
from flask_opsjobs.jobs import transitions as job_transitions
from flask_opsjobs.jobs.perform.current import Claimed
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.loops import LOOPS
from flask_opsjobs.loops.loop import Runner
from flask_opsjobs.workflows import transitions as workflow_transitions
from flask_opsjobs.workflows.checks import checks
from tests.conftest import MakeBench
from tests.support.engine import Bench, race
from tests.support.waiting import wait_until

# All of them set when Postgres looks for a deadlock.
pytestmark = pytest.mark.sessions

SECONDS = 3.0
# Everybody acts at least so often, on a loaded machine too. There an operator waits for the others in turn,
# for longer than it is patient otherwise.
LEAST, PATIENCE_SECONDS = 10, 20
RUNS, MEMBERS = 6, 20
EDGES = ["a c", "b c", "a d continue", "c e", "d e", "d f"]
ACTIONS = {
    "workflow": ("retry", "retry", "cancel", "skip"),
    "job": ("retry", "cancel", "discard"),
    "batch": ("retry", "retry", "cancel"),
    "cron": ("run_now", "pause", "resume"),
}
TARGETS = {
    "workflow": "SELECT id::text AS target FROM opsjobs.workflows",
    "job": "SELECT id::text AS target FROM opsjobs.jobs",
    "batch": "SELECT id::text AS target FROM opsjobs.batches",
    "cron": "SELECT name AS target FROM opsjobs.cron_entries",
}
Act = Callable[[random.Random], Any]


@pytest.fixture(autouse=True)
def _soon_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Postgres look for a deadlock before anybody's patience is over, so that it counts each."""
    monkeypatch.setenv("PGOPTIONS", "-c deadlock_timeout=10ms")
    monkeypatch.setattr("flask_opsjobs.actions.execution.WAIT_SECONDS", PATIENCE_SECONDS)


@pytest.fixture
def work(opsjobs: OpsJobs, host: Host) -> Task:
    """A task of which ten run at once, also as the job of two cron entries."""

    def work() -> None: ...

    task = opsjobs.task(limit=Limit("few", concurrency=10), max_attempts=50)(work)
    opsjobs.cron("* * * * *", name="one", overlap="queue_one")(task)
    opsjobs.cron("* * * * *", name="other", overlap="cancel_previous")(task)
    declare_limiters(host, "test")
    return task


@pytest.fixture
def hear(opsjobs: OpsJobs) -> Task:
    """A callback."""

    def hear(workflow_id: int = 0, batch_id: int = 0) -> None: ...

    return opsjobs.task(hear)


@pytest.fixture
def runs(opsjobs: OpsJobs, db: SQLAlchemy, work: Task, hear: Task) -> list[int]:
    """Some runs, and a batch."""
    found = []
    for _ in range(RUNS):
        flow = opsjobs.workflow("crossed", on_end=hear)
        steps: dict[str, Any] = {}
        for name in "abcdef":
            edges = [edge.split() for edge in EDGES if edge.split()[1] == name]
            goes_on = any("continue" in edge for edge in edges)
            steps[name] = flow.step(
                name,
                work,
                after=[steps[edge[0]] for edge in edges],
                on_failure="continue" if goes_on else "cancel",
            )
        found.append(flow.start().id)
    with opsjobs.batch("crossed", on_end=hear) as batch:
        batch.enqueue_many(work, ({} for _ in range(MEMBERS)))
    db.session.commit()
    return found


class Worker:
    """Claims jobs, ends them, advances their runs and folds their batch, as a worker does."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._runs = PendingRuns(1_000_000)
        self._batches = PendingBatches(only_last=True)
        self._refill = Refill(bench.host)

    def attempt(self, dice: random.Random) -> None:
        """End some of the jobs that wait in Redis."""
        bench, connection = self._bench, self._bench.connection
        queued = bench.rows(
            "SELECT id, dispatch_no FROM opsjobs.jobs WHERE state = 'queued' ORDER BY random()"
        )
        attempts = []
        for job in queued:
            claimed = bench.claim(job["id"], job["dispatch_no"])
            if isinstance(claimed, Claimed):
                outcome = Outcome(kind=dice.choice(("returned", "returned", "raised", "discarded")))
                attempts.append(
                    EndedAttempt(
                        job["id"], job["dispatch_no"], bench.worker_id, bench.name, outcome
                    )
                )
        now = read_clock(connection)
        ended = endings.write_outcomes(connection, attempts, now)
        self._refill.refill(connection, ended, now)
        for pending in (self._runs, self._batches):
            pending.note(ended)
            self._refill.dispatch(connection, pending.advance(connection), now)


def operate(host: Host, bench: Bench, dice: random.Random) -> None:
    """Act on some targets of a kind, in any order. What their states forbid is refused."""
    kind = dice.choice([*ACTIONS])
    action = dice.choice(ACTIONS[kind])
    targets = [row["target"] for row in bench.rows(TARGETS[kind])]
    if not targets:
        return  # no pass of the cron loop has been made yet
    # Many, in an order of dice: who locks a few rows in a wrong order seldom meets another one.
    chosen = dice.sample(
        targets, dice.randint(1, min(len(targets), MOST_TARGETS)) if action != "skip" else 1
    )
    params = {"step": dice.choice("abcdef"), "result": 42} if action == "skip" else None
    receipt = Operator(host).run(
        f"{kind}.{action}",
        [f"{kind}/{target}" for target in chosen],
        actor="anna",
        reason="because it is a test",
        params=params,
    )
    assert receipt.code in (None, "illegal", "duplicate", "unknown_step", "drift"), receipt


class Loops:
    """All loops of one process."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._runners = [Runner(loop, bench.host, process=bench.name) for loop in LOOPS]
        # Each pass of the cron loop is a minute later, so that both entries are due.
        self._now = read_clock(bench.connection) - timedelta(minutes=60)

    def make_a_pass(self, dice: random.Random) -> None:
        """Make a pass of any loop."""
        # The first six move jobs on; the others look after them.
        runner = dice.choice([*self._runners, *self._runners[:6] * 3])
        now = None
        if runner.loop.name == "cron":
            now = self._now = self._now + timedelta(minutes=1)
        runner.run_once(self._bench.connection, now)
        assert runner.last_error is None


@pytest.mark.slow
def test_operators_in_crossed_orders_with_ends_limits_cron_and_all_loops(
    app: Flask, bench: Bench, host: Host, runs: list[int]
) -> None:
    assert bench.row("SHOW deadlock_timeout") == {"deadlock_timeout": "10ms"}
    until = time.monotonic() + SECONDS
    made: Counter[str] = Counter()

    def act(name: str, make: Callable[[Bench], Act]) -> None:
        dice = random.Random(name)
        with closing(Bench(host, name)) as mine:
            act = make(mine)
            while time.monotonic() < until or made[name] < LEAST:
                act(dice)
                made[name] += 1
            mine.connection.execute("SELECT pg_stat_force_next_flush()")

    def operator(mine: Bench) -> Act:
        return partial(operate, host, mine)

    done = race(
        *(partial(act, f"operator {number}", operator) for number in range(4)),
        partial(act, "worker 1", lambda mine: Worker(mine).attempt),
        partial(act, "worker 2", lambda mine: Worker(mine).attempt),
        partial(act, "loops 1", lambda mine: Loops(mine).make_a_pass),
        partial(act, "loops 2", lambda mine: Loops(mine).make_a_pass),
    )
    assert [one for one in done if isinstance(one, Exception)] == []
    assert bench.rows("SELECT trouble FROM opsjobs.workflows WHERE trouble IS NOT NULL") == []
    host.spare.close()
    row = bench.row("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    assert row["deadlocks"] == 0
    finish(bench)
    assert checks(bench.connection) == []
    assert check_batches(bench.connection) == []
    ends = bench.rows(
        "SELECT end_no, (SELECT count(*) FROM opsjobs.callbacks WHERE of = 'workflow' AND of_id = w.id)"
        " FROM opsjobs.workflows w"
        " UNION ALL SELECT end_no, (SELECT count(*) FROM opsjobs.callbacks WHERE of = 'batch')"
        " FROM opsjobs.batches"
    )
    assert [row["end_no"] for row in ends] == [row["count"] for row in ends]
    assert bench.rows("SELECT * FROM opsjobs.leases") == []


def finish(bench: Bench) -> None:
    """Go on without operators, until nothing is left to do."""
    dice, worker, loops = random.Random(7), Worker(bench), Loops(bench)
    for _ in range(2_000):
        open_jobs = bench.rows("SELECT 1 FROM opsjobs.jobs WHERE ended_at IS NULL LIMIT 1")
        open_runs = bench.rows("SELECT 1 FROM opsjobs.workflows WHERE ended_at IS NULL")
        if not (open_jobs or open_runs):
            return
        worker.attempt(dice)
        loops.make_a_pass(dice)
    raise AssertionError(bench.rows("SELECT state, count(*) FROM opsjobs.jobs GROUP BY state"))


# --- one after the other

# Six jobs of three runs and three batches: one of each runs, and one waits.
ROWS = """
    WITH run AS (
        INSERT INTO opsjobs.workflows (name, state, context, shape, steps, created_at)
        SELECT 'crossed', 'running', '{}', '', 2, now() FROM generate_series(1, 3) RETURNING id
    ), batch AS (
        INSERT INTO opsjobs.batches (name, state, created_at)
        SELECT 'crossed', 'open', now() FROM generate_series(1, 3) RETURNING id
    )
    INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, created_at, due_at, dispatch_no,
        attempt, started_at, workflow_id, batch_id)
    SELECT 'call', 'default', 'default', state, '{}', 1, now(), now(), 1, 1,
        CASE state WHEN 'started' THEN now() END, workflow_id, batch_id
    FROM (SELECT id, NULL FROM run UNION ALL SELECT NULL, id FROM batch) AS of (workflow_id, batch_id)
    CROSS JOIN (VALUES ('started'), ('available')) AS s (state)
"""
IDS = {
    "workflows": "SELECT id FROM opsjobs.workflows",
    "batches": "SELECT id FROM opsjobs.batches",
    "started": "SELECT id FROM opsjobs.jobs WHERE state = 'started'",
    "waiting": "SELECT id FROM opsjobs.jobs WHERE state = 'available'",
}
WAITING = """
    SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


def end_attempts(connection: Connection, jobs: list[int]) -> None:
    """End attempts as a worker's recorder does."""
    attempts = [EndedAttempt(job, 1, 1, "worker", Outcome(kind="returned")) for job in jobs]
    endings.write_outcomes(connection, attempts, read_clock(connection))


def cancel(connection: Connection, jobs: list[int]) -> None:
    endings.cancel(connection, jobs, read_clock(connection), "because it is a test")


# The table whose rows are locked, what is given to the function, which locks them, and in which order.
LOCKS: dict[str, tuple[str, str, Callable[[Connection, list[int]], object]]] = {
    "runs, by an action on them": ("workflows", "workflows", workflow_transitions.lock),
    "runs, by an action on steps": ("workflows", "waiting", job_transitions.lock),
    "batches, by an action on them": ("batches", "batches", batch_transitions.lock),
    "batches, by a retry of members": (
        "batches",
        "waiting",
        partial(job_transitions.lock, with_batches=True),
    ),
    "jobs, by an action on them": ("jobs", "waiting", job_transitions.lock),
    "jobs, by who cancels them": ("jobs", "waiting", cancel),
    "jobs, by who ends attempts": ("jobs", "started", end_attempts),
}


@pytest.mark.parametrize("locks", LOCKS)
def test_who_waits_for_the_first_row_holds_none_behind_it(
    bench: Bench, make_bench: MakeBench, locks: str
) -> None:
    table, given, lock = LOCKS[locks]
    bench.connection.execute(ROWS)
    ids = {kind: sorted(row["id"] for row in bench.rows(query)) for kind, query in IDS.items()}
    first, *others = ids.get(table, ids[given])
    holding, locking = make_bench().connection, make_bench().connection

    def run() -> None:
        with locking.transaction():
            lock(locking, ids[given][::-1])

    with ThreadPoolExecutor(1) as pool, holding.transaction():
        holding.execute(f"SELECT FROM opsjobs.{table} WHERE id = %s FOR UPDATE", [first])
        done = pool.submit(run)
        wait_until(lambda: bench.rows(WAITING), what="it to wait for the first row")
        free = bench.rows(
            f"SELECT id FROM opsjobs.{table} WHERE id = ANY (%s) ORDER BY id FOR UPDATE SKIP LOCKED",
            others,
        )
        assert [row["id"] for row in free] == others
        raise Rollback
    done.result(10)

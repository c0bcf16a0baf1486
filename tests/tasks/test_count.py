"""The numbers of tasks equal a slow count over the jobs, whoever ends, folds and retains at the same time."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from flask_opsjobs import OpsJobs, endings
from flask_opsjobs.core import sql
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.core.steady_clock import steady_seconds
from flask_opsjobs.endings import EndedAttempt
from flask_opsjobs.jobs.lifecycle import ARROWS, MANAGED_FINAL
from flask_opsjobs.jobs.perform.outcomes import RETURNED, Outcome
from flask_opsjobs.loops import roll_up
from flask_opsjobs.loops.loop import Runner
from flask_opsjobs.overview.pace_queries import quantile
from tests.conftest import MakeBench
from tests.support.engine import Bench, race, take
from tests.support.task_numbers import Query, folded, slow_count


def fold(bench: Bench, now: datetime) -> None:
    runner = Runner(roll_up.LOOP, bench.host, "one")
    while runner.run_once(bench.connection, now):
        pass


def query(bench: Bench) -> Query:
    return lambda statement: [tuple(row.values()) for row in bench.rows(statement)]


ENDING = {
    statement
    for arrow in ARROWS
    if set(arrow.targets) & set(MANAGED_FINAL) and arrow.by != "observer"
    for statement in arrow.made_by
}


@pytest.mark.parametrize("statement", sorted(ENDING))
def test_each_statement_that_ends_jobs_counts_them(statement: str) -> None:
    assert "opsjobs.task_end_deltas" in sql.load(statement)


class Ender:
    """A worker that takes jobs and ends them in all ways. `ended` says how many ends it wrote."""

    def __init__(self, bench: Bench, seed: int, enqueued: threading.Event) -> None:
        self.bench = bench
        self.ended = 0
        self._enqueued = enqueued
        self._chance = random.Random(seed)

    def run(self) -> None:
        """Take and end jobs until all are enqueued and none came for a while."""
        idle = 0
        while idle < 50:
            is_last = self._enqueued.is_set()
            taken = take(self.bench, self._chance.randint(1, 7))
            idle = idle + 1 if is_last and not taken else 0
            self._end(taken)
            if self._chance.random() < 0.3:
                self._cancel_one()

    def _end(self, taken: list[tuple[int, int]]) -> None:
        steady, now = steady_seconds(), read_clock(self.bench.connection)
        attempts = [self._attempt(key, steady) for key in taken]
        plain = [one for one in attempts if one.is_plain]
        others = [one for one in attempts if not one.is_plain]
        connection = self.bench.connection
        moved = endings.finish(connection, plain, now, steady_now=steady)
        if others:
            moved += endings.write_outcomes(connection, others, now, steady_now=steady)
        self.ended += sum(job.is_final for job in moved)

    def _attempt(self, key: tuple[int, int], steady: float) -> EndedAttempt:
        began = steady - self._chance.expovariate(1)
        ended = steady - self._chance.random() / 100
        kind = self._chance.choice(("raised", "discarded", "canceled"))
        outcome = RETURNED if self._chance.random() < 0.6 else Outcome(kind)
        bench = self.bench
        return EndedAttempt(*key, bench.worker_id, bench.name, outcome, 1, began, ended)

    def _cancel_one(self) -> None:
        waiting = "SELECT id FROM opsjobs.jobs WHERE state IN ('available', 'retryable') LIMIT 1"
        ids = [row["id"] for row in self.bench.rows(waiting)]
        now = read_clock(self.bench.connection)
        self.ended += len(endings.cancel(self.bench.connection, ids, now, "not wanted"))


def retain_hours(bench: Bench, now: datetime, limit: int) -> None:
    later = {"before": now + timedelta(days=1), "limit": limit}
    bench.connection.execute(sql.load("retain_task_hours"), later)


def test_numbers_equal_a_slow_count_while_ends_folding_and_retention_race(
    app: Flask, make_bench: MakeBench, opsjobs: OpsJobs
) -> None:
    @opsjobs.task
    def fetch(text: str) -> None: ...

    @opsjobs.task(max_attempts=1)
    def send(text: str) -> None: ...

    enqueued = threading.Event()
    enders = [Ender(make_bench(), seed, enqueued) for seed in range(3)]
    loop, keeper = make_bench(), make_bench()
    now = read_clock(loop.connection)

    def enqueue() -> None:
        try:
            with app.app_context(), Session(loop.host.engine) as session:
                for at in range(60):
                    fetch.options(session=session).enqueue(text=str(at))
                    send.options(session=session).enqueue_many([{"text": "a"}, {"text": "b"}])
                    session.commit() if at % 4 else session.rollback()
        finally:
            enqueued.set()

    def roll() -> None:
        for _ in range(40):
            fold(loop, now)

    def retain() -> None:
        for _ in range(40):
            retain_hours(keeper, now, 1)

    answers = race(enqueue, roll, retain, *(ender.run for ender in enders))
    assert answers == [None] * 6
    fold(loop, now)
    found, ended = folded(query(loop)), sum(ender.ended for ender in enders)
    assert found == slow_count(query(loop)) == folded(query(loop), "task_minutes")
    assert sum(one.ended for one in found.values()) == ended > 60
    # What is kept for ever says the same as the hours.
    retain_hours(keeper, now, 10_000)
    fold(loop, now)
    assert folded(query(loop)) == found
    assert {row["hour"].year for row in loop.rows("SELECT hour FROM opsjobs.task_hours")} == {1970}


def test_percentiles_are_right_to_a_bucket(bench: Bench, record_job: Callable[..., int]) -> None:
    chance, spent = random.Random(7), []
    for _ in range(100):
        record_job()
    for job_id, dispatch_no in take(bench, 100):
        spent.append(chance.lognormvariate(0, 2))
        now = steady_seconds()
        ended = EndedAttempt(
            job_id, dispatch_no, bench.worker_id, bench.name, RETURNED, 1, now - spent[-1], now
        )
        endings.finish(bench.connection, [ended], read_clock(bench.connection), steady_now=now)
    fold(bench, read_clock(bench.connection))
    runs = folded(query(bench))["note"].runs
    for share in (0.5, 0.95, 0.99):
        exact = sorted(spent)[int(share * len(spent)) - 1]
        found = quantile(runs, share)
        assert found is not None
        assert exact / 2 <= found <= exact * 2


def test_a_retry_ends_its_job_once_more(
    bench: Bench, record_job: Callable[..., int], opsjobs: OpsJobs
) -> None:
    job_id = record_job(max_attempts=1)
    for dispatch_no, kind in ((1, "raised"), (2, "returned")):
        if dispatch_no == 2:
            opsjobs.operator.retry([job_id], actor="ops-demo", reason="it is counted twice")
        bench.dispatch()
        bench.claim(job_id, dispatch_no)
        bench.record(job_id, dispatch_no, Outcome(kind))
    fold(bench, read_clock(bench.connection))
    (one,) = folded(query(bench)).values()
    assert (one.enqueued, one.finished, one.failed, one.canceled) == (1, 1, 1, 0)


def test_a_process_that_is_older_than_the_schema_counts_no_task(
    bench: Bench, record_job: Callable[..., int]
) -> None:
    """As old code appends it, and as new code does before the migration."""
    bench.connection.execute(
        "INSERT INTO opsjobs.job_count_deltas (at, queue, enqueued) VALUES (now(), 'default', 3)"
    )
    fold(bench, read_clock(bench.connection))
    assert folded(query(bench)) == {}
    assert bench.row("SELECT sum(enqueued)::int AS n FROM opsjobs.enqueue_counts") == {"n": 3}

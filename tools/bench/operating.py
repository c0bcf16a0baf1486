"""Measures operations: what live jobs feel beside a retry, and how fast a freeze, a retry and a discard are.

Run by `make bench ARGS="--only-operations"`. Each measurement has a process and a database of its own.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from flask_opsjobs import JobFilter
from flask_opsjobs.operations.operator import BulkOperator
from tests.support.waiting import wait_until
from tools.bench.beside_loops import run_loops
from tools.bench.whole_workers import run_workers

if TYPE_CHECKING:
    from tools.bench.__main__ import Bench

WHY: dict[str, Any] = {"actor": "bench", "reason": "to measure it", "authorize": False}
# The jobs are made past the counts of enqueued ones. This loop would make a critical incident of that, which
# pauses retries.
_LEFT_OUT = ("check_integrity",)
# The first live jobs find the workers starting.
_WARMING = 5
# What keeps the two workers busy, with and without the retry: half of their time. It comes at random, as the
# requests of a site do. At a fixed pace one worker would be idle but for about 5 % of the time, so that the
# p95 of the live jobs would be a matter of chance.
_LOAD_EVERY, _LOAD_TAKES = 0.04, 0.04
# As one failed attempt leaves a job, or as one that is due in an hour: the engine would take minutes.
_FAILED = """
WITH made AS (
    INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, attempt, dispatch_no, created_at,
        due_at, dispatched_at, started_at, ended_at, ended_by, error)
    SELECT 'noop', 'default', 'default', 'failed', '{"number": 0}', 1, 1, 1, now(), now(), now(), now(),
        now(), 'exhausted', 'Boom' FROM generate_series(1, :jobs)
    RETURNING id
)
INSERT INTO opsjobs.attempts (job_id, dispatch_no, attempt, worker, started_at, ended_at, outcome, error,
    failure_key)
SELECT id, 1, 1, 'worker-1', now(), now(), 'raised', 'Boom', decode(repeat('01', 16), 'hex') FROM made
"""
_SCHEDULED = """
INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, attempt, dispatch_no, created_at,
    due_at)
SELECT 'noop', 'default', 'default', 'scheduled', '{"number": 0}', 1, 0, 0, now(), now() + interval '1 hour'
FROM generate_series(1, :jobs)
"""
_HANDLED = """
SELECT state, done + skipped + proven + failed_same_error + failed_other_error + unproven AS handled,
    proven, extract(epoch FROM clock_timestamp())::float8 AS at
FROM opsjobs.operations ORDER BY id DESC LIMIT 1
"""


def measure(bench: Bench, jobs: int, seconds: int) -> None:
    """Print all figures, each with its aim."""

    def run(function: str, kind: str, count: int) -> Any:
        url = bench.databases.migrated()
        bench.valkey.flushall()
        try:
            return bench.run(url, f"operating.{function}", kind, count, None)
        finally:
            bench.databases.drop(url)

    alone = run("live", f"alone {seconds}", jobs)
    beside = run("live", f"beside {seconds}", jobs)
    ratio = beside["p95"] / alone["p95"]
    print(f"two busy workers, a live job each second for {seconds} s, enqueue to start, ms")
    _print_live("alone", alone)
    _print_live(f"beside a retry of {jobs:,}", beside)
    print(
        f"  p95 beside it ÷ alone {ratio:.2f} (aim: ≤ 1.5), and {beside['p95']:,.0f} ms (≤ 1,000)"
    )
    print(f"  meanwhile the retry did {beside['rate']:,.0f} jobs a second")
    frozen = run("freeze", "-", jobs)
    print(f"freeze {jobs:,} failed jobs: {frozen:.2f} s (aim: ≤ 3)")
    discarded = run("discard", "-", jobs)
    print(
        f"discard {jobs:,}: {discarded['rate']:,.0f} jobs a second (aim: ≥ 2,000), "
        f"{discarded['audited']} audit rows (≤ 12)"
    )
    retried = run("retry", "2", jobs)
    print(f"retry at full prefetch, two workers: {retried:,.0f} jobs a second")


def _print_live(words: str, found: dict[str, float]) -> None:
    print(
        f"  {words:28}p50 {found['p50']:7.1f}   p95 {found['p95']:7.1f}   most {found['most']:7.1f}"
    )


def live(kind: str, count: int) -> dict[str, float]:
    """How long in ms live jobs wait beside two busy workers; `beside 60` is with a retry, for 60 s."""
    word, _, seconds = kind.partition(" ")
    with (
        _prepared(_FAILED, count) as (db, operator),
        run_loops(*_LEFT_OUT),
        run_workers(2),
        _load(),
    ):
        if word == "beside":
            operator.start("job.retry", JobFilter(state="failed"), **WHY)
            wait_until(lambda: _look(db).handled > 200, 120, what="the last stage is under way")
        before = _look(db) if word == "beside" else None
        waits = list(_stamp(db, int(seconds)))
        after = _look(db) if word == "beside" else None
        assert after is None or after.state == "running", after
    ordered = sorted(waits)
    rate = (after.handled - before.handled) / (after.at - before.at) if before and after else 0.0
    return {
        "p50": statistics.median(ordered),
        "p95": ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))],
        "most": ordered[-1],
        "rate": rate,
    }


def freeze(_kind: str, count: int) -> float:
    """Seconds until so many failed jobs are frozen."""
    with _prepared(_FAILED, count) as (_, operator):
        began = time.monotonic()
        drafted = operator.draft("job.retry", JobFilter(state="failed"), actor="bench")
        assert drafted.targets == count, drafted
        return time.monotonic() - began


def discard(_kind: str, count: int) -> dict[str, float]:
    """Jobs a second of a discard by the loop, and how many rows the audit has of it."""
    with _prepared(_SCHEDULED, count) as (db, operator), run_loops(*_LEFT_OUT):
        wait_until(lambda: _count(db, "SELECT count(*) FROM opsjobs.loop_runs") > 0, 60)
        operator.start("job.discard", JobFilter(state="scheduled"), **WHY)
        wait_until(lambda: _look(db).state == "finished", 500, every=0.2)
        took = "SELECT extract(epoch FROM ended_at - started_at)::float8 FROM opsjobs.operations"
        audited = _count(db, "SELECT count(*) FROM opsjobs.audit_events")
        assert _look(db).handled == count
        return {"rate": count / _count(db, took), "audited": audited}


def retry(kind: str, count: int) -> float:
    """Jobs a second that are retried and have run, with so many workers that have nothing else to do."""
    with _prepared(_FAILED, count) as (db, operator), run_loops(*_LEFT_OUT), run_workers(int(kind)):
        operator.start("job.retry", JobFilter(state="failed"), **WHY)
        wait_until(lambda: _look(db).proven > 200, 120, what="the last stage is under way")
        before = _look(db)
        until = before.at + 20
        wait_until(lambda: _look(db).at > until or _look(db).state == "finished", 60, every=0.5)
        after = _look(db)
        assert after.state in ("running", "finished"), after
        return float((after.proven - before.proven) / (after.at - before.at))


# --- what is prepared, and what is read


@contextmanager
def _prepared(fill: str, jobs: int) -> Iterator[tuple[Any, BulkOperator]]:
    """A database with so many jobs, in the context of the app."""
    from tools.bench.host import app, db

    with app().app_context():
        with db.engine.begin() as connection:
            connection.execute(text(fill), {"jobs": jobs})
        # Autovacuum does it within a minute.
        with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM (ANALYZE) opsjobs.jobs, opsjobs.attempts"))
        yield db, BulkOperator(app().extensions["opsjobs"])


@contextmanager
def _load() -> Iterator[None]:
    """Enqueue jobs that take half of the time of two workers, in a thread, until the block ends."""
    from tools.bench.host import app, db, sleep

    stop = threading.Event()

    def feed() -> None:
        with app().app_context():
            due, dice = time.monotonic(), random.Random(14)
            while not stop.is_set():
                sleep.enqueue(seconds=_LOAD_TAKES)
                db.session.commit()
                due += dice.expovariate(1 / _LOAD_EVERY)
                stop.wait(max(0.0, due - time.monotonic()))

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)


def _stamp(db: Any, seconds: int) -> Iterator[float]:
    """Enqueue a job each second; how long each waited for its first line, in ms."""
    from tools.bench.host import stamp

    with tempfile.TemporaryDirectory() as folder:
        began: list[float] = []
        first = time.monotonic()
        for number in range(_WARMING + seconds):
            time.sleep(max(0.0, first + number - time.monotonic()))
            began.append(time.monotonic())
            stamp.enqueue(path=f"{folder}/{number}")
            db.session.commit()
        paths: Sequence[Path] = [Path(folder, str(number)) for number in range(len(began))]
        wait_until(lambda: all(path.exists() for path in paths), 120, every=0.1)
        for at, path in list(zip(began, paths, strict=True))[_WARMING:]:
            yield (float(path.read_text()) - at) * 1000


def _look(db: Any) -> Any:
    with db.engine.connect() as connection:
        return connection.execute(text(_HANDLED)).one()


def _count(db: Any, query: str) -> Any:
    with db.engine.connect() as connection:
        return connection.execute(text(query)).scalar()

"""Measures workers of ours for the bench that run as a host runs them, beside others or for a while."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from flask import current_app
from sqlalchemy import text

from tests.support.waiting import wait_until

# 0.9 GB of small objects.
_BALLAST = 2_300_000
_LONG_SECONDS = 2.0


def limited_run(kind: str, count: int) -> float:
    """Jobs a second of one limiter, four at once: BENCH_LIMIT says so."""
    from flask_opsjobs.engine.worker.runtime import declare_limiters
    from tools.bench.host import create_app, db, limited
    from tools.bench.run import managed

    def enqueue() -> None:
        # Else its commit dispatches none.
        declare_limiters(current_app.extensions["opsjobs"], "bench")
        limited.enqueue_many({"account": 0} for _ in range(count))

    rate = managed(kind, count, enqueue)
    with create_app().app_context():
        most = db.session.scalar(
            text("""SELECT max(running) FROM (
                    SELECT sum(change) OVER (ORDER BY at, change) AS running FROM (
                        SELECT started_at AS at, 1 AS change FROM opsjobs.attempts
                        UNION ALL SELECT ended_at, -1 FROM opsjobs.attempts) AS changes) AS moments""")
        )
    assert most <= 4, f"{most} ran at once"
    return rate


def memory(kind: str, count: int) -> float:
    """The memory of a large host's worker and all its children ÷ that of its parent alone."""
    os.environ["BENCH_BALLAST"] = str(_BALLAST)
    processes, jobs = kind.split("x")
    with run_workers(1, "--processes", processes, "--jobs-per-process", jobs) as (worker,):
        os.environ["BENCH_BALLAST"] = "0"
        from tools.bench.host import create_app, db, touch_model
        from tools.bench.run import make_rows

        with create_app().app_context():
            make_rows()
            touch_model.enqueue_many({"number": number} for number in range(count))
            db.session.commit()
            _wait_until_finished(db, count)
        alone = _kilobytes(worker.pid, "Rss")
        children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
        together = sum(_kilobytes(pid, "Pss") for pid in [str(worker.pid), *children])
    return together / alone


def _kilobytes(pid: int | str, kind: str) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{kind}:"))


def worst_wait(kind: str, count: int) -> float:
    """The longest time in ms that a short job waited beside jobs of 2 s; mostly one of these runs.

    `kind` is the number of workers and of the children of each: `2x1`. All are jobs of one task, so nobody
    knows which are long. Each long one comes amid fifty short ones.
    """
    workers, processes = kind.split("x")
    from tools.bench.host import create_app, db, sleep

    with create_app().app_context(), run_workers(int(workers), "--processes", processes):
        enqueued = 0
        for _ in range(count):
            until = time.monotonic() + _LONG_SECONDS * 1.2
            sleep.enqueue_many(
                {"seconds": _LONG_SECONDS if number == 25 else 0.0} for number in range(51)
            )
            db.session.commit()
            enqueued += 51
            while time.monotonic() < until:
                time.sleep(0.05)
                sleep.enqueue_many({"seconds": 0.0} for number in range(20))
                db.session.commit()
                enqueued += 20
        _wait_until_finished(db, enqueued)
        waited = db.session.scalar(
            text("""SELECT max(extract(epoch FROM a.started_at - j.due_at))
                FROM opsjobs.attempts a JOIN opsjobs.jobs j ON j.id = a.job_id
                WHERE a.ended_at - a.started_at < interval '1 s'""")
        )
    return float(waited) * 1000


def takes(kind: str, count: int) -> float:
    """The p95 in ms of a worker's takes of `kind` jobs each from fifty queues that hold `count`."""
    from flask_opsjobs.core import sql
    from flask_opsjobs.core.db import connect_apart
    from tools.bench.host import create_app, db
    from tools.bench.run import QUEUES, enqueue_to_many

    took = []
    app = create_app()
    app.extensions["opsjobs"].dispatcher = None
    with app.app_context():
        enqueue_to_many(count)
        db.session.commit()
        parameters: dict[str, Any] = {
            "queues": [f"queue-{number}" for number in range(QUEUES)],
            "limit": int(kind),
            "bytes": 4_000_000,
            "waited": None,
            "worker_id": 1,
        }
        with closing(connect_apart(app.extensions["opsjobs"].engine)) as connection:
            for _ in range(count // int(kind)):
                began = time.perf_counter()
                rows = connection.execute(sql.load("take_jobs"), parameters).fetchall()
                took.append((time.perf_counter() - began) * 1000)
                assert len(rows) == int(kind), f"{len(rows)} were taken"
    return statistics.quantiles(took, n=20)[-1]


def graph_run(_kind: str, count: int) -> float:
    """Seconds that a graph of 2,000 steps in 20 layers takes on two children, the median of `count`."""
    from tools.bench.whole_runs import processes, time_graphs

    with processes(1, "--processes", "2"):
        return statistics.median(time_graphs(count))


@contextmanager
def run_workers(number: int, *words: str) -> Iterator[list[subprocess.Popen[str]]]:
    """So many workers that listen to all queues."""
    flask = [sys.executable, "-m", "flask", "--app", "tools.bench.host:create_app", "opsjobs"]
    workers = [
        subprocess.Popen([*flask, "worker", *words], stderr=subprocess.PIPE, text=True)
        for _ in range(number)
    ]
    try:
        for worker in workers:
            assert worker.stderr is not None
            assert "listens to" in (said := worker.stderr.readline()), said
        yield workers
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.communicate(timeout=30)


def _wait_until_finished(db: Any, count: int) -> None:
    ended = text("SELECT count(*) FROM opsjobs.jobs WHERE state = 'finished'")

    def is_done() -> bool:
        with db.engine.connect() as connection:
            return bool(connection.execute(ended).scalar() == count)

    wait_until(is_done, 120, what=f"{count} jobs have finished")

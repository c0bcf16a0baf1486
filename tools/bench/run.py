"""Makes one measurement of the bench in its own process, and prints one JSON value on the last line."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable

from redis import Redis
from rq import Queue, SimpleWorker, Worker
from sqlalchemy import text

from tools.bench.host import create_app, db, noop, opsjobs, plain_noop


def plain_run(kind: str, count: int) -> float:
    """Jobs a second of a plain RQ worker, from its first pop to its last job."""
    redis = Redis.from_url(os.environ["BENCH_REDIS_URL"])
    queue = Queue("plain", connection=redis)
    queue.enqueue_many([Queue.prepare_data(plain_noop, (number,)) for number in range(count)])
    worker = (SimpleWorker if kind == "simple" else Worker)([queue], connection=redis)
    began = time.perf_counter()
    worker.work(burst=True, logging_level="WARNING")
    return count / (time.perf_counter() - began)


def managed_run(kind: str, count: int) -> float:
    """Jobs a second of a worker of ours, until the last outcome is committed.

    `kind` is the number of its children and how many jobs each performs: `2x1000`.
    """
    from flask_opsjobs.cli.worker import run
    from flask_opsjobs.engine.worker.parent import WorkerOptions

    processes, jobs_per_process = map(int, kind.split("x"))
    options = WorkerOptions(
        processes=processes,
        jobs_per_process=jobs_per_process,
        max_jobs=count,
        with_scheduler=False,
    )

    app = create_app()
    with app.app_context():
        noop.enqueue_many({"number": number} for number in range(count))
        db.session.commit()
        began = time.perf_counter()
        # Without RQ's scheduler, as `plain_run`: a process that only plain jobs need.
        code = run(app, ["default"], options)
        seconds = time.perf_counter() - began
        finished = db.session.scalar(
            text("SELECT count(*) FROM opsjobs.jobs WHERE state = 'finished'")
        )
    assert (code, finished) == (0, count), f"exit code {code}, {finished} of {count} finished"
    return count / seconds


def plain_on_ours(kind: str, count: int) -> float:
    """Plain RQ jobs a second of a worker of ours, until it has ended them all."""
    from flask_opsjobs.cli.worker import run
    from flask_opsjobs.engine.worker.parent import WorkerOptions

    processes, jobs_per_process = map(int, kind.split("x"))
    redis = Redis.from_url(os.environ["BENCH_REDIS_URL"])
    queue = Queue("default", connection=redis)
    queue.enqueue_many([Queue.prepare_data(plain_noop, (number,)) for number in range(count)])
    app = create_app()
    options = WorkerOptions(
        processes=processes,
        jobs_per_process=jobs_per_process,
        burst=True,
        with_scheduler=False,
    )
    with app.app_context():
        began = time.perf_counter()
        code = run(app, ["default"], options)
        seconds = time.perf_counter() - began
    assert (code, queue.count) == (0, 0), f"exit code {code}, {queue.count} left"
    return count / seconds


def plain_enqueue(_kind: str, count: int) -> float:
    """Enqueues a second, one by one, by plain RQ."""
    queue = Queue("plain", connection=Redis.from_url(os.environ["BENCH_REDIS_URL"]))
    return _rate(lambda number: queue.enqueue(plain_noop, number), count)


def managed_enqueue(_kind: str, count: int) -> float:
    """Enqueues a second, each in its own host transaction with commit and dispatch to RQ."""

    def one(number: int) -> None:
        noop.enqueue(number=number)
        db.session.commit()

    app = create_app()
    with app.app_context():
        rate = _rate(one, count)
        queued = db.session.scalar(text("SELECT count(*) FROM opsjobs.jobs WHERE state = 'queued'"))
    pushed = Redis.from_url(os.environ["BENCH_REDIS_URL"]).llen(
        Queue("default", connection=Redis()).key
    )
    assert queued == pushed == count + 20, f"{queued} queued, {pushed} pushed of {count + 20}"
    return rate


def _rate(one: Callable[[int], object], count: int) -> float:
    for number in range(20):  # warm: connections, prepared statements
        one(number)
    began = time.perf_counter()
    for number in range(count):
        one(number)
    return count / (time.perf_counter() - began)


def plain_many(_kind: str, count: int) -> float:
    """Jobs a second of RQ's `enqueue_many`, in chunks of 1,000."""
    queue = Queue("plain", connection=Redis.from_url(os.environ["BENCH_REDIS_URL"]))
    began = time.perf_counter()
    for start in range(0, count, 1000):
        queue.enqueue_many(
            [Queue.prepare_data(plain_noop, (n,)) for n in range(start, start + 1000)]
        )
    return count / (time.perf_counter() - began)


def managed_many(_kind: str, count: int) -> float:
    """Jobs a second of one `enqueue_many` and its commit."""
    app = create_app()
    with app.app_context():
        began = time.perf_counter()
        noop.enqueue_many({"number": number} for number in range(count))
        db.session.commit()
        return count / (time.perf_counter() - began)


def memory_of_many(_kind: str, count: int) -> dict[str, float]:
    """Seconds and growth of the peak memory, in MB,
    of one `enqueue_many` of `count` jobs from a generator.
    """
    return _add(noop.enqueue_many, count)


def memory_of_batch(_kind: str, count: int) -> dict[str, float]:
    """The same of `count` members of one batch."""

    def add(calls: Iterable[dict[str, int]]) -> None:
        with opsjobs.batch("import") as batch:
            batch.enqueue_many(noop, calls)

    return _add(add, count)


def _add(
    enqueue_many: Callable[[Iterable[dict[str, int]]], object], count: int
) -> dict[str, float]:
    app = create_app()
    app.extensions["opsjobs"].dispatcher = None
    with app.app_context():
        noop.enqueue_many({"number": number} for number in range(100))
        db.session.commit()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.perf_counter()
        enqueue_many({"number": number} for number in range(count))
        db.session.commit()
        seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "grew_mb": (after - before) / 1024, "peak_mb": after / 1024}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](sys.argv[2], int(sys.argv[3]))))

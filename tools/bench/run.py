"""Makes one measurement of the bench in its own process, and prints one JSON value on the last line."""

from __future__ import annotations

import json
import logging
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from importlib import import_module
from typing import Any, NamedTuple

from redis import Redis
from rq import Queue, SimpleWorker, Worker
from sqlalchemy import create_engine, text

from tools.bench import host
from tools.bench.host import create_app, db, noop, opsjobs, plain_noop

QUEUES = 50


def plain_run(kind: str, count: int) -> float:
    """Jobs a second of a plain RQ worker, from its first pop to its last job."""
    return _plain(plain_noop, kind, count)


def _plain(function: Callable[[int], None], kind: str, count: int) -> float:
    redis = Redis.from_url(os.environ["BENCH_REDIS_URL"])
    queue = Queue("plain", connection=redis)
    queue.enqueue_many([Queue.prepare_data(function, (number,)) for number in range(count)])
    worker = (SimpleWorker if kind == "simple" else Worker)([queue], connection=redis)
    began = time.perf_counter()
    worker.work(burst=True, logging_level="WARNING")
    return count / (time.perf_counter() - began)


def plain_touch(kind: str, count: int) -> float:
    """Jobs a second of plain RQ that read and write a row of the host."""
    # Made by the parent, as a host's worker imports its app.
    with host.app().app_context():
        make_rows()
        db.engine.dispose()
    return _plain(host.plain_touch_in_app, kind, count)


def managed_run(kind: str, count: int) -> float:
    """Jobs a second of a worker of ours, from when it is ready until it has stopped after its last job.

    `kind` is the number of its children and how many jobs each performs: `2x1000`.
    """
    return managed(kind, count, lambda: _enqueue(noop, count))


def managed_touch(kind: str, count: int) -> float:
    """The same of jobs that read and write a row of the host."""

    def enqueue() -> None:
        make_rows()
        _enqueue(host.touch, count)

    return managed(kind, count, enqueue)


def without_redis(kind: str, count: int) -> float:
    """The same as `managed_run` while nothing listens at the address of Redis."""
    os.environ["BENCH_REDIS_URL"] = "redis://127.0.0.1:1/0"
    return managed_run(kind, count)


def many_queues(kind: str, count: int) -> float:
    """The same with the jobs spread over fifty queues."""

    queues = [f"queue-{number}" for number in range(QUEUES)]
    return managed(kind, count, lambda: enqueue_to_many(count), queues)


def enqueue_to_many(count: int) -> None:
    """Enqueue no-op jobs, as many to each of fifty queues."""
    for number in range(QUEUES):
        queue = noop.options(queue=f"queue-{number}")
        queue.enqueue_many({"number": n} for n in range(count // QUEUES))


def fifths(kind: str, count: int) -> float:
    """Jobs a second in the last fifth of a run ÷ in the first. `kind` ends with `+` under an old snapshot."""
    with ExitStack() as stack:
        if kind.endswith("+"):
            engine = create_engine(
                os.environ["BENCH_DATABASE_URL"], isolation_level="REPEATABLE READ"
            )
            snapshot = stack.enter_context(engine.connect())
            snapshot.execute(text("SELECT count(*) FROM opsjobs.jobs"))
        managed(kind.rstrip("+"), count, lambda: _enqueue(noop, count))
        with create_app().app_context():
            ends = db.session.scalars(
                text("SELECT extract(epoch FROM ended_at) FROM opsjobs.attempts ORDER BY ended_at")
            ).all()
    fifth = count // 5
    return float((ends[fifth] - ends[0]) / (ends[-1] - ends[-fifth]))


def of_30_ms(kind: str, count: int) -> dict[str, float]:
    """Dispatches ÷ jobs of 30 ms, and jobs a second ÷ what the children can do."""

    def enqueue() -> None:
        host.sleep.enqueue_many({"seconds": 0.03} for _ in range(count))

    rate = managed(kind, count, enqueue)
    with create_app().app_context():
        dispatches = db.session.scalar(text("SELECT sum(dispatch_no) FROM opsjobs.jobs"))
    children = int(kind.partition("x")[0])
    return {"dispatches": float(dispatches) / count, "share": rate * 0.03 / children}


def shares(kind: str, count: int) -> dict[str, float]:
    """Jobs a second of several workers on one queue, and the smallest share ÷ the largest.

    `kind` is the number of workers.
    """
    flask = [sys.executable, "-m", "flask", "--app", "tools.bench.host:create_app", "opsjobs"]
    with create_app().app_context():
        _enqueue(noop, count)
        db.session.commit()
        null = subprocess.DEVNULL
        command = [*flask, "worker", "--burst", "--no-scheduler", "default"]
        workers = [subprocess.Popen(command, stdout=null, stderr=null) for _ in range(int(kind))]
        assert [worker.wait(300) for worker in workers] == [0] * len(workers)
        # Only while all of them worked: they do not start in the same moment.
        rows = db.session.execute(
            text("""WITH spans AS (SELECT worker, min(started_at) AS first, max(ended_at) AS last
                        FROM opsjobs.attempts GROUP BY worker),
                    shared AS (SELECT max(first) AS first, min(last) AS last FROM spans)
                SELECT worker, count(*), extract(epoch FROM b.last - b.first) AS seconds
                FROM opsjobs.attempts a JOIN shared b ON a.ended_at BETWEEN b.first AND b.last
                GROUP BY worker, b.first, b.last""")
        ).all()
    counts = [row[1] for row in rows]
    assert len(counts) == len(workers), f"{len(counts)} of {len(workers)} workers had jobs"
    return {"rate": sum(counts) / float(rows[0][2]), "evenness": min(counts) / max(counts)}


def _enqueue(task: Any, count: int) -> None:
    task.enqueue_many({"number": number} for number in range(count))


def make_rows() -> None:
    """Make a table of the host with a thousand rows."""
    db.session.execute(text("CREATE TABLE host_rows (id bigint PRIMARY KEY, note bigint)"))
    db.session.execute(text("INSERT INTO host_rows SELECT n, 0 FROM generate_series(0, 999) n"))
    db.session.commit()


def managed(
    kind: str, count: int, enqueue: Callable[[], object], queues: Sequence[str] = ("default",)
) -> float:
    """Jobs a second of a worker of ours on what is enqueued before, as `managed_run`."""
    return count / cost_of_worker(kind, count, enqueue, queues).seconds


class Cost(NamedTuple):
    """How long something took, and how many seconds of processors this process and its children used."""

    seconds: float
    processor_seconds: float


def cost_since(began: Cost) -> Cost:
    """The cost since a time, or with zeros since the process began. Children count once they have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    processor_seconds = sum(each.ru_utime + each.ru_stime for each in used)
    return Cost(time.perf_counter() - began.seconds, processor_seconds - began.processor_seconds)


def cost_of_run(kind: str, count: int) -> Cost:
    """The cost of what `managed_run` measures."""
    return cost_of_worker(kind, count, lambda: _enqueue(noop, count))


def cost_of_worker(
    kind: str, count: int, enqueue: Callable[[], object], queues: Sequence[str] = ("default",)
) -> Cost:
    """The cost of a worker of ours, from when it is ready until it has stopped after its last job."""
    from flask_opsjobs.engine.worker.parent import WorkerOptions
    from flask_opsjobs.engine.worker.runtime import WorkerRuntime

    processes, jobs_per_process = map(int, kind.split("x"))
    options = WorkerOptions(
        processes=processes,
        jobs_per_process=jobs_per_process,
        max_jobs=count,
        with_scheduler=False,
    )

    app = create_app()
    with app.app_context():
        enqueue()
        db.session.commit()
        # Without RQ's scheduler, as `plain_run`: a process that only plain jobs need.
        runtime = WorkerRuntime(app, list(queues), options)
        began: list[Cost] = []
        has_recorded = runtime.run(tell_ready=lambda: began.append(cost_since(Cost(0, 0))))
        cost = cost_since(began[0])
        finished = db.session.scalar(
            text("SELECT count(*) FROM opsjobs.jobs WHERE state = 'finished'")
        )
    assert has_recorded
    assert finished == count, f"{finished} of {count} finished"
    return cost


def plain_on_ours(kind: str, count: int) -> float:
    """Plain RQ jobs a second of a worker of ours, until it has ended them all."""
    from flask_opsjobs.cli.worker import run
    from flask_opsjobs.engine.worker.parent import WorkerOptions

    processes, jobs_per_process = map(int, kind.split("x"))
    redis = Redis.from_url(os.environ["BENCH_REDIS_URL"])
    queue = Queue("default", connection=redis)
    queue.enqueue_many([Queue.prepare_data(plain_noop, (number,)) for number in range(count)])
    app = create_app()
    # As our command and `plain_run` do.
    logging.getLogger("rq.worker").setLevel("WARNING")
    logging.getLogger("rq.job").setLevel("WARNING")
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


def managed_enqueue(kind: str, count: int) -> float:
    """Enqueues a second, each in its own host transaction with commit and dispatch to RQ."""
    return count / cost_of_enqueue(kind, count).seconds


def cost_of_enqueue(_kind: str, count: int) -> Cost:
    """The cost of what `managed_enqueue` measures, in this process."""

    def one(number: int) -> None:
        noop.enqueue(number=number)
        db.session.commit()

    app = create_app()
    with app.app_context():
        cost = _cost_of(one, count)
        queued = db.session.scalar(text("SELECT count(*) FROM opsjobs.jobs WHERE state = 'queued'"))
    pushed = Redis.from_url(os.environ["BENCH_REDIS_URL"]).llen(
        Queue("default", connection=Redis()).key
    )
    assert queued == pushed == count + 20, f"{queued} queued, {pushed} pushed of {count + 20}"
    return cost


def _rate(one: Callable[[int], object], count: int) -> float:
    return count / _cost_of(one, count).seconds


def _cost_of(one: Callable[[int], object], count: int) -> Cost:
    for number in range(20):  # warm: connections, prepared statements
        one(number)
    began = cost_since(Cost(0, 0))
    for number in range(count):
        one(number)
    return cost_since(began)


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
    # Of this module, or of another one of the bench that is named before.
    module, _, name = sys.argv[1].rpartition(".")
    found = import_module(f"tools.bench.{module or 'run'}")
    print(json.dumps(getattr(found, name)(sys.argv[2], int(sys.argv[3]))))

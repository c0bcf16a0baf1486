"""Measures adopting for the bench: resting plain jobs, changes, the first meeting, memory, round trips."""

from __future__ import annotations

import gc
import os
import resource
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from redis import Redis
from redis.client import Pipeline
from rq import Queue
from rq.job import Job
from rq.registry import (
    BaseRegistry,
    CanceledJobRegistry,
    DeferredJobRegistry,
    FailedJobRegistry,
    FinishedJobRegistry,
    ScheduledJobRegistry,
)
from rq.results import Result

from flask_opsjobs.core.db import Connection, connect_apart
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.engine.adopted.adopting import Adopted, adopt_jobs
from flask_opsjobs.engine.adopted.memory import Memory
from flask_opsjobs.engine.adopted.places import list_places

if TYPE_CHECKING:
    from tools.bench.__main__ import Bench

JOBS = 100_000
CHANGES = 2_000
REGISTRIES: dict[str, type[BaseRegistry]] = {
    "failed": FailedJobRegistry,
    "finished": FinishedJobRegistry,
    "canceled": CanceledJobRegistry,
    "scheduled": ScheduledJobRegistry,
    "deferred": DeferredJobRegistry,
}
_FAR = 4_000_000_000


def measure(bench: Bench, rounds: int) -> None:
    """Print all figures, with what they shall be."""
    url = bench.databases.migrated()
    os.environ.update(bench.env(url))
    from tools.bench.host import create_app

    app = create_app()
    with app.app_context():
        host = app.extensions["opsjobs"]
        loop = _Loop(connect_apart(host.engine), list_places(host, ["default"])[0])
        _measure_five_registries(loop, rounds)
        loop.redis.flushdb()
        _measure_one_registry(loop)
        loop.connection.close()
    bench.databases.drop(url)
    _measure_beside_loops(bench, rounds)


class _Loop:
    """One copy of the adopt loop."""

    def __init__(self, connection: Connection, place: Any) -> None:
        self.connection, self.place, self.memory = connection, place, Memory()
        self.redis: Redis = place.redis
        self.now = read_clock(connection)

    def step(self) -> tuple[Adopted, float]:
        """One pass, 10 s after the last one by its own clock, and how many milliseconds it took."""
        self.now += timedelta(seconds=10)
        began = time.perf_counter()
        found = adopt_jobs(self.connection, self.place, self.memory, lambda _: None, self.now)
        return found, (time.perf_counter() - began) * 1000

    def meet(self) -> tuple[float, list[float]]:
        """Adopt all; the seconds that it took, and the milliseconds of each pass. Looks each ten seconds."""
        began, passes = time.perf_counter(), []
        self.now += timedelta(seconds=10)
        while True:
            at = time.perf_counter()
            now = self.now + timedelta(seconds=at - began)
            found = adopt_jobs(self.connection, self.place, self.memory, lambda _: None, now)
            passes.append((time.perf_counter() - at) * 1000)
            if not found.waiting:
                self.now = now
                return time.perf_counter() - began, passes


def _measure_five_registries(loop: _Loop, rounds: int) -> None:
    for kind in REGISTRIES:
        put_resting(loop.redis, kind, JOBS // 5)
    gc.collect()
    before = _peak_mb()
    took, passes = loop.meet()
    _print("first meeting with 100,000 jobs, s", took, "≤ 90")
    _print("  the longest of its passes, ms", max(passes), "")
    _print("  the process grew by, MB", _peak_mb() - before, "≤ 100")
    loop.step()
    with _round_trips() as trips:
        resting = [loop.step()[1] for _ in range(max(3, rounds))]
    _print(
        "pass over 100,000 resting jobs in five registries, ms", statistics.median(resting), "≤ 600"
    )
    _print("  its round trips to Redis", len(trips) / len(resting), "constant")
    changing = []
    for number in range(max(3, rounds)):
        _move(loop.redis, CHANGES, number)
        found, took = loop.step()
        if found.changed != CHANGES:
            raise RuntimeError(f"{found.changed} of {CHANGES} changes were seen")
        changing.append(took - statistics.median(resting))
    _print("2,000 changes, beside the pass, ms", statistics.median(changing), "≤ 1,000")


def _measure_one_registry(loop: _Loop) -> None:
    loop.memory = Memory()
    put_resting(loop.redis, "failed", JOBS)
    while loop.step()[0].waiting or loop.memory.read_since is None:
        pass
    turns = [loop.step()[1] for _ in range(5)]
    _print("turn of five over one registry of 100,000, the longest, ms", max(turns), "≤ 600")


def _measure_beside_loops(bench: Bench, rounds: int) -> None:
    """Managed jobs beside all loops, and beside those of before: in turn, each the first as often."""
    for figure, count, words in (
        ("throughput", 20_000, "throughput of managed jobs beside the new loops ÷ before"),
        ("latency", 60, "latency of a start before ÷ beside the new loops"),
    ):
        found: dict[str, list[float]] = {"before": [], "now": []}
        for number in range(max(4, rounds)):
            for kind in sorted(found, reverse=number % 2 == 1):
                value = bench.measure(f"beside_loops.{figure}", kind, count, None)
                found[kind].append(value)
        before, now = (statistics.median(values) for values in found.values())
        print(f"  {figure} before {before:,.2f}, now {now:,.2f}")
        ratio = now / before if figure == "throughput" else before / now
        print(f"{words:64}{ratio:10.2f}{'≥ 0.97':>10}", flush=True)


def put_resting(redis: Redis, kind: str, number: int) -> None:
    """Put so many resting jobs into a registry, with hashes and results as RQ writes them."""
    queue = Queue("plain", connection=redis)
    job = Job.create("tools.bench.host.plain_noop", args=(7,), connection=redis, origin="plain")
    job.enqueued_at = job.started_at = job.ended_at = job.created_at
    fields = {**job.to_dict(), "status": kind}
    result: dict[Any, Any] = Result(
        job.id, Result.Type.SUCCESSFUL, redis, return_value=7, worker_name="w"
    ).serialize()
    redis.sadd(Queue.redis_queues_keys, queue.key)
    key = REGISTRIES[kind](queue=queue).key
    for start in range(0, number, 5_000):
        with redis.pipeline(transaction=False) as pipe:
            for at in range(start, min(number, start + 5_000)):
                rq_id = f"{kind}-{at:032}"
                pipe.hset(Job.key_for(rq_id), mapping=fields)
                pipe.zadd(key, {rq_id: _FAR + at})
                if kind in ("failed", "finished"):
                    stream: str = Result.get_key(rq_id)  # type: ignore[no-untyped-call]
                    pipe.xadd(stream, {**result, "execution_id": rq_id[-8:]})
            pipe.execute()


def _move(redis: Redis, number: int, turn: int) -> None:
    """Move so many deferred jobs to the finished ones."""
    queue = Queue("plain", connection=redis)
    with redis.pipeline(transaction=False) as pipe:
        for at in range(turn * number, (turn + 1) * number):
            rq_id = f"deferred-{at:032}"
            pipe.zrem(DeferredJobRegistry(queue=queue).key, rq_id)
            pipe.hset(Job.key_for(rq_id), "status", "finished")
            pipe.zadd(FinishedJobRegistry(queue=queue).key, {rq_id: 2 * _FAR + at})
        pipe.execute()


@contextmanager
def _round_trips() -> Iterator[list[int]]:
    """Collect an entry for each pipeline that is sent."""
    sent: list[int] = []
    execute = Pipeline.execute

    def note(pipe: Pipeline, *args: Any, **options: Any) -> Any:
        sent.append(len(pipe))
        return execute(pipe, *args, **options)

    with patch.object(Pipeline, "execute", note):
        yield sent


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _print(name: str, figure: float, aim: str) -> None:
    print(f"{name:64}{figure:10,.1f}{aim:>10}", flush=True)

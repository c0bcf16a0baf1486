"""What lies in RQ and is not ours is counted and named; nothing of it is unpickled, and ours is left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from redis import Redis
from rq import Queue, SimpleWorker

from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.core.redis_facts import PlainJobs
from flask_opsjobs.engine.plain_jobs import find_plain_jobs
from flask_opsjobs.engine.redis.broker import Broker, broker_of
from flask_opsjobs.engine.redis.connections import RedisConnections
from tests.support.engine import Bench


def boom(secret: str) -> None:
    raise RuntimeError(secret)


def look(bench: Bench, *queues: str) -> PlainJobs:
    return find_plain_jobs(
        broker_of(bench.host), queues or ("default",), read_clock(bench.connection)
    )


def test_an_empty_redis(bench: Bench) -> None:
    found = look(bench)
    assert (found.problem, found.number, found.is_cut, list(found.examples)) == (None, 0, False, [])


def test_jobs_of_the_host_are_counted_and_ours_are_not(
    bench: Bench, record_job: Callable[..., int], redis_client: Redis
) -> None:
    record_job()
    bench.dispatch()
    queue = Queue("default", connection=redis_client)
    failing = queue.enqueue(boom, "hunter2", job_id="0-is-first")
    # Ours would run too: take it out while the plain worker works.
    ours: Any = redis_client.lpop(queue.key)
    SimpleWorker([queue], connection=redis_client).work(burst=True, logging_level="CRITICAL")
    assert ours is not None
    redis_client.rpush(queue.key, ours)
    Queue("mail", connection=redis_client).enqueue(boom, "hunter2")
    found = look(bench, "mail", "default")
    assert found.by_status == {"failed": 1, "queued": 1}
    first, second = found.examples
    assert (first.rq_id, first.status, first.queue) == (failing.id, "failed", "default")
    assert (second.status, second.queue) == ("queued", "mail")
    # The function, and not what it was called with.
    assert first.function == "tests.engine.test_plain_jobs.boom"
    assert first.moment is not None
    assert "hunter2" not in repr(found)


@pytest.mark.parametrize("created_at", ["nonsense", "9999-12-31T23:59:59-14:00"])
def test_a_poisoned_payload_is_never_read(
    bench: Bench, redis_client: Redis, created_at: str
) -> None:
    queue = Queue("default", connection=redis_client)
    job = queue.enqueue(boom, "x")
    redis_client.hset(
        job.key, mapping={"data": b"cos\nsystem\n(S'exit 1'\ntR.", "created_at": created_at}
    )
    redis_client.hdel(job.key, "description")
    (example,) = look(bench).examples
    assert (example.rq_id, example.function, example.moment) == (job.id, None, None)


def test_what_a_look_costs_does_not_grow(bench: Bench, redis_client: Redis) -> None:
    queue = Queue("default", connection=redis_client)
    redis_client.rpush(queue.key, *(f"job-{number}" for number in range(5_000)))
    redis_client.config_resetstat()
    found = look(bench, "default", "mail")
    stats = redis_client.info("commandstats")
    assert (found.number, found.is_cut) == (500, True)
    asked = {
        name: one["calls"]
        for name, one in stats.items()
        if "config" not in name and "info" not in name
    }
    asked = {
        name: calls for name, calls in asked.items() if "client" not in name and "hello" not in name
    }
    # Five reads a queue, and what RQ noted of three examples.
    assert sum(asked.values()) == 14, asked


def test_a_redis_that_is_away_is_said_soon(
    app: Flask, bench: Bench, redis_waits: list[float]
) -> None:
    away = Broker(RedisConnections(app, "redis://127.0.0.1:1/0"))
    found = find_plain_jobs(away, ["default", "mail"], read_clock(bench.connection))
    assert found.problem is not None
    assert "Redis does not answer" in found.problem
    assert list(found.unreachable) == ["default", "mail"]
    assert redis_waits == [0.2]


def test_it_never_raises_whatever_a_key_holds(bench: Bench, redis_client: Redis) -> None:
    queue = Queue("default", connection=redis_client)
    redis_client.set(queue.key, "not a list")
    assert "Redis does not answer" in (look(bench).problem or "")

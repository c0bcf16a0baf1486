"""A Redis that came back older than it was, or that evicts keys."""

from __future__ import annotations

from typing import Any

import pytest
from flask_sqlalchemy import SQLAlchemy
from rq import Queue, SimpleWorker

from flask_opsjobs.engine.reconcile.redis_lost import RedisIdentity, find_loss, identify_redis
from flask_opsjobs.engine.redis.broker import broker_of
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.jobs.record.task import Task
from flask_opsjobs.lifeline.incidents import words_of
from flask_opsjobs.testing.valkey import Valkey
from tests.lifeline.detecting import Scene
from tests.support.engine import Bench
from tests.support.plain import take_plain

pytestmark = pytest.mark.processes


@pytest.fixture
def scene(
    bench: Bench, db: SQLAlchemy, note: Task, own_valkey: Valkey, request: pytest.FixtureRequest
) -> Scene:
    """Loops on a Redis of their own."""
    assert db.session is not None
    assert note.name == "note"
    app = request.getfixturevalue("make_app")(
        opsjobs=request.getfixturevalue("opsjobs"), OPSJOBS_REDIS_URL=own_valkey.url
    )
    bench.host.broker = broker_of(app.extensions["opsjobs"])
    return Scene(bench, "redis_lost", request.getfixturevalue)


def adopted(scene: Scene) -> list[dict[str, Any]]:
    return scene.bench.rows("SELECT * FROM opsjobs.jobs WHERE origin = 'rq' ORDER BY id")


def test_what_an_older_redis_brings_back_is_named_and_managed_jobs_do_not_run_again(
    scene: Scene, own_valkey: Valkey
) -> None:
    bench = scene.bench
    managed = scene.get("record_job")()
    bench.dispatch(prefetch=10)
    with own_valkey.client() as redis:
        queue = Queue("default", connection=redis)
        ended, waits = queue.enqueue(take_plain), queue.enqueue(take_plain)
        scene.run("observe")
        scene.run("adopt")
        redis.save()
        # Both end. Only one of the plain jobs does.
        bench.claim(managed)
        bench.record(managed, 1, Outcome(kind="returned"))
        queue.remove(waits)
        worker = SimpleWorker([queue], connection=redis)
        worker.execute_job(ended, queue)
        queue.push_job_id(waits.id)
        scene.wait(10)
        scene.run("adopt")
        assert [row["state"] for row in adopted(scene)] == ["finished", "queued"]
    own_valkey.kill()
    own_valkey.start()
    scene.wait(10)
    scene.run("adopt")
    scene.run("observe")
    (found,) = scene.incidents()
    again = adopted(scene)[0]["id"]
    assert (found["severity"], found["facts"]["jobs"]) == ("critical", [again])
    assert (
        words_of("redis_lost", found["facts"]).title
        == "RQ will run 1 plain job again that has ended"
    )
    for _ in range(3):
        scene.wait(5)
        scene.run("recall")
    row = bench.job(managed)
    assert (row["state"], row["dispatch_no"]) == ("finished", 1)
    with own_valkey.client() as redis:
        assert not [key for key in redis.keys("rq:job:*") if b"opsjobs" in key]


def test_a_repeat_and_a_requeue_are_no_older_redis(scene: Scene, own_valkey: Valkey) -> None:
    with own_valkey.client() as redis:
        queue = Queue("default", connection=redis)
        job = queue.enqueue(take_plain)
        scene.run("adopt")
        SimpleWorker([queue], connection=redis).work(burst=True, logging_level="CRITICAL")
        scene.wait(10)
        scene.run("adopt")
        queue.enqueue_job(job)
        scene.wait(10)
        scene.run("adopt")
    assert [row["state"] for row in adopted(scene)] == ["queued"]
    assert scene.incidents() == []


def test_a_redis_that_evicts_keys_is_named(scene: Scene, own_valkey: Valkey) -> None:
    with own_valkey.client() as redis:
        redis.config_set("maxmemory-policy", "allkeys-random")
        scene.run("observe")
        redis.config_set("maxmemory", redis.info("memory")["used_memory"] + 200_000)
        for number in range(200):
            redis.set(f"key-{number}", "x" * 10_000)
        assert redis.info("stats")["evicted_keys"] > 0
        redis.config_set("maxmemory", 0)  # from now on it evicts nothing
        scene.look()
        (found,) = scene.incidents()
        assert "because its memory is full" in words_of("redis_lost", found["facts"]).why
        before = found["seen_count"]
        scene.look()
        (found,) = scene.incidents()
        assert (found["seen_count"], found["state"]) == (before, "open")


def test_one_redis_keeps_its_identity(own_valkey: Valkey) -> None:
    with own_valkey.client() as redis:
        first, second = identify_redis(redis), identify_redis(redis)
    assert first.run_id
    assert first == second


LIFE = RedisIdentity("a", 1_000, frozenset([b"q"]), 5, ("h1", ""), 500)


@pytest.mark.parametrize(
    ("now", "says"),
    [
        (RedisIdentity("a", 10, frozenset(), 5, ("h1", ""), 600), None),
        (RedisIdentity("a", 1_000, LIFE.queues, 7, ("h1", ""), 600), "It evicted 2 keys"),
        (RedisIdentity("b", 1_000, LIFE.queues, 0, ("h2", ""), 0), None),
        (RedisIdentity("b", 980, LIFE.queues, 0, ("h2", "h1"), 500), None),
        (
            RedisIdentity("b", 980, LIFE.queues, 0, ("h2", "h1"), 400),
            "100 bytes of writes are gone",
        ),
        (RedisIdentity("b", 400, LIFE.queues, 0, ("h2", ""), 0), "400 of 1,000 lasting keys"),
        (RedisIdentity("b", 1_000, frozenset(), 0, ("h2", ""), 0), "started again with 1,000"),
    ],
)
def test_what_tells_a_loss(now: RedisIdentity, says: str | None) -> None:
    found = find_loss(LIFE, now)
    assert found is None if says is None else says in (found or "")

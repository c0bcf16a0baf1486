"""A Redis that came back older than it was, or that evicts keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask_sqlalchemy import SQLAlchemy
from rq import Queue, SimpleWorker

from flask_opsjobs.engine.reconcile.redis_lost import RedisIdentity, find_loss, identify_redis
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.jobs.record.task import Task
from flask_opsjobs.lifeline.incidents import words_of
from flask_opsjobs.testing.valkey import Valkey
from tests.lifeline.detecting import Scene
from tests.lifeline.detecting_redis import use_redis
from tests.support.contents import read_all
from tests.support.engine import Bench
from tests.support.plain import take_plain
from tests.support.waiting import wait_until

pytestmark = pytest.mark.processes


@pytest.fixture
def own_valkey(request: pytest.FixtureRequest) -> Iterator[Valkey]:
    """A Valkey for one test, with the settings that the test gives."""
    with Valkey(settings=getattr(request, "param", None)) as server:
        yield server


@pytest.fixture
def scene(
    bench: Bench, db: SQLAlchemy, note: Task, own_valkey: Valkey, request: pytest.FixtureRequest
) -> Scene:
    """Loops on a Redis of their own."""
    assert db.session is not None
    assert note.name == "note"
    scene = Scene(bench, "redis_lost", request.getfixturevalue)
    use_redis(scene, own_valkey)
    return scene


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


LIFE = RedisIdentity("a", 1_000, 2, 5, ("h1", ""), 500)
FEWER_KEYS = RedisIdentity("b", 400, 2, 0, ("h2", ""), 0)


@pytest.mark.parametrize(
    ("now", "says"),
    [
        (RedisIdentity("a", 10, 0, 5, ("h1", ""), 600), None),
        (RedisIdentity("a", 1_000, 2, 7, ("h1", ""), 600), "It evicted 2 keys"),
        (RedisIdentity("b", 1_000, 2, 0, ("h2", ""), 0), None),
        (RedisIdentity("b", 980, 2, 0, ("h2", "h1"), 500), None),
        (RedisIdentity("b", 980, 2, 0, ("h2", "h1"), 400), "100 bytes of writes are gone"),
        (
            FEWER_KEYS,
            "with 2 queues and 400 lasting keys; before, it had 2 queues and 1,000 lasting keys",
        ),
        (
            RedisIdentity("b", 1_200, 1, 0, ("h2", ""), 0),
            "with 1 queue and 1,200 lasting keys; before",
        ),
    ],
)
def test_what_tells_a_loss(now: RedisIdentity, says: str | None) -> None:
    found = find_loss(LIFE, now, was_asleep=False)
    assert found is None if says is None else says in (found or "")
    # Workers may have emptied the queues while no loop was awake.
    expected = None if now is FEWER_KEYS else found
    assert find_loss(LIFE, now, was_asleep=True) == expected


# --- while all loops are down


def look_with_loops(scene: Scene, valkey: Valkey) -> None:
    """Start the process of the loops, and stop it when `observe` and `adopt` have made a pass."""
    made = "SELECT coalesce(sum(passes), 0) AS n FROM opsjobs.loop_runs WHERE loop = %s"

    def passes() -> list[int]:
        return [scene.bench.row(made, loop)["n"] for loop in ("observe", "adopt")]

    before = passes()
    loops = scene.get("children").flask("opsjobs", "run", OPSJOBS_REDIS_URL=valkey.url)
    wait_until(lambda: all(now > old for now, old in zip(passes(), before, strict=True)), 60)
    assert loops.terminate(30) == 0


def restart(valkey: Valkey) -> None:
    """SIGKILL it, and start it with what it has on its disk."""
    valkey.kill()
    valkey.start()


def test_a_redis_that_is_emptied_while_all_loops_are_down_is_lost(
    scene: Scene, own_valkey: Valkey
) -> None:
    scene.get("record_job")()
    scene.bench.dispatch(prefetch=10)
    look_with_loops(scene, own_valkey)
    restart(own_valkey)
    look_with_loops(scene, own_valkey)
    (found,) = scene.incidents()
    assert (found["subject"], found["state"]) == ("redis/default", "open")
    # The next processes compare with what it is now.
    look_with_loops(scene, own_valkey)
    (again,) = scene.incidents()
    assert again["seen_count"] == found["seen_count"]


def test_a_redis_that_comes_back_older_while_all_loops_are_down_is_lost(
    scene: Scene, own_valkey: Valkey
) -> None:
    """It lacks a queue, and it has a plain job queued that has ended."""
    with own_valkey.client() as redis:
        queue = Queue("default", connection=redis)
        queue.enqueue(take_plain)
        redis.save()
        SimpleWorker([queue], connection=redis).work(burst=True, logging_level="CRITICAL")
        Queue("mail", connection=redis).enqueue(take_plain)
    look_with_loops(scene, own_valkey)
    restart(own_valkey)
    look_with_loops(scene, own_valkey)
    subjects = {found["subject"] for found in scene.incidents()}
    assert subjects == {"redis/default", "plain_jobs/default"}


@pytest.mark.parametrize("own_valkey", [{"appendonly": "yes"}], indirect=True, ids=["aof"])
def test_a_restart_with_aof_loses_nothing_and_is_no_incident(
    scene: Scene, own_valkey: Valkey
) -> None:
    """While the loops are up, and while all of them are down."""
    jobs = [scene.get("record_job")() for _ in range(3)]
    scene.bench.dispatch(prefetch=10)

    with own_valkey.client() as redis:
        plain = [Queue.prepare_data(take_plain) for _ in range(150)]
        Queue("mail", connection=redis).enqueue_many(plain)
        held = read_all(redis)
    assert len(held) > 150
    for loop in ("observe", "adopt"):
        scene.run(loop)
    restart(own_valkey)
    with own_valkey.client() as redis:
        assert read_all(redis) == held
    scene.look()
    look_with_loops(scene, own_valkey)
    restart(own_valkey)
    look_with_loops(scene, own_valkey)
    with own_valkey.client() as redis:
        assert read_all(redis) == held
    assert scene.incidents() == []
    assert {scene.bench.job(job)["dispatch_no"] for job in jobs} == {1}
    assert {row["state"] for row in scene.bench.rows("SELECT state FROM opsjobs.jobs")} == {
        "queued"
    }

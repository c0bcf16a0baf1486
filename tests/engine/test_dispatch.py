"""Dispatch: prefetch and priorities hold, rows are committed before their delivery exists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from redis import Redis, RedisError
from rq import Queue
from rq.job import Job as RQJob

from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.engine.dispatch.dispatch import Dispatcher
from flask_opsjobs.engine.redis.broker import parse_rq_id, rq_id
from tests.conftest import MakeBench
from tests.support.engine import Bench, race

RecordJob = Callable[..., int]


def in_redis(redis: Redis, queue: str = "default") -> list[str]:
    return [entry.decode() for entry in redis.lrange(Queue(queue, connection=redis).key, 0, -1)]


def test_a_due_job_is_dispatched_to_rq_under_its_dispatch_number(
    bench: Bench, record_job: RecordJob, redis_client: Redis
) -> None:
    job_id = record_job()
    assert bench.dispatch() == 1
    assert in_redis(redis_client) == [f"opsjobs-{job_id}-1"]
    job = bench.job(job_id)
    assert (job["state"], job["dispatch_no"]) == ("queued", 1)


def test_the_delivery_carries_no_argument(
    bench: Bench, record_job: RecordJob, redis_client: Redis
) -> None:
    job_id = record_job(text="a-secret-argument")
    bench.dispatch()
    stored: Any = redis_client.hgetall(RQJob.key_for(rq_id(job_id, 1)))
    import zlib

    assert b"a-secret-argument" not in zlib.decompress(stored.pop(b"data")) + repr(stored).encode()
    assert stored[b"result_ttl"] == b"0"


def test_the_prefetch_bounds_what_lies_in_redis(
    bench: Bench, record_job: RecordJob, redis_client: Redis
) -> None:
    for _ in range(5):
        record_job()
    assert bench.dispatch(prefetch=3) == 3
    assert bench.dispatch(prefetch=3) == 0
    assert len(in_redis(redis_client)) == 3


def test_priority_holds_and_0_goes_to_the_front(
    bench: Bench, record_job: RecordJob, redis_client: Redis
) -> None:
    low, high, urgent = record_job(priority=9), record_job(priority=1), record_job(priority=0)
    bench.dispatch(prefetch=1)
    bench.dispatch(prefetch=3)
    assert in_redis(redis_client) == [rq_id(urgent, 1), rq_id(high, 1), rq_id(low, 1)]


def test_each_lane_is_found_although_another_is_full(
    bench: Bench, record_job: RecordJob, redis_client: Redis, host: Any
) -> None:
    for _ in range(50):
        record_job(queue="busy")
    other = record_job(queue="quiet")
    now = read_clock(bench.connection)
    # No worker listens to either: the smallest prefetch, two each.
    assert Dispatcher(bench.connection, host.broker, host.settings).dispatch_all(now) == 3
    assert in_redis(redis_client, "quiet") == [rq_id(other, 1)]


def test_two_dispatchers_dispatch_each_job_once(
    make_bench: MakeBench, record_job: RecordJob, redis_client: Redis
) -> None:
    jobs = {record_job() for _ in range(40)}
    one, two = make_bench(), make_bench()
    answers = race(lambda: one.dispatch(prefetch=1000), lambda: two.dispatch(prefetch=1000))
    assert sum(answers) == 40
    deliveries = [parse_rq_id(text) for text in in_redis(redis_client)]
    assert len(deliveries) == 40
    assert {delivery[0] for delivery in deliveries if delivery} == jobs


def test_push_comes_after_commit(
    bench: Bench,
    make_bench: MakeBench,
    record_job: RecordJob,
    host: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pitfall: push before commit. An idle worker claims within 0.1 ms and must find the committed row."""
    job_id, other = record_job(), make_bench()
    seen = []
    push = host.broker.push
    monkeypatch.setattr(
        host.broker,
        "push",
        lambda *a, **k: (seen.append(other.job(job_id)["state"]), push(*a, **k)),
    )
    bench.dispatch()
    assert seen == ["queued"]


def test_no_lock_is_held_over_a_redis_call(
    bench: Bench,
    make_bench: MakeBench,
    record_job: RecordJob,
    host: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job_id, other = record_job(), make_bench()

    def lock_it(*_args: object, **_kwargs: object) -> None:
        other.rows("SELECT id FROM opsjobs.jobs WHERE id = %s FOR UPDATE NOWAIT", job_id)

    monkeypatch.setattr(host.broker, "push", lock_it)
    assert bench.dispatch() == 1


def test_a_failed_push_puts_the_job_back_under_a_spent_number(
    bench: Bench, record_job: RecordJob, make_app: Any, own_valkey: Any, opsjobs: Any, note: Any
) -> None:
    job_id = record_job()
    own_valkey.kill()
    app = make_app(opsjobs=opsjobs, OPSJOBS_REDIS_URL=own_valkey.url)
    lonely = Bench(app.extensions["opsjobs"], "lonely")
    with pytest.raises(RedisError):
        lonely.dispatch()
    job = bench.job(job_id)
    assert (job["state"], job["dispatch_no"]) == ("available", 1)
    own_valkey.start()
    assert lonely.dispatch() == 1
    assert bench.job(job_id)["dispatch_no"] == 2
    lonely.close()


def test_dispatch_commits_durably_whatever_the_hosts_role_prefers(
    bench: Bench, record_job: RecordJob, host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pitfall: a number that a delivery bears must survive a crash of Postgres."""
    record_job()
    bench.connection.execute("SET synchronous_commit = off")
    said = []
    execute = psycopg.Cursor.execute

    def listen(cursor: Any, statement: Any, *args: Any, **kwargs: Any) -> Any:
        said.append(str(statement))
        return execute(cursor, statement, *args, **kwargs)

    monkeypatch.setattr(psycopg.Cursor, "execute", listen)
    bench.dispatch()
    assert any("synchronous_commit = on" in statement for statement in said)


def test_a_paused_queue_dispatches_nothing(bench: Bench, record_job: RecordJob) -> None:
    record_job()
    bench.connection.execute(
        "INSERT INTO opsjobs.queues (name, is_paused, paused_at, paused_by, paused_reason, created_at) "
        "VALUES ('default', true, now(), 'l.brandt', 'maintenance', now())"
    )
    assert bench.dispatch() == 0


def test_a_prefetch_that_an_operator_set_wins_over_the_hosts(
    bench: Bench, record_job: RecordJob
) -> None:
    for _ in range(3):
        record_job()
    # Written directly: no operator's action is needed here.
    bench.connection.execute(
        "INSERT INTO opsjobs.queues (name, prefetch, created_at) VALUES ('default', 1, clock_timestamp())"
    )
    assert bench.dispatch(prefetch=3) == 1


def test_the_prefetch_is_twice_the_children_of_our_workers(
    bench: Bench, record_job: RecordJob
) -> None:
    for _ in range(60):
        record_job()
    assert bench.dispatch() == 2
    bench.connection.execute("UPDATE opsjobs.workers SET processes = 4")
    assert bench.dispatch() == 6


def test_a_plain_worker_counts_as_one_child(
    bench: Bench, make_bench: MakeBench, record_job: RecordJob
) -> None:
    make_bench()
    for _ in range(60):
        record_job()
    bench.connection.execute("UPDATE opsjobs.workers SET kind = 'plain'")
    assert bench.dispatch() == 4


def test_what_a_worker_has_reserved_is_not_in_redis(bench: Bench, record_job: RecordJob) -> None:
    """If it counted, the reserved jobs of one worker would keep all others without deliveries."""
    for _ in range(6):
        record_job()
    assert bench.dispatch() == 2
    bench.connection.execute(
        "UPDATE opsjobs.jobs SET reserved_by = %s WHERE state = 'queued'", [bench.worker_id]
    )
    assert bench.dispatch() == 2

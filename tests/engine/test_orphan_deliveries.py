"""Orphan deliveries: those whose row is gone or has moved on are removed, when met twice; nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.executions import Execution
from rq.job import Job as RQJob

from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.engine.reconcile.remove_deliveries import (
    OrphanScan,
    remove_deliveries,
    remove_orphan_deliveries,
)
from flask_opsjobs.engine.redis.broker import broker_of, rq_id
from flask_opsjobs.workers import transitions as workers
from tests.support.engine import Bench

RecordJob = Callable[..., int]


class Walk:
    """One process's walk through Redis."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.orphans = OrphanScan()

    def step(self) -> list[str]:
        broker = broker_of(self.bench.host)
        now = read_clock(self.bench.connection)
        self.orphans, removed = remove_orphan_deliveries(
            self.bench.connection, broker, broker.queue("default"), self.orphans, now
        )
        return removed


@pytest.fixture
def walk(bench: Bench) -> Walk:
    return Walk(bench)


def delivered(redis: Redis) -> set[Any]:
    found: set[Any] = {key for key in redis.keys("*") if b"opsjobs-" in key}
    return found | set(redis.lrange(Queue(connection=redis).key, 0, -1))


def test_a_delivery_with_its_row_stays(bench: Bench, record_job: RecordJob, walk: Walk) -> None:
    job_id = record_job()
    bench.dispatch()
    assert [walk.step() for _ in range(3)] == [[], [], []]
    bench.claim(job_id)
    assert [walk.step() for _ in range(3)] == [[], [], []]


def test_a_delivery_without_a_row_is_removed_when_met_twice(
    bench: Bench, record_job: RecordJob, walk: Walk, redis_client: Redis
) -> None:
    job_id = record_job()
    bench.dispatch()
    bench.rows("DELETE FROM opsjobs.jobs RETURNING id")
    assert walk.step() == []
    assert walk.step() == [rq_id(job_id, 1)]
    assert delivered(redis_client) == set()
    assert walk.orphans.met == frozenset()


@pytest.mark.parametrize("state", ["available", "finished", "queued again"])
def test_a_delivery_whose_row_has_moved_on_is_removed(
    bench: Bench, record_job: RecordJob, walk: Walk, redis_client: Redis, state: str
) -> None:
    job_id = record_job()
    bench.dispatch()
    bench.rows("UPDATE opsjobs.jobs SET state = 'available' RETURNING id")
    if state == "queued again":
        bench.dispatch()
    elif state == "finished":
        bench.rows(
            "UPDATE opsjobs.jobs SET state = 'finished', ended_at = now(), ended_by = 'returned' RETURNING 1"
        )
    walk.step()
    assert walk.step() == [rq_id(job_id, 1)]
    assert (rq_id(job_id, 2).encode() in delivered(redis_client)) == (state == "queued again")


def test_what_a_living_worker_still_runs_is_left_to_it(
    bench: Bench, record_job: RecordJob, walk: Walk
) -> None:
    job_id = record_job()
    bench.dispatch()
    bench.rows("UPDATE opsjobs.jobs SET state = 'available' RETURNING id")
    now = read_clock(bench.connection)
    workers.record_heartbeat(
        bench.connection, bench.worker_id, workers.HeartbeatReport(1, reserved=[f"{job_id}-1"]), now
    )
    assert [walk.step() for _ in range(3)] == [[], [], []]


def test_what_rq_runs_and_what_expires_is_left_alone(
    bench: Bench, record_job: RecordJob, walk: Walk, redis_client: Redis
) -> None:
    running, expiring = record_job(), record_job()
    bench.dispatch(prefetch=5)
    bench.rows("DELETE FROM opsjobs.jobs RETURNING id")
    redis_client.expire(RQJob.key_for(rq_id(expiring, 1)), 60)
    job = RQJob(id=rq_id(running, 1), connection=redis_client)
    job.origin = "default"
    with redis_client.pipeline() as pipe:
        Execution.create(job, ttl=60, pipeline=pipe)
        pipe.execute()
    assert [walk.step() for _ in range(3)] == [[], [], []]


def test_the_hosts_own_jobs_are_never_touched(walk: Walk, redis_client: Redis) -> None:
    queue = Queue(connection=redis_client)
    for name in (
        "opsjobs-x",
        "opsjobs-1",
        "opsjobs-1-2-3",
        "mine",
        "opsjobs-01-1",
        f"opsjobs-{2**63}-1",
        f"opsjobs-1-{2**63}",
    ):
        queue.enqueue("os.getpid", job_id=name)
    before = sorted(redis_client.keys("*"))
    for _ in range(3):
        assert walk.step() == []
    assert sorted(redis_client.keys("*")) == before


def test_many_keys_take_many_steps(
    bench: Bench,
    record_job: RecordJob,
    walk: Walk,
    redis_client: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flask_opsjobs.engine.redis.reads._SCAN_STEP", 10)
    record_job()
    bench.dispatch()
    bench.rows("DELETE FROM opsjobs.jobs RETURNING id")
    redis_client.mset({f"other:{n}": 1 for n in range(200)})
    removed = [one for _ in range(200) for one in walk.step()]
    assert len(removed) == 1


def test_removal_leaves_no_trace_of_a_rescued_delivery(
    bench: Bench, record_job: RecordJob, redis_client: Redis
) -> None:
    """Pitfall: a rescue removes the delivery too, or RQ later calls it abandoned."""
    one, other = record_job(), record_job()
    bench.dispatch(prefetch=5)
    for job_id in (one, other):
        job = RQJob(id=rq_id(job_id, 1), connection=redis_client)
        job.origin = "default"
        with redis_client.pipeline() as pipe:
            Execution.create(job, ttl=60, pipeline=pipe, worker_name="w")
            pipe.execute()
    remove_deliveries(broker_of(bench.host), [("default", one, 1)])
    left = {key for key in delivered(redis_client) if f"opsjobs-{one}-".encode() in key}
    assert left == set()
    registry: Any = redis_client.zrange(
        Queue(connection=redis_client).started_job_registry.key, 0, -1
    )
    assert [entry.partition(b":")[0] for entry in registry] == [rq_id(other, 1).encode()]

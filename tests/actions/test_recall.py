"""An operator recalls a job whose delivery is nowhere in Redis; a delivery that lives is never taken back."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from redis import Redis
from rq import Queue
from rq.job import Job as RQJob

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.engine.redis.broker import Broker, rq_id
from flask_opsjobs.engine.redis.connections import RedisConnections
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.lifecycle import MANAGED_STATES
from flask_opsjobs.loops.loop import Runner
from flask_opsjobs.loops.recall import LOOP
from flask_opsjobs.workers import transitions as workers
from tests.actions.conftest import Reach
from tests.conftest import MakeBench
from tests.support.engine import Bench, race, take

WHY: dict[str, Any] = {"actor": "anna", "reason": "Redis was flushed"}
TIMES = range(8)


def later(bench: Bench) -> datetime:
    """When a dispatch is old enough."""
    return read_clock(bench.connection) + timedelta(minutes=1)


def recall(bench: Bench, operator: Operator, job_id: int) -> Any:
    return operator.run("job.recall", [f"job/{job_id}"], **WHY, now=later(bench))


def queue(redis: Redis) -> Queue:
    return Queue("default", connection=redis)


def test_one_that_redis_lost_is_due_again(
    bench: Bench, operator: Operator, reach: Reach, redis_client: Redis
) -> None:
    lost, kept = reach("queued"), reach("queued")
    queue(redis_client).connection.delete(RQJob.key_for(rq_id(lost, 1)))
    redis_client.lrem(queue(redis_client).key, 0, rq_id(lost, 1))
    receipt = recall(bench, operator, lost)
    (change,) = receipt.done[0].changes
    assert (change.what, change.before, change.after) == ("state", "queued", "available")
    job = bench.job(lost)
    assert (job["state"], job["dispatch_no"], job["attempt"]) == ("available", 1, 0)
    assert bench.job(kept)["state"] == "queued"
    event = bench.row("SELECT * FROM opsjobs.audit_events")
    assert (event["action"], event["outcome"], event["actor"]) == ("job.recall", "done", "anna")
    bench.dispatch(prefetch=10)
    assert rq_id(lost, 2).encode() in redis_client.lrange(queue(redis_client).key, 0, -1)


@pytest.mark.parametrize("state", MANAGED_STATES)
def test_in_every_state_only_a_lost_delivery_is_recalled(
    bench: Bench, operator: Operator, reach: Reach, state: str
) -> None:
    job_id = reach(state)
    before = bench.job(job_id)
    receipt = recall(bench, operator, job_id)
    assert (receipt.outcome, receipt.code) == ("refused", "illegal")
    why = "its delivery is in Redis, and a worker takes it from there"
    assert receipt.says.endswith(why if state == "queued" else f"it is {state}")
    assert bench.job(job_id) == before


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("parked", "a worker has just taken its delivery, or died with it"),
        ("running", "RQ says that a worker runs it"),
        ("held", "a worker has it, says the heartbeat of the worker"),
        ("reserved", "worker worker-1 has taken it and begins it at any moment"),
        ("young", "it was dispatched less than 5 s ago, and may be on its way"),
    ],
)
def test_where_a_delivery_lives_it_is_left_alone(
    bench: Bench, operator: Operator, reach: Reach, redis_client: Redis, place: str, why: str
) -> None:
    job_id = reach("available" if place == "reserved" else "queued")
    of = queue(redis_client)
    if place == "reserved":
        take(bench)
    redis_client.lrem(of.key, 0, rq_id(job_id, 1))
    if place == "parked":
        redis_client.lpush(of.intermediate_queue_key, rq_id(job_id, 1))
    if place == "running":
        until = later(bench).timestamp() + 60
        redis_client.zadd(of.started_job_registry.key, {f"{rq_id(job_id, 1)}:run": until})
    if place == "held":
        report = workers.HeartbeatReport(1, reserved=[f"{job_id}-1"])
        now = read_clock(bench.connection)
        workers.record_heartbeat(bench.connection, bench.worker_id, report, now)
    now = read_clock(bench.connection) if place == "young" else later(bench)
    receipt = operator.run("job.recall", [f"job/{job_id}"], **WHY, now=now)
    assert (receipt.outcome, receipt.code) == ("refused", "illegal")
    assert why in receipt.says
    assert bench.job(job_id)["state"] == "queued"


def test_while_redis_is_silent_nobody_knows(
    bench: Bench, host: Host, operator: Operator, reach: Reach
) -> None:
    job_id = reach("queued")
    host.broker = Broker(RedisConnections(Flask("away"), "redis://127.0.0.1:1/0"))
    receipt = recall(bench, operator, job_id)
    assert receipt.says.endswith("its Redis does not answer, so nobody knows where its delivery is")


def test_a_delivery_that_appears_again_makes_the_preview_drift(
    bench: Bench, operator: Operator, reach: Reach, redis_client: Redis
) -> None:
    job_id = reach("queued")
    redis_client.lrem(queue(redis_client).key, 0, rq_id(job_id, 1))
    when = later(bench)
    target = [f"job/{job_id}"]
    preview = operator.preview("job.recall", target, actor="anna", via="page", now=when)
    assert len(preview.plan.items) == 1
    redis_client.rpush(queue(redis_client).key, rq_id(job_id, 1))
    receipt = operator.execute(preview.id, preview.token, **WHY, now=when)
    assert (receipt.outcome, receipt.code) == ("refused", "drifted")
    assert bench.job(job_id)["state"] == "queued"
    again = operator.preview("job.recall", target, actor="anna", via="page", now=when)
    assert [skip.code for skip in again.plan.skipped] == ["illegal"]


@pytest.mark.parametrize("time", TIMES)
def test_a_recall_against_the_claim(
    bench: Bench,
    make_bench: MakeBench,
    operator: Operator,
    reach: Reach,
    redis_client: Redis,
    time: int,
) -> None:
    """A worker has popped the delivery: the job is claimed, or due again, and never both."""
    job_id = reach("queued")
    redis_client.lrem(queue(redis_client).key, 0, rq_id(job_id, 1))
    worker = make_bench()
    receipt, claimed = race(lambda: recall(bench, operator, job_id), lambda: worker.claim(job_id))
    is_claimed = not hasattr(claimed, "reason")
    assert is_claimed != receipt.is_done
    assert bench.job(job_id)["state"] == ("started" if is_claimed else "available")


@pytest.mark.parametrize("time", TIMES)
def test_a_recall_against_the_recall_loop(
    bench: Bench,
    make_bench: MakeBench,
    operator: Operator,
    reach: Reach,
    redis_client: Redis,
    time: int,
) -> None:
    job_id = reach("queued")
    redis_client.lrem(queue(redis_client).key, 0, rq_id(job_id, 1))
    other = make_bench()
    other.host.settings = replace(other.host.settings, recall_seconds=0.2)
    runner, when = Runner(LOOP, other.host, "one"), later(bench)
    runner.run_once(other.connection, when)
    race(
        lambda: recall(bench, operator, job_id),
        lambda: runner.run_once(other.connection, when + timedelta(seconds=30)),
    )
    job = bench.job(job_id)
    assert (job["state"], job["dispatch_no"]) == ("available", 1)

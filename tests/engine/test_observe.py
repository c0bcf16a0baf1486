"""Plain RQ workers: recorded from their hashes, and judged by RQ's own expiry alone."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from redis import Redis, RedisError
from rq import Queue, SimpleWorker, Worker

from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.engine.reconcile.observe import observe
from flask_opsjobs.engine.redis.broker import Broker, broker_of
from flask_opsjobs.engine.redis.connections import Wire
from flask_opsjobs.engine.worker.rq_slots import SlotWorker, slot_name
from flask_opsjobs.testing.valkey import Valkey
from tests.support.dispatching import TwoRedis
from tests.support.engine import Bench


class Observer:
    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.now: datetime = read_clock(bench.connection)

    def look(self, after: float = 0) -> list[str]:
        self.now += timedelta(seconds=after)
        bench = self.bench
        return observe(bench.connection, broker_of(bench.host), ["default", "other"], self.now)[1]

    def row(self, name: str) -> dict[str, Any]:
        return self.bench.row("SELECT * FROM opsjobs.workers WHERE name = %s", name)


@pytest.fixture
def observer(bench: Bench) -> Observer:
    return Observer(bench)


@pytest.fixture
def plain(redis_client: Redis) -> SimpleWorker:
    queues = [Queue(name, connection=redis_client) for name in ("default", "other")]
    worker = SimpleWorker(queues, name="plain", connection=redis_client)
    worker.register_birth()
    return worker


def test_a_plain_worker_is_recorded(observer: Observer, plain: Worker) -> None:
    assert observer.look() == []
    row = observer.row("plain")
    assert (row["kind"], row["state"], row["pid"]) == ("plain", "alive", plain.pid)
    assert row["queues"] == ["default", "other"]
    assert row["version"].startswith("rq 3")
    assert observer.look(10) == []
    assert observer.row("plain")["id"] == row["id"]


def test_what_rq_counts_of_a_worker_is_recorded(
    observer: Observer, plain: Worker, redis_client: Redis
) -> None:
    def counted() -> tuple[int, int, float]:
        observer.look(10)
        row = observer.row("plain")
        return row["jobs_finished"], row["jobs_failed"], row["work_seconds"]

    assert counted() == (0, 0, 0)
    plain.increment_successful_job_count()
    plain.increment_failed_job_count()
    with redis_client.pipeline() as pipe:
        plain.increment_total_working_time(timedelta(seconds=1.5), pipe)
        pipe.execute()
    assert counted() == (1, 1, 1.5)
    redis_client.hset(plain.key, "successful_job_count", "many")
    assert counted()[0] == 0


def test_one_redis_away_does_not_stop_the_look_at_the_workers_of_another(
    observer: Observer, plain: Worker, away: Broker, own_valkey: Valkey
) -> None:
    """The worker in the one that does not answer stays, however late its heartbeat is."""
    host = observer.bench.host
    host.broker = Broker(TwoRedis(broker_of(host), away))
    with own_valkey.client() as redis:
        there = SimpleWorker([Queue("elsewhere", connection=redis)], name="there", connection=redis)
        there.register_birth()
    queues = ["default", "elsewhere"]
    observe(observer.bench.connection, host.broker, queues, observer.now)
    own_valkey.kill()
    late = observer.now + timedelta(days=1)
    with pytest.raises(RedisError):
        observe(observer.bench.connection, host.broker, queues, late)
    seen = {name: observer.row(name) for name in ("plain", "there")}
    assert {name: row["heartbeat_no"] for name, row in seen.items()} == {"plain": 1, "there": 0}
    assert {row["state"] for row in seen.values()} == {"alive"}


def test_an_idle_worker_with_an_old_heartbeat_lives(observer: Observer, plain: Worker) -> None:
    """Pitfall: an idle RQ worker sends a heartbeat each 405 s;
    ages of `last_heartbeat` condemn healthy workers.
    """
    plain.connection.hset(plain.key, "last_heartbeat", "2001-01-01T00:00:00.000000Z")
    observer.look()
    assert observer.look(3600) == []
    assert observer.row("plain")["state"] == "alive"


def test_one_whose_key_expired_is_missing(
    observer: Observer, plain: Worker, redis_client: Redis
) -> None:
    observer.look()
    redis_client.delete(plain.key)
    assert observer.look(479) == []
    assert observer.look(2) == ["plain"]
    assert observer.row("plain")["state"] == "missing"
    assert observer.look(10) == []


def test_a_flushed_worker_is_waited_for_until_its_key_would_have_expired(
    observer: Observer, plain: Worker, redis_client: Redis
) -> None:
    """Pitfall: after FLUSHDB a working worker is in no registry until restarted."""
    observer.look()
    redis_client.flushall()
    assert observer.look(60) == []
    # Its next heartbeat brings the hash back, though no list names it.
    plain.heartbeat()
    assert redis_client.smembers(Worker.redis_workers_keys) == set()
    for _ in range(3):
        assert observer.look(400) == []
    assert observer.row("plain")["state"] == "alive"
    assert observer.row("plain")["queues"] == ["default", "other"]


def test_one_that_left_by_itself_is_stopped(observer: Observer, plain: Worker) -> None:
    observer.look()
    plain.register_death()
    assert observer.look(10) == []
    row = observer.row("plain")
    assert (row["state"], row["ended_at"]) == ("stopped", observer.now)
    observer.look(10)
    assert observer.row("plain")["ended_at"] == observer.now - timedelta(seconds=10)


def test_one_that_was_given_up_and_appears_comes_back(
    observer: Observer, plain: Worker, redis_client: Redis
) -> None:
    observer.look()
    redis_client.flushall()
    assert observer.look(1000) == ["plain"]
    plain.heartbeat()
    assert observer.look(10) == []
    row = observer.row("plain")
    assert (row["state"], row["ended_at"]) == ("alive", None)


def test_a_child_of_ours_is_no_plain_worker(
    observer: Observer, bench: Bench, redis_client: Redis, app: Flask
) -> None:
    """Pitfall: a name does not tell it. Heroku calls plain workers `worker.1` too."""
    child = SlotWorker(app, ["default"], slot_name("web", 1), Wire(redis_client, None))
    with redis_client.pipeline() as pipe:
        child.keep_record(pipe, is_busy=False)
        pipe.execute()
    other = SimpleWorker([Queue(connection=redis_client)], name="web.2", connection=redis_client)
    other.register_birth()
    assert {worker.name for worker in Worker.all(connection=redis_client)} == {"web.1", "web.2"}
    observer.look()
    names = "SELECT name FROM opsjobs.workers WHERE kind = 'plain'"
    assert [row["name"] for row in bench.rows(names)] == ["web.2"]


def test_a_worker_of_ours_keeps_its_own_row(
    observer: Observer, bench: Bench, redis_client: Redis
) -> None:
    worker = SimpleWorker(
        [Queue(connection=redis_client)], name=bench.name, connection=redis_client
    )
    worker.register_birth()
    observer.look()
    redis_client.flushall()
    observer.look(10_000)
    row = observer.row(bench.name)
    assert (row["kind"], row["state"], row["heartbeat_no"]) == ("pool", "alive", 0)


def test_a_clock_that_jumps_back_condemns_nobody(
    observer: Observer, plain: Worker, redis_client: Redis
) -> None:
    observer.look()
    redis_client.flushall()
    assert observer.look(-3600) == []
    assert observer.row("plain")["state"] == "alive"


def test_hashes_that_make_no_sense_are_recorded_as_far_as_they_go(
    observer: Observer, redis_client: Redis
) -> None:
    key = Worker.redis_worker_namespace_prefix + "odd \N{SNOWMAN}"
    redis_client.sadd(Worker.redis_workers_keys, key, Worker.redis_worker_namespace_prefix + "gone")
    redis_client.hset(key, mapping={"pid": "x", "queues": b"\xff\xfe", "hostname": ""})
    assert observer.look() == []
    row = observer.row("odd \N{SNOWMAN}")
    assert (row["pid"], row["version"]) == (0, None)
    assert len(observer.bench.rows("SELECT 1 FROM opsjobs.workers WHERE name = 'gone'")) == 0


WORKERS = Worker.redis_worker_namespace_prefix


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("odd", "queues", "default,a\0b"),
        ("odd", "hostname", "here\0"),
        ("odd", "version", "\0"),
        ("odd", "pid", "99999999999999999999"),
        ("odd", "pid", "\N{SUPERSCRIPT TWO}"),
        ("o\0dd", "hostname", "here"),
        ("".join(map(chr, range(0x4E00, 0x6200))), "hostname", "here"),
    ],
    ids=["queues", "hostname", "version", "huge pid", "odd pid", "name", "long name"],
)
def test_a_hash_that_postgres_could_not_store_stops_no_other(
    observer: Observer, plain: Worker, redis_client: Redis, name: str, field: str, value: str
) -> None:
    redis_client.sadd(Worker.redis_workers_keys, WORKERS + name)
    redis_client.hset(WORKERS + name, mapping={"queues": "default", field: value})
    assert observer.look() == []
    assert observer.row("plain")["state"] == "alive"
    observer.look(10)
    assert observer.row("plain")["heartbeat_no"] == 1
    redis_client.delete(plain.key)
    assert observer.look(500) == ["plain"]


def test_a_living_worker_whose_hash_got_a_nul_byte_is_not_given_up(
    observer: Observer, plain: Worker, redis_client: Redis
) -> None:
    observer.look()
    redis_client.hset(plain.key, "hostname", "a\0b")
    for _ in range(3):
        assert observer.look(400) == []
    assert (observer.row("plain")["state"], observer.row("plain")["heartbeat_no"]) == ("alive", 3)


def test_a_key_that_is_no_hash_or_never_expires_stops_no_other(
    observer: Observer, plain: Worker, redis_client: Redis
) -> None:
    for name in ("string", "ages"):
        redis_client.sadd(Worker.redis_workers_keys, WORKERS + name)
    redis_client.set(WORKERS + "string", "no worker")
    redis_client.hset(WORKERS + "ages", "queues", "default")
    redis_client.pexpire(WORKERS + "ages", 2**62)
    observer.look()
    observer.look(10)
    assert (observer.row("plain")["heartbeat_no"], observer.row("ages")["state"]) == (1, "alive")
    assert observer.bench.rows("SELECT FROM opsjobs.workers WHERE name = 'string'") == []

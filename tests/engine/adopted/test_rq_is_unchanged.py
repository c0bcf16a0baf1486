"""RQ behaves the same with and without us: the same runs, the same keys, and no write of ours in MONITOR."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis
from rq import Queue, Repeat, Retry, SimpleWorker
from rq.cron import CronJob
from rq.group import Group
from rq.job import Dependency
from rq.rate_limit import RateLimit
from rq.registry import FailedJobRegistry

from flask_opsjobs.engine.redis.connections import READS
from flask_opsjobs.loops import LOOPS
from flask_opsjobs.loops.loop import Runner
from tests.support.engine import Bench
from tests.support.plain import fail_plain, note_plain

# What RQ writes anew in each run: times, and ids of its own.
_OF_A_RUN = {
    *("created_at", "enqueued_at", "started_at", "ended_at", "last_heartbeat"),
    *("execution_id", "execution_started_at", "execution_ended_at", "exc_string", "exc_info"),
    "worker_name",
}
# A worker writes much about its process.
_OF_A_WORKER = ("queues", "successful_job_count", "failed_job_count")
_MARK = "that was all"


@pytest.fixture
def pass_all(bench: Bench) -> Callable[[], None]:
    """Makes a pass of each loop."""
    runners = [Runner(loop, bench.host, "one") for loop in LOOPS]

    def run() -> None:
        for runner in runners:
            runner.run_once(bench.connection)

    return run


def live(redis: Redis, path: Path) -> Iterator[None]:
    """The life of jobs of all kinds, step by step."""
    queue = Queue("mail", connection=redis)
    worker = SimpleWorker([queue], connection=redis, name="worker")
    note = str(path)

    def work(*, most: int | None = None) -> None:
        worker.work(burst=True, with_scheduler=False, max_jobs=most, logging_level="CRITICAL")

    first = queue.enqueue(note_plain, note, "first", job_id="first")
    queue.enqueue(note_plain, note, "after", job_id="after", depends_on=first)
    yield
    bad = queue.enqueue(fail_plain, job_id="bad", retry=Retry(max=1))
    queue.enqueue(note_plain, note, "never", job_id="never", depends_on=bad)
    brave = Dependency(jobs=[bad], allow_failure=True)
    queue.enqueue(note_plain, note, "brave", job_id="brave", depends_on=brave)
    yield
    queue.enqueue(note_plain, note, "twice", job_id="twice", repeat=Repeat(1, 0))
    datas = [Queue.prepare_data(note_plain, (note, name), job_id=name) for name in ("one", "two")]
    Group.create(redis, "both").enqueue_many(queue, datas)
    for name in ("held", "held-back"):
        limit = RateLimit("api", 1)
        queue.enqueue(note_plain, note, name, job_id=name, rate_limit=limit)
    yield
    queue.enqueue_at(datetime(2999, 1, 1, tzinfo=UTC), note_plain, note, "later", job_id="later")
    queue.enqueue(note_plain, note, "short", job_id="short", result_ttl=0)
    work(most=3)
    yield
    queue.enqueue(note_plain, note, "wrong", job_id="wrong").cancel()
    work()
    yield
    FailedJobRegistry(queue=queue).requeue("bad")
    work()
    yield


def dump(redis: Redis) -> dict[str, Any]:
    """Each key of RQ with what it holds, without what differs from run to run."""
    found: dict[str, Any] = {}
    names: Any = redis.keys("*")
    for name in sorted(names):
        kind: Any = redis.type(name)
        value: Any = {
            b"string": lambda name: None,
            b"list": lambda name: redis.lrange(name, 0, -1),
            b"set": lambda name: redis.smembers(name),
            b"zset": lambda name: sorted(redis.zrange(name, 0, -1)),
            b"hash": lambda name: (
                redis.hmget(name, _OF_A_WORKER)
                if b":worker:" in name
                else _fields(redis.hgetall(name))
            ),
            b"stream": lambda name: [_fields(fields) for _, fields in redis.xrange(name)],
        }[kind](name)
        found[name.decode()] = value
    return found


def _fields(fields: Any) -> dict[bytes, bytes]:
    return {key: value for key, value in fields.items() if key.decode() not in _OF_A_RUN}


def _live_all(redis: Redis, path: Path, between: Callable[[], None]) -> tuple[list[str], list[Any]]:
    dumps = []
    for _ in live(redis, path):
        between()
        dumps.append(dump(redis))
    return path.read_text().splitlines(), dumps


@pytest.mark.slow
def test_rq_runs_the_same_and_keeps_the_same(
    redis_client: Redis,
    pass_all: Callable[[], None],
    client: FlaskClient,
    bench: Bench,
    tmp_path: Path,
) -> None:
    path = tmp_path / "notes"

    def between() -> None:
        for _ in range(2):
            pass_all()
        for page in ("", "/jobs", "/jobs.csv", "/queues", "/queues/mail", "/workers", "/lifeline"):
            assert client.get(f"/ops/jobs{page}").status_code == 200, page

    runs, keys = _live_all(redis_client, path, lambda: None)
    assert {"first", "after", "brave", "twice", "one", "two", "held", "held-back"} <= set(runs)
    path.unlink()
    redis_client.flushdb()
    runs_with_us, keys_with_us = _live_all(redis_client, path, between)
    assert runs_with_us == runs
    for number, (alone, with_us) in enumerate(zip(keys, keys_with_us, strict=True)):
        assert with_us == alone, f"after step {number}"
    rows = bench.rows("SELECT rq_id FROM opsjobs.jobs WHERE origin = 'rq'")
    # What RQ deletes at once was met at no look.
    assert {row["rq_id"] for row in rows} >= {"first", "after", "bad", "never", "later", "wrong"}


def test_nothing_of_ours_is_a_write(
    redis_client: Redis, pass_all: Callable[[], None], client: FlaskClient, tmp_path: Path
) -> None:
    CronJob("mail", func=note_plain, args=(str(tmp_path / "by-cron"),), interval=60).enqueue(
        redis_client
    )
    for _ in live(redis_client, tmp_path / "notes"):
        pass
    with redis_client.monitor() as monitor:
        for _ in range(3):
            pass_all()
        for page in ("", "/jobs", "/jobs.csv", "/queues/mail", "/workers", "/lifeline"):
            assert client.get(f"/ops/jobs{page}").status_code == 200, page
        redis_client.echo(_MARK)
        sent = []
        for said in monitor.listen():
            if _MARK in said["command"]:
                break
            sent.append(said["command"])
    names = {command.partition(" ")[0].upper() for command in sent}
    greetings = {"HELLO", "CLIENT", "AUTH", "SELECT"}
    # The two others read the size of a stream, and how many entries it ever had.
    assert names - greetings <= READS | {"MEMORY", "XINFO"}
    assert {"LRANGE", "ZRANGE", "HMGET", "XREVRANGE"} <= names

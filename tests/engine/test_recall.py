"""Recall: what Postgres dispatched and Redis does not have is recalled, in two looks; what it has stays."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from redis import Redis
from rq import Queue, SimpleWorker
from rq.executions import Execution
from rq.job import Job as RQJob

from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.engine.reconcile.recall import Recalled, Suspects, recall_lost
from flask_opsjobs.engine.redis.broker import Broker, broker_of, rq_id
from flask_opsjobs.engine.redis.reads import read_hashes
from flask_opsjobs.engine.worker.claim import NotClaimed
from flask_opsjobs.errors import EngineUnavailable
from flask_opsjobs.jobs.perform.current import Claimed
from flask_opsjobs.testing.valkey import Valkey
from flask_opsjobs.workers import transitions as workers
from tests.conftest import MakeBench
from tests.support.dispatching import TwoRedis
from tests.support.engine import Bench, race

pytestmark = pytest.mark.lane

RecordJob = Callable[..., int]
SECONDS = 5.0


class Recaller:
    """One process's recall loop, whose passes the test makes."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.suspects = Suspects()
        self.now: datetime = read_clock(bench.connection)

    def passes(self, after: float, *, broker: object = None) -> Recalled:
        self.now += timedelta(seconds=after)
        found = recall_lost(
            self.bench.connection,
            broker or self.bench.host.broker,  # type: ignore[arg-type]
            self.now,
            self.suspects,
            SECONDS,
            self.bench.host.settings.late_seconds,
        )
        self.suspects = found.suspects
        return found


@pytest.fixture
def recaller(bench: Bench) -> Recaller:
    return Recaller(bench)


@pytest.fixture
def queued(bench: Bench, record_job: RecordJob) -> int:
    """A job that is dispatched."""
    job_id = record_job()
    bench.dispatch()
    return job_id


def queue_of(redis: Redis, name: str = "default") -> Queue:
    return Queue(name, connection=redis)


def test_what_stands_in_the_list_stays(bench: Bench, recaller: Recaller, queued: int) -> None:
    for _ in range(5):
        assert recaller.passes(60).recalled == []
    assert bench.job(queued)["state"] == "queued"


def test_a_lost_delivery_goes_back_after_two_looks_and_a_grace(
    bench: Bench, recaller: Recaller, queued: int, redis_client: Redis
) -> None:
    """Pitfall: recall needs two passes and a grace."""
    redis_client.flushall()
    assert recaller.passes(4).recalled == []
    assert recaller.suspects.absent == {}
    assert recaller.passes(2).recalled == []
    assert recaller.passes(4).recalled == []
    assert recaller.passes(1).recalled == [(queued, 1)]
    job = bench.job(queued)
    assert (job["state"], job["dispatched_at"], job["attempt"]) == ("available", None, 0)
    assert recaller.suspects.absent == {}


def test_after_a_flush_everything_is_dispatched_again(
    bench: Bench, record_job: RecordJob, recaller: Recaller, redis_client: Redis
) -> None:
    jobs = [record_job() for _ in range(5)]
    bench.dispatch(prefetch=10)
    redis_client.flushall()
    recaller.passes(6)
    assert len(recaller.passes(6).recalled) == 5
    assert bench.dispatch(prefetch=10) == 5
    assert {bench.job(job_id)["dispatch_no"] for job_id in jobs} == {2}
    waiting = redis_client.lrange(queue_of(redis_client).key, 0, -1)
    assert sorted(waiting) == sorted(rq_id(job_id, 2).encode() for job_id in jobs)


def test_a_dispatcher_that_died_between_commit_and_push(
    bench: Bench, record_job: RecordJob, recaller: Recaller, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = record_job()
    with monkeypatch.context() as patch:
        patch.setattr(bench.host.broker, "push", lambda *a, **k: None)
        bench.dispatch()
    recaller.passes(6)
    assert recaller.passes(6).recalled == [(job_id, 1)]


def test_a_delivery_in_the_intermediate_list_stays_until_its_worker_cannot_live(
    bench: Bench, recaller: Recaller, queued: int, redis_client: Redis
) -> None:
    queue = queue_of(redis_client)
    redis_client.lmove(queue.key, queue.intermediate_queue_key)
    for _ in range(4):
        assert recaller.passes(6).recalled == []
    # Milliseconds are normal there. After half a minute nobody will come for it.
    recaller.passes(6)
    assert recaller.passes(6).recalled == [(queued, 1)]
    assert redis_client.llen(queue.intermediate_queue_key) == 0


def test_a_delivery_that_rq_runs_stays(
    bench: Bench, recaller: Recaller, queued: int, redis_client: Redis
) -> None:
    """Pitfall: recall compares list, intermediate and running deliveries."""
    queue = queue_of(redis_client)
    redis_client.delete(queue.key)
    job = RQJob(id=rq_id(queued, 1), connection=redis_client)
    job.origin = "default"
    with redis_client.pipeline() as pipe:
        Execution.create(job, ttl=60, pipeline=pipe, worker_name="plain")
        pipe.execute()
    assert recaller.passes(10).recalled == []
    assert recaller.passes(10).recalled == []
    # Its entry expires when nobody renews it: then its worker is dead.
    recaller.passes(60)
    assert recaller.passes(10).recalled == [(queued, 1)]
    assert [key for key in redis_client.keys("*") if b"opsjobs-" in key] == []
    assert redis_client.zcard(queue.started_job_registry.key) == 0


def test_after_a_flush_the_heartbeat_is_asked_first(
    bench: Bench, recaller: Recaller, queued: int, redis_client: Redis
) -> None:
    """Pitfall: after a flush a running job has no RQ entry; a claim that a crash forgot is still held."""
    workers.record_heartbeat(
        bench.connection,
        bench.worker_id,
        workers.HeartbeatReport(1, reserved=[f"{queued}-1"]),
        recaller.now,
    )
    redis_client.flushall()
    for _ in range(5):
        assert recaller.passes(10).recalled == []
    workers.stop(bench.connection, bench.worker_id, recaller.now)
    recaller.passes(10)
    assert recaller.passes(10).recalled == [(queued, 1)]


def test_a_claimed_job_is_none_of_recalls_business(
    bench: Bench, recaller: Recaller, queued: int, redis_client: Redis
) -> None:
    bench.claim(queued)
    redis_client.flushall()
    recaller.passes(10)
    assert recaller.passes(10).recalled == []
    assert bench.job(queued)["state"] == "started"


def test_a_claim_between_two_looks_wins(
    bench: Bench, recaller: Recaller, queued: int, redis_client: Redis
) -> None:
    redis_client.flushall()
    recaller.passes(10)
    bench.claim(queued)
    assert recaller.passes(10).recalled == []
    assert bench.job(queued)["state"] == "started"


def test_a_new_dispatch_starts_the_suspicion_anew(
    bench: Bench, recaller: Recaller, queued: int, redis_client: Redis
) -> None:
    redis_client.flushall()
    recaller.passes(10)
    bench.rows("UPDATE opsjobs.jobs SET state = 'available' RETURNING id")
    bench.dispatch()
    redis_client.flushall()
    assert recaller.passes(1).recalled == []
    assert bench.job(queued)["dispatch_no"] == 2


def test_the_old_hash_is_deleted(
    bench: Bench, recaller: Recaller, queued: int, redis_client: Redis
) -> None:
    """Pitfall: a delivery dropped leaves its hash for ever."""
    redis_client.delete(queue_of(redis_client).key)
    assert redis_client.ttl(RQJob.key_for(rq_id(queued, 1))) == -1
    recaller.passes(10)
    recaller.passes(10)
    assert redis_client.exists(RQJob.key_for(rq_id(queued, 1))) == 0


def test_a_plain_worker_without_the_hosts_code_does_not_loop_for_ever(
    bench: Bench, record_job: RecordJob, recaller: Recaller, redis_client: Redis
) -> None:
    """Pitfall: recall, fail, recall, …: RQ's `failed` counts as refused, and three end the job."""
    job_id = record_job()
    for round_ in (1, 2, 3):
        assert bench.dispatch() == 1
        redis_client.lpop(queue_of(redis_client).key)
        redis_client.hset(RQJob.key_for(rq_id(job_id, round_)), "status", "failed")
        recaller.passes(10)
        found = recaller.passes(10)
        assert (found.recalled, found.failed) == ([], [(job_id, round_)])
        assert bench.job(job_id)["failed_deliveries"] == round_
    job = bench.job(job_id)
    assert (job["state"], job["ended_by"], job["attempt"]) == ("failed", "undeliverable", 0)
    assert "import the host's code" in job["ended_reason"]
    assert [key for key in redis_client.keys("*") if b"opsjobs-" in key] == []


def test_a_real_plain_worker_that_lacks_the_app_is_met_as_refused(
    bench: Bench,
    recaller: Recaller,
    queued: int,
    redis_client: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flask_opsjobs.engine.worker.plain_worker._find_app", lambda: 1 / 0)
    queue = queue_of(redis_client)
    SimpleWorker([queue], connection=redis_client).work(burst=True, logging_level="CRITICAL")
    recaller.passes(10)
    assert recaller.passes(10).failed == [(queued, 1)]


def test_without_redis_our_workers_take_what_is_queued(
    bench: Bench,
    recaller: Recaller,
    queued: int,
    away: Broker,
    own_valkey: Valkey,
) -> None:
    recaller.passes(1, broker=away)
    own_valkey.kill()
    found = recaller.passes(10, broker=away)
    assert isinstance(found.error, EngineUnavailable)
    assert (found.without_redis, bench.job(queued)["state"]) == ([], "queued")
    assert recaller.passes(4, broker=away).without_redis == [], "it was silent for 4 s"
    found = recaller.passes(1, broker=away)
    assert isinstance(found.error, EngineUnavailable)
    assert (found.recalled, found.without_redis) == ([], [(queued, 1)])
    assert bench.job(queued)["state"] == "available"
    assert bench.claim(queued, 1) == NotClaimed("not_queued"), "its delivery is outdated"


@pytest.mark.slow
def test_one_pass_without_an_answer_recalls_nothing(
    bench: Bench, recaller: Recaller, queued: int, away: Broker, own_valkey: Valkey
) -> None:
    own_valkey.freeze()
    found = recaller.passes(60, broker=away)
    own_valkey.thaw()
    assert isinstance(found.error, EngineUnavailable)
    assert (found.recalled, found.without_redis) == ([], [])
    assert bench.job(queued)["state"] == "queued"


def test_without_redis_what_a_worker_holds_stays(
    bench: Bench, recaller: Recaller, queued: int, away: Broker, own_valkey: Valkey
) -> None:
    """A limited job whose delivery waits in a worker, and a job that is reserved."""
    report = workers.HeartbeatReport(1, reserved=[f"{queued}-1"])
    workers.record_heartbeat(bench.connection, bench.worker_id, report, recaller.now)
    own_valkey.kill()
    for _ in range(3):
        assert recaller.passes(6, broker=away).without_redis == []


@pytest.mark.parametrize("listener", ["nobody", "plain", "late", "elsewhere"])
def test_without_redis_jobs_stay_to_which_none_of_our_workers_listens(
    bench: Bench,
    recaller: Recaller,
    queued: int,
    away: Broker,
    own_valkey: Valkey,
    listener: str,
) -> None:
    """A plain worker could not take it from Postgres."""
    change = {
        "nobody": "ended_at = now(), state = 'stopped'",
        "plain": "kind = 'plain'",
        "late": "heartbeat_at = now() - interval '1 h'",
        "elsewhere": "queues = '{mail}'",
    }[listener]
    bench.rows(f"UPDATE opsjobs.workers SET {change} RETURNING id")
    own_valkey.kill()
    for _ in range(3):
        found = recaller.passes(6, broker=away)
        assert found.without_redis == []
        assert isinstance(found.error, EngineUnavailable)
    assert bench.job(queued)["state"] == "queued"
    own_valkey.start()
    recaller.passes(6, broker=away)
    assert recaller.passes(6, broker=away).recalled == [(queued, 1)], "it came back empty"


def test_one_redis_away_does_not_stop_the_recall_of_another(
    bench: Bench,
    record_job: RecordJob,
    recaller: Recaller,
    queued: int,
    away: Broker,
    own_valkey: Valkey,
    redis_client: Redis,
) -> None:
    """Pitfall: a fault in one part stops only that part."""
    other = record_job(queue="elsewhere")
    bench.dispatch("elsewhere")
    both = Broker(TwoRedis(broker_of(bench.host), away))
    redis_client.flushall()
    own_valkey.kill()
    recaller.passes(6, broker=both)
    found = recaller.passes(6, broker=both)
    assert found.recalled == [(queued, 1)]
    assert isinstance(found.error, EngineUnavailable)
    assert bench.job(other)["state"] == "queued", "nobody listens there"


def test_a_redis_that_breaks_in_the_middle_of_a_pass_does_not_stop_the_recall_of_another(
    bench: Bench,
    record_job: RecordJob,
    recaller: Recaller,
    away: Broker,
    own_valkey: Valkey,
    redis_client: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is killed between the two questions of a pass: where a delivery is, and whether RQ failed it."""
    there, here = record_job(queue="elsewhere"), record_job()
    bench.dispatch("elsewhere")
    bench.dispatch()
    redis_client.flushall()
    both = Broker(TwoRedis(broker_of(bench.host), away))
    recaller.passes(6, broker=both)

    def break_first(*args: Any) -> Any:
        own_valkey.kill()
        return read_hashes(*args)

    with monkeypatch.context() as patch:
        patch.setattr("flask_opsjobs.engine.reconcile.recall.read_hashes", break_first)
        found = recaller.passes(6, broker=both)
    assert isinstance(found.error, EngineUnavailable)
    assert found.recalled == [(here, 1)]
    assert bench.job(there)["state"] == "queued"
    own_valkey.start()
    assert recaller.passes(6, broker=both).recalled == [(there, 1)], "its Redis answers again"


def test_a_clock_that_jumps_back_neither_hurries_nor_stops_recall(
    bench: Bench, recaller: Recaller, queued: int, redis_client: Redis
) -> None:
    recaller.passes(10)
    redis_client.flushall()
    recaller.passes(1)
    # Dispatched in the future now; the first look lies ahead as well.
    assert recaller.passes(-3600).recalled == []
    assert recaller.passes(4).recalled == []
    assert recaller.passes(1).recalled == [(queued, 1)]


def test_no_lock_is_held_over_a_redis_call(
    bench: Bench,
    make_bench: MakeBench,
    recaller: Recaller,
    queued: int,
    redis_client: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = make_bench()
    redis_client.flushall()
    recaller.passes(10)
    looked = []
    for name in ("find_deliveries", "read_hashes", "try_remove_deliveries"):
        module = "flask_opsjobs.engine.reconcile.recall"
        real = getattr(__import__(module, fromlist=[name]), name)

        def look(*args: object, real: Callable[..., object] = real, name: str = name) -> object:
            other.rows("SELECT id FROM opsjobs.jobs FOR UPDATE NOWAIT")
            looked.append(name)
            return real(*args)

        monkeypatch.setattr(f"{module}.{name}", look)
    assert recaller.passes(10).recalled == [(queued, 1)]
    assert looked == ["find_deliveries", "read_hashes", "try_remove_deliveries"]


def test_two_recallers_take_each_job_back_once(
    make_bench: MakeBench, record_job: RecordJob, redis_client: Redis
) -> None:
    one, two = make_bench(), make_bench()
    jobs = [record_job() for _ in range(30)]
    one.dispatch(prefetch=100)
    redis_client.flushall()
    recallers = [Recaller(one), Recaller(two)]
    for recaller in recallers:
        recaller.passes(10)
    answers = race(*(lambda recaller=recaller: recaller.passes(10) for recaller in recallers))
    taken = sorted(job_id for answer in answers for job_id, _ in answer.recalled)
    assert taken == sorted(jobs)
    assert {one.job(job_id)["dispatch_no"] for job_id in jobs} == {1}


def test_two_recallers_count_a_refusal_once(
    make_bench: MakeBench, record_job: RecordJob, redis_client: Redis
) -> None:
    one, two = make_bench(), make_bench()
    job_id = record_job()
    one.dispatch()
    redis_client.delete(queue_of(redis_client).key)
    redis_client.hset(RQJob.key_for(rq_id(job_id, 1)), "status", "failed")
    recallers = [Recaller(one), Recaller(two)]
    for recaller in recallers:
        recaller.passes(10)
    answers = race(*(lambda recaller=recaller: recaller.passes(10) for recaller in recallers))
    assert [key for answer in answers for key in answer.failed] == [(job_id, 1)]
    assert one.job(job_id)["failed_deliveries"] == 1


@pytest.mark.parametrize("turn", range(5))
def test_recall_against_claim_one_of_them_wins(
    make_bench: MakeBench, record_job: RecordJob, redis_client: Redis, turn: int
) -> None:
    worker, other = make_bench(), make_bench()
    jobs = [record_job() for _ in range(10)]
    worker.dispatch(prefetch=100)
    redis_client.flushall()
    recaller = Recaller(other)
    recaller.passes(10)
    found, claims = race(
        lambda: recaller.passes(10), lambda: [worker.claim(job_id) for job_id in reversed(jobs)]
    )
    recalled = {job_id for job_id, _ in found.recalled}
    claimed = {claim.id for claim in claims if isinstance(claim, Claimed)}
    assert recalled | claimed == set(jobs)
    assert recalled & claimed == set()
    for job_id in jobs:
        assert worker.job(job_id)["state"] == ("available" if job_id in recalled else "started")


def test_a_list_longer_than_is_read_is_asked_id_by_id(
    bench: Bench,
    recaller: Recaller,
    queued: int,
    redis_client: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flask_opsjobs.engine.redis.reads._LONGEST_READ", 3)
    redis_client.lpush(queue_of(redis_client).key, *(f"host-{n}" for n in range(20)))
    recaller.passes(10)
    assert recaller.passes(10).recalled == []
    redis_client.delete(queue_of(redis_client).key)
    recaller.passes(10)
    assert recaller.passes(10).recalled == [(queued, 1)]


def test_more_jobs_than_a_pass_reads_are_met_in_turns(
    bench: Bench,
    record_job: RecordJob,
    recaller: Recaller,
    redis_client: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flask_opsjobs.engine.reconcile.recall._MOST_ROWS", 2)
    jobs = [record_job() for _ in range(5)]
    bench.dispatch(prefetch=10)
    redis_client.flushall()
    taken: set[int] = set()
    for _ in range(8):
        taken |= {job_id for job_id, _ in recaller.passes(6).recalled}
    assert taken == set(jobs)


@pytest.mark.parametrize("count", [1, 40])
def test_a_pass_takes_the_same_number_of_commands_whatever_the_number_of_jobs(
    bench: Bench, record_job: RecordJob, recaller: Recaller, redis_client: Redis, count: int
) -> None:
    for _ in range(count):
        record_job()
    bench.dispatch(prefetch=100)
    recaller.passes(10)
    before = redis_client.info("stats")["total_commands_processed"]
    recaller.passes(10)
    after = redis_client.info("stats")["total_commands_processed"]
    assert after - before == 4 + 1  # and the INFO


def test_a_queue_name_with_colons_and_dots(
    bench: Bench, record_job: RecordJob, recaller: Recaller, redis_client: Redis
) -> None:
    job_id = record_job(queue="billing:eu-1.x")
    bench.dispatch("billing:eu-1.x")
    assert recaller.passes(10).recalled == []
    assert recaller.suspects.absent == {}
    redis_client.flushall()
    recaller.passes(10)
    assert recaller.passes(10).recalled == [(job_id, 1)]

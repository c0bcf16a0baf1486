"""Tests that RQ does what it is asked to do with plain jobs, in every status, and that no payload is read."""

from __future__ import annotations

import signal
import sys
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Queue, SimpleWorker
from rq.executions import ExecutionRegistry
from rq.group import Group
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.rate_limit import RateLimit
from rq.worker import BaseWorker

from flask_opsjobs.engine.adopted.ask_rq import RqJobName, RqRefused, ask_rq
from tests.support.plain import (
    Canary,
    die_plain,
    fail_plain,
    hold_plain,
    note_plain,
    take_plain,
)
from tests.support.processes import Child, Children
from tests.support.waiting import wait_until

WAITING = ("created", "deferred", "scheduled", "ready_to_enqueue", "rate_limited", "queued")
ENDED = ("finished", "failed", "stopped", "canceled")
PAYLOAD = ("data", "meta")


@pytest.fixture
def queue(redis_client: Redis) -> Queue:
    return Queue("default", connection=redis_client)


@pytest.fixture
def canary(tmp_path: Path) -> Canary:
    return Canary(tmp_path / "canary")


def _make_created(queue: Queue, call: dict[str, Any]) -> RQJob:
    job = RQJob.create(take_plain, connection=queue.connection, **call)
    job.origin = queue.name
    job.save()
    return job


def _make_deferred(queue: Queue, call: dict[str, Any]) -> RQJob:
    parent = RQJob.create(take_plain, connection=queue.connection)
    parent.save()
    return queue.enqueue_call(take_plain, depends_on=parent, **call)


def _make_scheduled(queue: Queue, call: dict[str, Any]) -> RQJob:
    return queue.enqueue_at(datetime(2100, 1, 1, tzinfo=UTC), take_plain, **call)


def _make_ready(queue: Queue, call: dict[str, Any]) -> RQJob:
    job = queue.enqueue_call(take_plain, **call)
    queue.remove(job)
    with queue.connection.pipeline() as pipe:
        queue.ready_job_registry.register_jobs([job], pipeline=pipe)
        pipe.execute()
    return job


def _make_rate_limited(queue: Queue, call: dict[str, Any]) -> RQJob:
    limit = RateLimit("one", concurrency=1)
    queue.enqueue_call(take_plain, rate_limit=limit)
    return queue.enqueue_call(take_plain, rate_limit=limit, **call)


def _make_stopped(queue: Queue, _call: dict[str, Any]) -> RQJob:
    job = _run(queue.enqueue(fail_plain), queue)
    job.set_status(JobStatus.STOPPED)
    return job


def _make_canceled(queue: Queue, call: dict[str, Any]) -> RQJob:
    job = queue.enqueue_call(take_plain, **call)
    job.cancel()
    return job


# By RQ's own functions. A job that has run has no canary: its worker would load it.
MAKERS: dict[str, Callable[[Queue, dict[str, Any]], RQJob]] = {
    "created": _make_created,
    "deferred": _make_deferred,
    "scheduled": _make_scheduled,
    "ready_to_enqueue": _make_ready,
    "rate_limited": _make_rate_limited,
    "queued": lambda queue, call: queue.enqueue_call(take_plain, **call),
    "finished": lambda queue, _call: _run(queue.enqueue(take_plain), queue),
    "failed": lambda queue, _call: _run(queue.enqueue(fail_plain), queue),
    "stopped": _make_stopped,
    "canceled": _make_canceled,
}
MakeJob = Callable[[str], RQJob]


@pytest.fixture
def make(queue: Queue, canary: Canary) -> MakeJob:
    def make(status: str) -> RQJob:
        job = MAKERS[status](queue, {"args": (canary,), "meta": {"canary": canary}})
        assert job.get_status().value == status
        return job

    return make


def _run(job: RQJob, queue: Queue) -> RQJob:
    SimpleWorker([queue], connection=queue.connection).work(burst=True, logging_level="CRITICAL")
    return job


def ask(what: str, job: RQJob) -> None:
    ask_rq(job.connection, what, RqJobName(job.id, job.created_at))


def places(job: RQJob, queue: Queue) -> list[str]:
    """The structures of RQ that hold the job's id."""
    redis = queue.connection
    registries = (
        queue.failed_job_registry,
        queue.canceled_job_registry,
        queue.scheduled_job_registry,
        queue.deferred_job_registry,
        queue.finished_job_registry,
        queue.ready_job_registry,
    )
    found = [each.key for each in registries if redis.zscore(each.key, job.id) is not None]
    return [*found, *([queue.key] if redis.lpos(queue.key, job.id) is not None else [])]


def payload(job: RQJob) -> list[Any]:
    return list(job.connection.hmget(job.key, *PAYLOAD))


@pytest.mark.parametrize("status", WAITING)
def test_a_waiting_job_is_canceled_as_rq_does_it(
    status: str, make: MakeJob, queue: Queue, canary: Canary
) -> None:
    job = make(status)
    before = payload(job)
    ask("cancel", job)
    assert job.get_status() is JobStatus.CANCELED
    assert places(job, queue) == [queue.canceled_job_registry.key]
    assert payload(job) == before
    assert not canary.path.exists()


@pytest.mark.parametrize("status", ["failed", "stopped", "canceled", "scheduled"])
def test_a_job_is_queued_again_and_runs(
    status: str, make: MakeJob, queue: Queue, canary: Canary
) -> None:
    job = make(status)
    before = payload(job)
    ask("retry", job)
    assert job.get_status() is JobStatus.QUEUED
    assert places(job, queue) == [queue.key]
    assert payload(job) == before
    assert not canary.path.exists()
    _run(job, queue)
    assert job.get_status().value == ("failed" if status in ("failed", "stopped") else "finished")


@pytest.mark.parametrize("status", [*ENDED, "queued", "deferred"])
def test_a_job_is_deleted(status: str, make: MakeJob, queue: Queue, canary: Canary) -> None:
    job = make(status)
    ask("delete", job)
    assert not queue.connection.exists(job.key)
    assert places(job, queue) == []
    assert not canary.path.exists()
    ask("delete", job)  # RQ has nothing to delete: nobody is refused


ILLEGAL = [
    *(("cancel", status) for status in ENDED),
    *(("retry", status) for status in (*WAITING, "finished") if status != "scheduled"),
    *(("discard", status) for status in (*WAITING, *ENDED)),
]


@pytest.mark.parametrize(("what", "status"), ILLEGAL)
def test_what_the_status_does_not_allow_is_refused_and_changes_nothing(
    what: str, status: str, make: MakeJob, queue: Queue
) -> None:
    job = make(status)
    before = queue.connection.hgetall(job.key), places(job, queue)
    with pytest.raises(RqRefused, match=rf"RQ says that it is {status}"):
        ask(what, job)
    assert (queue.connection.hgetall(job.key), places(job, queue)) == before


def test_another_job_of_the_same_id_is_left_alone(queue: Queue) -> None:
    old = queue.enqueue(take_plain, job_id="daily")
    name = RqJobName(old.id, old.created_at)
    old.delete()
    new = queue.enqueue(take_plain, job_id="daily")
    ask_rq(queue.connection, "delete", name)  # nothing is left of it
    for what in ("cancel", "retry", "discard"):
        with pytest.raises(RqRefused, match="no record of it"):
            ask_rq(queue.connection, what, name)
    assert new.get_status() is JobStatus.QUEUED


def test_a_job_that_rq_has_no_more_is_refused(queue: Queue) -> None:
    for what in ("cancel", "retry", "discard"):
        with pytest.raises(RqRefused, match="no record of it"):
            ask_rq(queue.connection, what, RqJobName("gone", None))


@pytest.mark.parametrize(
    "fields",
    [
        {"created_at": b"\xff\xfe"},
        {"timeout": b"soon"},
        {"status": b"\xff"},
        {"status": b"asleep"},
        {"retry_intervals": b"{"},
        {"dependency_ids": b"\xff"},
        {"group_id": b"\xff"},
    ],
)
def test_a_record_that_cannot_be_read_is_refused(queue: Queue, fields: dict[str, bytes]) -> None:
    job = queue.enqueue(take_plain)
    queue.connection.hset(job.key, mapping=fields)  # type: ignore[arg-type]
    with pytest.raises(RqRefused, match="cannot be read"):
        ask_rq(queue.connection, "cancel", RqJobName(job.id, None))


def test_a_payload_of_any_size_and_content_is_not_transferred(queue: Queue) -> None:
    """Asking reads the small fields only: 50 MB in `data`, and bytes that unfold to much more."""
    job = queue.enqueue(take_plain)
    bomb = zlib.compress(bytes(50_000_000))
    queue.connection.hset(job.key, mapping={"data": bytes(50_000_000), "meta": bomb})
    sent_before = queue.connection.info("stats")["total_net_output_bytes"]
    ask("cancel", job)
    ask("retry", job)
    ask("delete", job)
    assert queue.connection.info("stats")["total_net_output_bytes"] - sent_before < 100_000


def test_a_job_of_a_group_that_is_gone_is_deleted(queue: Queue) -> None:
    group = Group.create(queue.connection)
    (job,) = group.enqueue_many(queue, [Queue.prepare_data(take_plain)])
    queue.connection.delete(Group.get_key(group.name))
    ask("delete", job)
    assert not queue.connection.exists(job.key)


def test_jobs_under_a_rate_limit_take_the_place_of_a_canceled_one(queue: Queue) -> None:
    limit = RateLimit("one", concurrency=1)
    first = queue.enqueue_call(take_plain, rate_limit=limit)
    second = queue.enqueue_call(take_plain, rate_limit=limit)
    assert second.get_status() is JobStatus.RATE_LIMITED
    ask("cancel", first)
    assert second.get_status() is JobStatus.QUEUED
    ask("retry", first)
    assert first.get_status() is JobStatus.RATE_LIMITED


# --- started jobs


def _start_rq_worker(children: Children, redis_url: str, *options: str) -> Child:
    rq = str(Path(sys.executable).with_name("rq"))
    return children.python(rq, "worker", "--url", redis_url, *options, "default")


def _hold(queue: Queue, gate: Path, **options: Any) -> RQJob:
    job = queue.enqueue(hold_plain, str(gate), **options)
    wait_until(Path(f"{gate}.begun").exists, 30)
    return job


def test_a_plain_worker_stops_a_started_job(
    children: Children, redis_url: str, queue: Queue, tmp_path: Path
) -> None:
    _start_rq_worker(children, redis_url)
    job = _hold(queue, tmp_path / "gate")
    ask("cancel", job)
    wait_until(lambda: job.get_status() is JobStatus.STOPPED, 30)


def test_our_worker_stops_a_started_job(children: Children, queue: Queue, tmp_path: Path) -> None:
    children.flask("opsjobs", "worker", "default")
    job = _hold(queue, tmp_path / "gate")
    ask("cancel", job)
    wait_until(lambda: job.get_status() is JobStatus.STOPPED, 30)


def test_a_job_whose_worker_hears_no_commands_cannot_be_stopped(queue: Queue) -> None:
    """Such as one of a SimpleWorker."""
    job = queue.enqueue(take_plain)
    worker = SimpleWorker([queue], connection=queue.connection, name="deaf")
    worker.prepare_execution(job)
    queue.remove(job)
    with queue.connection.pipeline() as pipe:
        job.prepare_for_execution(worker.name, pipe)
        pipe.execute()
    with pytest.raises(RqRefused, match="worker deaf hears no commands, so nobody can stop it"):
        ask("cancel", job)
    assert job.get_status() is JobStatus.STARTED


@pytest.fixture
def orphan(children: Children, redis_url: str, queue: Queue, tmp_path: Path) -> RQJob:
    """A started job whose worker and child were killed, after RQ has waited for them long enough."""
    worker = _start_rq_worker(children, redis_url)
    job = _hold(queue, tmp_path / "gate")
    strict = queue.enqueue(take_plain, depends_on=job, job_id="strict")
    assert strict.get_status() is JobStatus.DEFERRED
    worker.kill_all()
    return job


def _let_time_pass(job: RQJob) -> None:
    """Let everything of the worker expire that has a time to live."""
    redis = job.connection
    job.refresh()
    worker = BaseWorker.redis_worker_namespace_prefix + str(job.worker_name)
    redis.pexpire(worker, 1)
    for registry in (job.started_job_registry.key, ExecutionRegistry(job.id, redis).key):
        members: Any = redis.zrange(registry, 0, -1)
        for member in members:
            redis.zadd(registry, {member: 1.0})
    wait_until(lambda: not redis.exists(worker))


@pytest.mark.parametrize("what", ["retry", "discard"])
def test_an_orphan_is_left_alone_while_its_worker_may_live(what: str, orphan: RQJob) -> None:
    with pytest.raises(RqRefused, match=r"worker \S+ is alive, as far as RQ knows"):
        ask(what, orphan)
    assert orphan.get_status() is JobStatus.STARTED


def test_an_orphan_is_retried(orphan: RQJob, queue: Queue, tmp_path: Path) -> None:
    _let_time_pass(orphan)
    (tmp_path / "gate").touch()
    ask("retry", orphan)
    assert orphan.get_status() is JobStatus.QUEUED
    assert places(orphan, queue) == [queue.key]
    assert queue.connection.zcard(queue.started_job_registry.key) == 0
    _run(orphan, queue)
    assert orphan.get_status() is JobStatus.FINISHED
    assert queue.fetch_job("strict").get_status() is JobStatus.FINISHED


def test_an_orphan_is_discarded(orphan: RQJob, queue: Queue) -> None:
    lenient = RQJob.create(take_plain, connection=queue.connection, id="lenient", origin="default")
    lenient.allow_dependency_failures = True
    lenient.process_dependencies(orphan)
    queue.enqueue_job(lenient)
    _let_time_pass(orphan)
    ask("discard", orphan)
    assert orphan.get_status() is JobStatus.FAILED
    assert places(orphan, queue) == [queue.failed_job_registry.key]
    assert queue.connection.zcard(queue.started_job_registry.key) == 0
    assert "Discarded by an operator" in orphan.latest_result().exc_string
    # As after any failure: who allows failures goes on, others wait.
    assert lenient.get_status() is JobStatus.QUEUED
    assert queue.fetch_job("strict").get_status() is JobStatus.DEFERRED
    with pytest.raises(RqRefused, match="RQ says that it is failed"):
        ask("discard", orphan)


# --- races


@pytest.mark.slow
def test_a_worker_and_a_cancel_at_the_same_moment_leave_no_job_behind(
    children: Children, redis_url: str, queue: Queue, tmp_path: Path
) -> None:
    """Each job ends, canceled or finished. One whose cancel was refused has run."""
    notes = tmp_path / "notes"
    jobs = [queue.enqueue(note_plain, str(notes), str(number)) for number in range(100)]
    worker = _start_rq_worker(children, redis_url, "--burst", "--worker-class", "rq.SimpleWorker")
    wait_until(notes.exists, 30)
    refused = []
    for number, job in enumerate(jobs):
        try:
            ask("cancel", job)
        except RqRefused:
            refused.append(str(number))
    worker.wait(60)
    ran = notes.read_text().split()
    assert len(ran) == len(set(ran))
    assert set(refused) <= set(ran)
    for number, job in enumerate(jobs):
        status = job.get_status()
        assert status in (JobStatus.CANCELED, JobStatus.FINISHED)
        assert str(number) in ran or status is JobStatus.CANCELED


def test_two_retries_at_the_same_moment_queue_the_job_once(queue: Queue, make: MakeJob) -> None:
    job = make("failed")
    ask("retry", job)
    queue.remove(job)  # a worker takes it, and has not said so
    job.set_status(JobStatus.FAILED)  # the second one has read this before
    with pytest.raises(RqRefused, match="RQ has moved it meanwhile"):
        ask("retry", job)
    assert queue.connection.llen(queue.key) == 0


def test_a_child_that_dies_is_failed_by_its_worker_and_can_be_retried(
    children: Children, redis_url: str, queue: Queue
) -> None:
    worker = _start_rq_worker(children, redis_url)
    job = queue.enqueue(die_plain)
    wait_until(lambda: job.get_status() is JobStatus.FAILED, 30)
    worker.signal(signal.SIGINT)
    worker.wait(30)
    ask("retry", job)
    assert places(job, queue) == [queue.key]

"""Plain RQ jobs become rows, and their rows follow RQ: states, times with their source, runs and payload."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from redis import Redis
from rq import Queue
from rq.job import Dependency, JobStatus, Retry
from rq.registry import FailedJobRegistry

from tests.engine.adopted.conftest import Adopter, fail, return_it, start_plain, start_run


def test_a_queued_job_is_adopted(adopter: Adopter, queue: Queue) -> None:
    job = queue.enqueue(return_it, 7, job_id="seven", ttl=60, job_timeout=30)
    assert adopter.step().adopted == 1
    row = adopter.job("seven")
    assert (row["origin"], row["rq_place"], row["state"]) == ("rq", "default", "queued")
    assert (row["rq_status"], row["structure"], row["queue"]) == ("queued", "list", "mail")
    assert row["task"] == row["function"] == f"{__package__}.conftest.return_it"
    assert row["arguments"] == '{"*args": [7]}'
    assert (row["timeout_seconds"], row["ttl_seconds"]) == (30, 60)
    assert row["created_at"] == row["rq_created_at"] == job.created_at
    assert (row["created_source"], row["dispatched_source"]) == ("rq", "rq")
    assert row["dispatched_at"] == job.enqueued_at
    assert adopter.step().changed == 0


def test_a_job_that_finished_keeps_its_row_when_rq_forgets_it(
    adopter: Adopter, queue: Queue, work: Callable[[], None]
) -> None:
    job = queue.enqueue(return_it, {"a": 1}, job_id="done")
    adopter.step()
    work()
    job.refresh()
    assert adopter.step().changed == 1
    row = adopter.job("done")
    assert (row["state"], row["ended_by"], row["attempt"]) == ("finished", "returned", 1)
    assert (row["started_at"], row["ended_at"]) == (job.started_at, job.ended_at)
    assert (row["started_source"], row["ended_source"]) == ("rq", "rq")
    assert row["result"] == '{"a": 1}'
    (run,) = adopter.runs("done")
    assert (run["outcome"], run["attempt"], run["worker_id"]) == ("returned", 1, None)
    assert run["worker"] == job.worker_name
    job.delete()
    adopter.step()
    kept = adopter.job("done")
    assert (kept["state"], kept["ended_at"]) == ("finished", job.ended_at)


def test_a_failed_job_has_its_error_and_traceback(
    adopter: Adopter, queue: Queue, work: Callable[[], None]
) -> None:
    queue.enqueue(fail, "account 12", job_id="bad")
    work()
    adopter.step()
    row = adopter.job("bad")
    assert (row["state"], row["ended_by"]) == ("failed", "exhausted")
    assert row["error"] == "ValueError: account 12"
    (run,) = adopter.runs("bad")
    assert (run["outcome"], run["error"]) == ("raised", "ValueError: account 12")
    assert "in fail" in run["traceback"]


def test_an_end_that_nobody_saw_is_unknown_between_two_looks(
    adopter: Adopter, queue: Queue, work: Callable[[], None]
) -> None:
    queue.enqueue(return_it, job_id="brief", result_ttl=0)
    adopter.step()
    before = adopter.now
    work()
    assert adopter.step().unseen == 1
    row = adopter.job("brief")
    assert (row["state"], row["ended_by"]) == ("unknown", "unseen")
    assert (row["ended_after"], row["ended_at"]) == (before, adopter.now)
    assert (row["ended_source"], row["structure"]) == ("observer", None)


def test_a_run_that_vanished_with_its_job_ended_between_two_looks(
    adopter: Adopter, queue: Queue
) -> None:
    job = start_plain(queue, "brief")
    adopter.step()
    before = adopter.now
    job.delete()
    assert adopter.step().unseen == 1
    (run,) = adopter.runs("brief")
    assert (run["outcome"], run["ended_at"]) == ("lost", adopter.now)
    assert datetime.fromisoformat(run["death_facts"]["ended_after"]) == before


def test_a_run_that_another_followed_ended_between_two_looks(
    adopter: Adopter, queue: Queue
) -> None:
    job = start_plain(queue, "again")
    adopter.step()
    before = adopter.now
    queue.connection.delete(job.started_job_registry.key)
    start_run(job)
    adopter.step()
    lost, now = adopter.runs("again")
    assert (lost["outcome"], lost["ended_at"]) == ("lost", adopter.now)
    assert datetime.fromisoformat(lost["death_facts"]["ended_after"]) == before
    assert (now["outcome"], now["death_facts"]) == (None, None)


def test_an_end_is_never_before_what_is_known(
    adopter: Adopter, queue: Queue, work: Callable[[], None]
) -> None:
    adopter.step()
    job = queue.enqueue(return_it, job_id="later", result_ttl=0)
    adopter.step()
    late = adopter.now + timedelta(seconds=3)
    queue.connection.hset(job.key, "enqueued_at", f"{late:%Y-%m-%dT%H:%M:%S.%fZ}")
    adopter.memory.note([b"later"])
    adopter.step()
    job.delete()
    adopter.step()
    assert adopter.job("later")["ended_after"] >= late


def test_a_retried_job_is_retryable_and_keeps_each_run(
    adopter: Adopter, queue: Queue, work: Callable[[], None]
) -> None:
    queue.enqueue(fail, job_id="again", retry=Retry(max=2, interval=[60, 60]))
    work()
    adopter.step()
    row = adopter.job("again")
    assert (row["state"], row["rq_status"]) == ("retryable", "scheduled")
    assert (row["attempt"], row["max_attempts"], row["retries_left"]) == (1, 3, 1)
    assert row["due_at"] > row["started_at"] + timedelta(seconds=50)
    assert [run["outcome"] for run in adopter.runs("again")] == ["raised"]


def test_an_id_that_is_used_again_is_another_job(
    adopter: Adopter, queue: Queue, work: Callable[[], None]
) -> None:
    queue.enqueue(return_it, 1, job_id="nightly")
    work()
    adopter.step()
    queue.enqueue(return_it, 2, job_id="nightly")
    adopter.step()
    first, second = adopter.jobs("nightly")
    assert (first["state"], second["state"]) == ("finished", "queued")
    assert (first["arguments"], second["arguments"]) == ('{"*args": [1]}', '{"*args": [2]}')


def test_an_open_job_whose_id_is_used_again_ended_unseen(adopter: Adopter, queue: Queue) -> None:
    old = queue.enqueue(return_it, 1, job_id="reused")
    adopter.step()
    old.delete()
    queue.enqueue(return_it, 2, job_id="reused")
    # It left the list and came back to its end: the list looks as before.
    adopter.memory.note([b"reused"])
    adopter.step()
    assert [row["state"] for row in adopter.jobs("reused")] == ["unknown", "queued"]


def test_a_job_that_left_a_registry_and_came_back_is_read_again(
    adopter: Adopter, queue: Queue, work: Callable[[], None]
) -> None:
    for name in ("a", "b"):
        queue.enqueue(fail, job_id=name, failure_ttl=60)
    work()
    adopter.step()
    registry = FailedJobRegistry(queue=queue)
    registry.requeue("a")
    # Kept longer, as after a second failure some time later.
    queue.connection.hset("rq:job:a", "failure_ttl", 90)
    work()
    assert registry.get_job_ids() == ["b", "a"]
    adopter.step()
    assert [run["outcome"] for run in adopter.runs("a")] == ["raised", "raised"]
    assert adopter.job("a")["attempt"] == 2
    assert [run["outcome"] for run in adopter.runs("b")] == ["raised"]


def test_dependents_are_deferred_and_name_what_they_wait_for(
    adopter: Adopter, queue: Queue
) -> None:
    parent = queue.enqueue(return_it, job_id="parent")
    queue.enqueue(return_it, job_id="child", depends_on=parent)
    depends = Dependency(jobs=["parent"], allow_failure=True)
    queue.enqueue(return_it, job_id="brave", depends_on=depends)
    adopter.step()
    child, brave = adopter.job("child"), adopter.job("brave")
    assert (child["state"], child["depends_on"], child["allows_failure"]) == (
        "deferred",
        ["parent"],
        False,
    )
    assert (brave["depends_on"], brave["allows_failure"]) == (["parent"], True)


def test_a_scheduled_job_is_due_when_rq_says(adopter: Adopter, queue: Queue) -> None:
    at = datetime(2999, 1, 1, tzinfo=UTC)
    queue.enqueue_at(at, return_it, job_id="later")
    adopter.step()
    row = adopter.job("later")
    assert (row["state"], row["due_at"], row["dispatched_at"]) == ("scheduled", at, None)


def test_a_hash_in_no_structure_is_found_by_the_walk(adopter: Adopter, queue: Queue) -> None:
    job = queue.create_job(return_it, job_id="made", status=JobStatus.CREATED)
    job.save()
    adopter.step()
    row = adopter.job("made")
    assert (row["state"], row["rq_status"], row["structure"]) == ("deferred", "created", None)
    job.delete()
    adopter.step()
    adopter.step()
    assert adopter.job("made")["state"] == "unknown"


def test_an_id_without_a_hash_is_no_job(adopter: Adopter, queue: Queue) -> None:
    queue.enqueue(return_it, job_id="other")
    queue.connection.rpush(queue.key, "ghost")
    assert adopter.step().adopted == 1
    assert adopter.jobs("ghost") == []


def test_a_managed_delivery_is_left_out(adopter: Adopter, queue: Queue) -> None:
    queue.enqueue(return_it, job_id="opsjobs-7-1")
    queue.enqueue(return_it, job_id="opsjobs-mine")
    assert adopter.step().adopted == 1
    assert adopter.job("opsjobs-mine")["state"] == "queued"


def test_hidden_keys_are_never_stored(adopter: Adopter, queue: Queue) -> None:
    adopter.hides = lambda key: "[hidden]" if key == "password" else None
    queue.enqueue(return_it, {"password": "hunter2", "user": "ada"}, job_id="login")
    adopter.step()
    assert (
        adopter.job("login")["arguments"] == '{"*args": [{"password": "[hidden]", "user": "ada"}]}'
    )
    stored = adopter.bench.row(
        "SELECT j::text, v::text AS v FROM opsjobs.jobs j, opsjobs.rq_views v"
    )
    assert "hunter2" not in f"{stored}"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("created_at", ""),
        ("created_at", "yesterday"),
        ("created_at", "9999-12-31T23:59:59.999999Z"),
        ("created_at", "0001-01-01T00:00:00.000000Z"),
        ("enqueued_at", ""),
        ("status", "\udcff".encode(errors="surrogateescape")),
        ("status", "made-up"),
        ("timeout", "1e99"),
        ("ttl", "-1"),
        ("retries_left", str(10**30)),
        ("dependency_ids", "[[[1]]]"),
        ("dependency_ids", "{"),
        ("data", b"\x80\x05broken"),
        ("data", b""),
        ("origin", b"\x00\xff"),
        ("worker_name", b"x" * 100_000),
    ],
)
def test_a_hash_that_cannot_be_read_is_adopted_as_far_as_it_can(
    adopter: Adopter, queue: Queue, field: str, value: bytes | str
) -> None:
    job = queue.enqueue(return_it, job_id="odd")
    queue.enqueue(return_it, job_id="good")
    queue.connection.hset(job.key, field, value)
    found = adopter.step()
    assert (found.adopted, found.refused) == (2, 0)
    assert adopter.job("odd")["state"] == "queued"
    assert adopter.step().changed == 0


def test_a_key_of_another_type_is_no_job(
    adopter: Adopter, queue: Queue, redis_client: Redis
) -> None:
    job = queue.enqueue(return_it, job_id="string")
    redis_client.delete(job.key)
    redis_client.set(job.key, "a text")
    redis_client.set(FailedJobRegistry(queue=queue).key, "a text")
    queue.enqueue(return_it, job_id="good")
    assert adopter.step().adopted == 1


@pytest.mark.sessions
def test_what_a_failed_pass_could_not_write_is_written_by_the_next(
    adopter: Adopter, queue: Queue, work: Callable[[], None]
) -> None:
    queue.enqueue(return_it, 7, job_id="seven")
    adopter.step()
    queue.enqueue(return_it, 8, job_id="eight")
    work()
    adopter.bench.connection.execute("SET default_transaction_read_only = on")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        adopter.step()
    adopter.bench.connection.execute("SET default_transaction_read_only = off")
    adopter.step()
    seven, eight = adopter.job("seven"), adopter.job("eight")
    assert (seven["state"], eight["state"]) == ("finished", "finished")
    assert (seven["arguments"], eight["arguments"]) == ('{"*args": [7]}', '{"*args": [8]}')


def test_a_payload_that_is_known_is_kept_and_a_new_one_is_shown(
    adopter: Adopter, queue: Queue, work: Callable[[], None]
) -> None:
    job = queue.enqueue(return_it, 7, job_id="seven")
    adopter.step()
    job.args = (9,)
    job.save()
    adopter.memory.note([b"seven"])
    adopter.step()
    assert adopter.job("seven")["arguments"] == '{"*args": [9]}'
    work()
    adopter.step()
    row = adopter.job("seven")
    assert (row["arguments"], row["result"]) == ('{"*args": [9]}', "9")
    assert row["task"] == row["function"] == f"{__package__}.conftest.return_it"


def test_a_job_whose_row_was_deleted_is_adopted_again_when_it_moves(
    adopter: Adopter, queue: Queue, work: Callable[[], None]
) -> None:
    queue.enqueue(return_it, 7, job_id="seven")
    adopter.step()
    adopter.bench.rows("DELETE FROM opsjobs.jobs RETURNING id")
    work()
    while adopter.step().waiting:
        pass
    row = adopter.job("seven")
    assert (row["state"], row["arguments"]) == ("finished", '{"*args": [7]}')

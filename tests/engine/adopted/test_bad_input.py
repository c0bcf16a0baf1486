"""Whatever RQ's keys hold ends well: it is adopted as far as it can be read, and jobs beside it whole."""

from __future__ import annotations

import json
import pickle
import string
import tracemalloc
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.job import JobStatus
from rq.registry import FailedJobRegistry, FinishedJobRegistry
from rq.results import Result

from flask_opsjobs.engine.adopted import look as looking
from flask_opsjobs.engine.adopted.adopting import adopt_jobs
from flask_opsjobs.engine.adopted.look import look
from flask_opsjobs.engine.adopted.memory import Memory
from flask_opsjobs.engine.adopted.places import RedisPlace
from tests.engine.adopted.conftest import Adopter, fail, return_it

_LEGAL = string.ascii_letters + string.digits + "_-"


def _bomb() -> bytes:
    folding = zlib.compressobj(9)
    return b"".join(folding.compress(bytes(10**6)) for _ in range(200)) + folding.flush()


def _recursive() -> Any:
    found: list[Any] = []
    found.append({"itself": found})
    return found


def _deep(protocol: int) -> bytes:
    """1,000 lists in each other, which Python itself would not pickle without help."""
    begin, end = (b"(l" if protocol == 0 else b"]"), b"a"
    head = b"" if protocol == 0 else bytes([0x80, protocol])
    return head + begin * 1_000 + end * 999 + b"."


# Payloads, and what is shown of their arguments.
# Made by their tests alone: 200 MB take a while to compress.
PAYLOADS: dict[str, tuple[Callable[[], bytes], str]] = {
    "50 MB": (lambda: bytes(50_000_000), "[not shown: it has 50,000,000 bytes"),
    "200 kB that unfold to 200 MB": (_bomb, "when it is decompressed"),
    "recursive": (
        lambda: zlib.compress(pickle.dumps(("f", None, (_recursive(),), {}), 5)),
        "nested too deeply",
    ),
    "1,000 deep, protocol 0": (lambda: zlib.compress(_deep(0)), "[not shown: "),
    "1,000 deep, protocol 5": (lambda: zlib.compress(_deep(5)), "[not shown: "),
    "protocol 0": (lambda: zlib.compress(pickle.dumps(("f", None, (7,), {}), 0)), '{"*args": [7]}'),
    "protocol 5": (lambda: zlib.compress(pickle.dumps(("f", None, (7,), {}), 5)), '{"*args": [7]}'),
    "no pickle": (lambda: b"\xde\xad\xbe\xef", "[not shown: "),
}


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_payload_is_bounded(adopter: Adopter, queue: Queue, name: str) -> None:
    make, shown = PAYLOADS[name]
    payload = make()
    job = queue.enqueue(return_it, job_id="odd")
    queue.connection.hset(job.key, "data", payload)
    queue.enqueue(return_it, 7, job_id="good")
    adopter.step()  # what is loaded once is no part of what a pass takes
    adopter.memory.note([b"odd", b"good"])
    tracemalloc.start()
    adopter.step()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8_000_000
    assert shown in adopter.job("odd")["arguments"]
    assert (adopter.job("odd")["state"], adopter.job("good")["state"]) == ("queued", "queued")


def test_ids_with_every_legal_character(adopter: Adopter, queue: Queue) -> None:
    ids = [*_LEGAL, _LEGAL, _LEGAL * 15, "opsjobs-1", "opsjobs-", "0" * 40]
    for id in ids:
        queue.enqueue(return_it, job_id=id)
    # Longer than Postgres can index: left out.
    queue.enqueue(return_it, job_id="x" * 1_001)
    assert adopter.step().adopted == len(ids)
    assert {adopter.job(id)["state"] for id in ids} == {"queued"}
    assert adopter.jobs("x" * 1_001) == []


def test_an_id_again_and_again_after_its_end(
    adopter: Adopter, queue: Queue, work: Callable[[], None]
) -> None:
    for number in range(4):
        queue.enqueue(return_it if number % 2 else fail, job_id="nightly")
        adopter.step()
        work()
        adopter.step()
    states = [row["state"] for row in adopter.jobs("nightly")]
    assert states == ["failed", "finished", "failed", "finished"]


def test_rqs_requeue_that_dies_in_between_loses_no_job(
    adopter: Adopter, queue: Queue, work: Callable[[], None]
) -> None:
    """It takes the id out of `failed` before it puts it in the list, and its process may die between."""
    queue.enqueue(fail, job_id="bad")
    work()
    adopter.step()
    failed = FailedJobRegistry(queue=queue)
    queue.connection.zrem(failed.key, "bad")
    adopter.step()
    row = adopter.job("bad")
    assert (row["state"], row["structure"]) == ("failed", None), "its record is left"
    queue.connection.hset("rq:job:bad", "status", "queued")
    queue.connection.rpush(queue.key, "bad")
    adopter.step()
    row = adopter.job("bad")
    assert (row["state"], row["structure"]) == ("queued", "list")
    assert [run["outcome"] for run in adopter.runs("bad")] == ["raised"]


@pytest.mark.parametrize("status", [status.value for status in JobStatus])
def test_a_hash_without_a_list_has_the_status_that_it_says(
    adopter: Adopter, queue: Queue, status: str
) -> None:
    job = queue.create_job(return_it, job_id="alone")
    job.save()
    queue.connection.hset(job.key, "status", status)
    adopter.step()
    row = adopter.job("alone")
    assert (row["rq_status"], row["structure"]) == (status, None)


def test_lists_without_hashes_are_no_jobs(adopter: Adopter, queue: Queue) -> None:
    queue.enqueue(return_it, job_id="good")
    queue.connection.rpush(queue.key, "ghost", "", b"\xff\xfe", "a:b:c", "x" * 5_000)
    phantoms: dict[Any, float] = {"phantom": 1e308, b"\xff": -1}
    queue.connection.zadd(FailedJobRegistry(queue=queue).key, phantoms)
    assert adopter.step().adopted == 1
    assert adopter.step().adopted == 0
    assert [row["rq_id"] for row in adopter.bench.rows("SELECT rq_id FROM opsjobs.jobs")] == [
        "good"
    ]


@pytest.mark.parametrize(
    "value",
    [
        *("", "tomorrow", "9999-12-31T23:59:59.999999Z", "0001-01-01T00:00:00Z", "1e9", "\0"),
        *("9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"),
    ],
)
def test_empty_and_future_times(
    adopter: Adopter, queue: Queue, work: Callable[[], None], value: str
) -> None:
    """Each field in a job of its own, beside one that is good."""
    fields = ("created_at", "enqueued_at", "started_at", "ended_at")
    for name in (*fields, "good"):
        queue.enqueue(return_it, job_id=name)
    work()
    for field in fields:
        queue.connection.hset(f"rq:job:{field}", field, value)
    found = adopter.step()
    assert (found.adopted, found.refused) == (5, 0)
    for field in fields:
        row = adopter.job(field)
        assert row["state"] == "finished"
        assert row["ended_at"] is not None
    assert adopter.step().changed == 0


def test_a_scheduled_job_with_any_score_is_adopted(adopter: Adopter, queue: Queue) -> None:
    scores: dict[Any, float] = {"far": 1e308, "inf": float("inf"), "past": -1e12, "zero": 0}
    for name, score in scores.items():
        job = queue.create_job(return_it, job_id=name, status=JobStatus.SCHEDULED)
        job.save()
        queue.connection.zadd(queue.scheduled_job_registry.key, {name: score})
    queue.connection.sadd(Queue.redis_queues_keys, queue.key)
    assert adopter.step().adopted == len(scores)
    assert {adopter.job(name)["state"] for name in scores} == {"scheduled"}


@pytest.mark.slow
def test_200_000_ids_in_one_registry_are_read_in_turns(queue: Queue) -> None:
    """Each look reads 20,000 of them; after one round each id is known, and none twice."""
    key = FinishedJobRegistry(queue=queue).key
    queue.connection.sadd(Queue.redis_queues_keys, queue.key)
    for start in range(0, 200_000, 20_000):
        ids: dict[Any, float] = {f"job-{n:06}": n for n in range(start, start + 20_000)}
        queue.connection.zadd(key, ids)
    memory, now, looks = Memory(), datetime(2026, 1, 1, tzinfo=UTC), 0
    while memory.read_since is None:
        found = look(queue.connection, memory.starts(), memory.tops, 0)
        assert max(len(part.ids) for part in found.slices.values()) <= looking.MOST_IDS
        memory.keep(found, now + timedelta(seconds=10 * looks))
        looks += 1
    assert looks == 10
    assert memory.waiting == 200_000
    assert [structure.key for structure in memory.in_turns] == [key]


def test_turns_follow_what_moves(
    adopter: Adopter,
    queue: Queue,
    work: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(looking, "MOST_IDS", 4)
    for number in range(11):
        queue.enqueue(fail, job_id=f"job-{number}", failure_ttl=1_000 + number)
    work()
    while adopter.step().waiting or adopter.memory.read_since is None:
        pass
    assert {adopter.job(f"job-{number}")["state"] for number in range(11)} == {"failed"}
    registry = FailedJobRegistry(queue=queue)
    for number in (2, 9):
        registry.requeue(f"job-{number}")
    for _ in range(4):  # a round of turns
        adopter.step()
    states = [adopter.job(f"job-{number}")["state"] for number in range(11)]
    assert [number for number in range(11) if states[number] == "queued"] == [2, 9]


def test_a_run_without_a_start_of_its_own_does_not_get_that_of_a_later_run(
    adopter: Adopter, queue: Queue, work: Callable[[], None]
) -> None:
    """RQ before 3 kept no start with a result. That in the record of the job is of its newest run."""
    job = queue.enqueue(fail)
    work()
    FailedJobRegistry(queue=queue).requeue(job.id)
    work()
    redis, key = queue.connection, Result.get_key(job.id)
    entries: Any = redis.xrange(key)
    redis.delete(key)
    for entry_id, fields in entries:
        del fields[b"execution_started_at"]
        redis.xadd(key, fields, id=entry_id)
    adopter.step()
    assert adopter.job(job.id)["attempt"] == 2
    (run,) = adopter.runs(job.id)
    assert run["attempt"] == 2, "the first one counts, and is not shown"
    assert run["started_at"] <= run["ended_at"]


def test_a_queue_that_is_deleted_while_it_is_read_in_turns_leaves_no_open_job(
    adopter: Adopter, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs that were read in this round are forgotten too: otherwise nobody would look for their records."""
    monkeypatch.setattr(looking, "MOST_IDS", 4)
    for number in range(11):
        queue.enqueue(return_it, job_id=f"job-{number}")
    adopter.step()
    assert adopter.memory.read_since is None, "the first round is not over"
    queue.delete(delete_jobs=True)
    while adopter.step().waiting:
        pass
    assert {job["state"] for number in range(11) for job in adopter.jobs(f"job-{number}")} == {
        "unknown"
    }


def test_two_redis_servers_with_the_same_ids(
    adopter: Adopter, queue: Queue, redis_client: Redis, own_valkey: Any
) -> None:
    with own_valkey.client() as other:
        elsewhere = Queue("mail", connection=other)
        queue.enqueue(return_it, "here", job_id="same")
        elsewhere.enqueue(return_it, "there", job_id="same")
        place, memory = RedisPlace("reports", other), Memory()

        def step() -> None:
            adopter.step()
            adopt_jobs(adopter.bench.connection, place, memory, adopter.hides, adopter.now)

        step()
        rows = {row["rq_place"]: row for row in adopter.jobs("same")}
        assert rows["default"]["arguments"] == '{"*args": ["here"]}'
        assert rows["reports"]["arguments"] == '{"*args": ["there"]}'
        redis_client.flushdb()
        step()
        rows = {row["rq_place"]: row for row in adopter.jobs("same")}
        assert (rows["default"]["state"], rows["reports"]["state"]) == ("unknown", "queued")


@pytest.mark.parametrize(
    "name",
    ["jobs", "live", "queues/mail", "..", "jobs.csv", "a b?c#d&e=f", "%2F", "ü\u202e", "x" * 200],
)
def test_a_queue_that_is_named_like_a_route(
    adopter: Adopter, redis_client: Redis, app: Any, name: str
) -> None:
    Queue(name, connection=redis_client).enqueue(return_it, job_id="odd")
    adopter.step()
    row = adopter.job("odd")
    assert (row["queue"], row["state"]) == (name, "queued")
    client = app.test_client()
    for path, query in (("jobs", {"queue": name}), (f"jobs/{row['id']}", {})):
        answer = client.get(f"/ops/jobs/{path}", query_string=query)
        assert answer.status_code == 200
    exported = client.get("/ops/jobs/jobs.ndjson?origin=rq").text
    assert json.loads(exported.splitlines()[0])["queue"] == name

"""Reserved jobs: what a worker takes ahead, and that nobody else moves it."""

from __future__ import annotations

import logging
import resource
import select
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from psycopg.rows import dict_row
from redis import Redis
from rq import Queue, SimpleWorker

from flask_opsjobs import endings
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.core import sql
from flask_opsjobs.core.outage import Outage
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.core.steady_clock import steady_seconds
from flask_opsjobs.endings import EndedAttempt
from flask_opsjobs.engine.dispatch.dispatch import recall
from flask_opsjobs.engine.redis.broker import broker_of
from flask_opsjobs.engine.worker import recorder as recorders
from flask_opsjobs.engine.worker.demand import Demand, WorkerJobs
from flask_opsjobs.engine.worker.heartbeat import Heartbeat
from flask_opsjobs.engine.worker.mailbox import Mailbox
from flask_opsjobs.engine.worker.parent import News
from flask_opsjobs.engine.worker.recorder import Recorder
from flask_opsjobs.engine.worker.reserved import ReserveBudget
from flask_opsjobs.engine.worker.rq_link import Popped, RQLink
from flask_opsjobs.engine.worker.rq_slots import SlotWorker, slot_name
from flask_opsjobs.engine.worker.runtime import tell_of_redis
from flask_opsjobs.engine.worker.taker import Begun, Start, Taker
from flask_opsjobs.host import Host
from flask_opsjobs.jobs import transitions as job_transitions
from flask_opsjobs.jobs.perform.outcomes import RETURNED, Outcome
from flask_opsjobs.lifeline.watch import watch
from tests.support.engine import Bench, begin, race, take
from tests.support.recording import recording
from tests.support.waiting import wait_until

RecordJob = Callable[..., int]
Key = tuple[int, int]


@pytest.fixture
def other(host: Host) -> Any:
    """Another worker."""
    bench = Bench(host, "worker-2")
    yield bench
    bench.close()


def reserve(bench: Bench, *deliveries: Key) -> list[dict[str, Any]]:
    """Reserve popped deliveries, as a worker does."""
    parameters = {
        "ids": [job_id for job_id, _ in deliveries],
        "dispatch_nos": [number for _, number in deliveries],
        "worker_id": bench.worker_id,
    }
    cursor = bench.connection.cursor(row_factory=dict_row)
    return cursor.execute(sql.load("reserve_deliveries"), parameters).fetchall()


def give_back(bench: Bench, *keys: Key) -> list[str]:
    """Give reserved jobs back, as a worker does; their states."""
    moved = endings.give_back(bench.connection, keys, bench.worker_id, read_clock(bench.connection))
    return [job.state for job in moved]


def ended(bench: Bench, key: Key, outcome: Outcome = RETURNED) -> EndedAttempt:
    now = steady_seconds()
    return EndedAttempt(*key, bench.worker_id, bench.name, outcome, 7, now - 2, now - 1)


class TestTaking:
    def test_by_queue_then_priority_then_due_time(
        self, bench: Bench, record_job: RecordJob
    ) -> None:
        later = record_job(queue="b")
        urgent = record_job(queue="b", priority=0)
        first = record_job(queue="a")
        assert take(bench, 10, "a", "b") == [(first, 1), (urgent, 1), (later, 1)]
        row = bench.job(first)
        assert (row["state"], row["reserved_by"], row["attempt"]) == ("queued", bench.worker_id, 0)
        assert bench.rows("SELECT 1 FROM opsjobs.attempts") == []

    def test_each_job_goes_to_one_worker(
        self, bench: Bench, other: Bench, record_job: RecordJob
    ) -> None:
        jobs = [record_job() for _ in range(40)]
        ours, theirs = race(lambda: take(bench, 20), lambda: take(other, 20))
        assert sorted([*ours, *theirs]) == [(job, 1) for job in jobs]

    def test_a_paused_queue_is_passed_by_and_named(
        self, bench: Bench, record_job: RecordJob
    ) -> None:
        record_job(queue="b")
        Operator(bench.host).pause("b", actor="anna", reason="because it is a test")
        parameters = {
            "queues": ["a", "b"],
            "limit": 5,
            "bytes": 1000,
            "waited": None,
            "worker_id": bench.worker_id,
        }
        (row,) = bench.connection.execute(sql.load("take_jobs"), parameters).fetchall()
        assert (row[0], row[1]) == (["b"], None)

    def test_limited_jobs_wait_in_lanes_of_their_own(
        self, bench: Bench, record_job: RecordJob
    ) -> None:
        job = record_job()
        bench.connection.execute(
            "UPDATE opsjobs.jobs SET lane = 'default|crm|', limiter = 'crm', partition = '', weight = 1"
        )
        assert take(bench) == []
        assert bench.job(job)["state"] == "available"

    def test_large_arguments_are_few(self, bench: Bench, record_job: RecordJob) -> None:
        jobs = [record_job() for _ in range(10)]
        bench.connection.execute(
            "UPDATE opsjobs.jobs SET args = jsonb_build_object('text', repeat('x', 100000))"
        )
        assert len(take(bench, 10, most_bytes=250_000)) == 3
        assert take(bench, 1, most_bytes=1) == [(jobs[3], 1)], "one is always taken"

    def test_an_overdue_job_ends_without_an_attempt(
        self, bench: Bench, record_job: RecordJob
    ) -> None:
        job = record_job()
        bench.connection.execute("UPDATE opsjobs.jobs SET deadline_at = now() - interval '1 s'")
        (key,) = take(bench)
        assert give_back(bench, key) == ["failed"]
        assert bench.job(job)["ended_by"] == "deadline"
        assert bench.rows("SELECT 1 FROM opsjobs.attempts") == []


# What else may move a job that is due: it wins, or the worker that takes the job.
RIVALS: dict[str, Callable[[Bench, int, datetime], object]] = {
    "cancel": lambda other, job, now: endings.cancel(other.connection, [job], now, "why"),
    "discard": lambda other, job, now: endings.discard(other.connection, [job], now, "why"),
    "reschedule": lambda other, job, now: job_transitions.reschedule(
        other.connection, [job], now + timedelta(days=1), now
    ),
    "expire": lambda other, _, now: endings.expire(other.connection, now),
    "dispatch": lambda other, _, __: other.dispatch(prefetch=10),
    "another worker": lambda other, _, __: take(other),
}


@pytest.mark.parametrize("rival", RIVALS)
def test_a_take_races_whatever_else_moves_the_job(
    bench: Bench, other: Bench, record_job: RecordJob, rival: str
) -> None:
    """The row has one owner: the worker that was told that it has taken it, or the rival."""
    for _ in range(5):
        job = record_job()
        now = read_clock(bench.connection)
        if rival == "expire":
            bench.rows(
                "UPDATE opsjobs.jobs SET deadline_at = %s WHERE id = %s RETURNING 1", now, job
            )
        taken, moved = race(
            lambda: take(bench), lambda job=job, now=now: RIVALS[rival](other, job, now)
        )
        assert not isinstance(taken, Exception)
        assert not isinstance(moved, Exception)
        row = bench.job(job)
        is_ours = row["state"] == "queued" and row["reserved_by"] == bench.worker_id
        assert [key[0] for key in taken] == [job] * is_ours
        if is_ours:
            assert begin(bench, *taken) == set(taken)
        else:
            assert row["reserved_by"] in (None, other.worker_id)
            assert begin(bench, (job, row["dispatch_no"])) == set()
        bench.rows("DELETE FROM opsjobs.jobs RETURNING 1")


class TestReserving:
    def test_a_valid_delivery(self, bench: Bench, record_job: RecordJob) -> None:
        job = record_job()
        bench.dispatch()
        (row,) = reserve(bench, (job, 1))
        assert (row["id"], row["why_not"], row["is_limited"]) == (job, None, False)
        (again,) = reserve(bench, (job, 1))
        assert again["id"] == job, "its answer may have been lost"

    def test_what_is_not_valid_says_why(
        self, bench: Bench, other: Bench, record_job: RecordJob
    ) -> None:
        waiting, old, theirs = record_job(), record_job(), record_job()
        bench.connection.execute(
            "UPDATE opsjobs.jobs SET state = 'queued', dispatched_at = now(), dispatch_no = 2 WHERE id = %s",
            [old],
        )
        bench.connection.execute(
            "UPDATE opsjobs.jobs SET state = 'queued', dispatched_at = now(), dispatch_no = 1,"
            " reserved_by = %s WHERE id = %s",
            [other.worker_id, theirs],
        )
        rows = reserve(bench, (4711, 1), (waiting, 0), (old, 1), (theirs, 1))
        found = {row["popped_id"]: row["why_not"] for row in rows}
        assert found == {
            4711: "no_row",
            waiting: "not_queued",
            old: "dispatched_again",
            theirs: "not_queued",
        }

    def test_a_delivery_that_comes_again_is_taken_once(
        self, bench: Bench, host: Host, record_job: RecordJob
    ) -> None:
        """A Redis that was set back to an older state has it still, while the job waits here or runs."""
        job = record_job()
        bench.dispatch_all()
        told: list[Any] = []
        heartbeat, outage = Heartbeat(bench.worker_id, 60), Outage(logging.getLogger(), "it waits")
        recorder = Recorder(host, heartbeat, outage, lambda: None)
        taker = Taker(host, bench.name, ["default"], heartbeat, outage, told.append, recorder)
        taker.accept([(job, 1), (job, 1), (job + 1, 1)])
        assert taker.has_popped
        assert heartbeat.count_held() == 2
        taker.start()
        wait_until(lambda: told, what="the answer of the first")
        taker.accept([(job, 1)])
        assert not taker.has_popped
        assert heartbeat.count_held() == 1, "what is no valid delivery is not held"
        assert [[one.key for one in news.jobs] for news in told] == [[(job, 1)]]
        taker.give_back([(job, 1)])
        assert taker.stop(10)
        assert heartbeat.count_held() == 0
        assert bench.job(job)["state"] == "available"

    def test_one_that_comes_again_wakes_the_worker_all_the_same(
        self, bench: Bench, host: Host
    ) -> None:
        """The taker tells nothing of it, and the main thread has to ask Redis anew."""
        heartbeat, outage = Heartbeat(bench.worker_id, 60), Outage(logging.getLogger(), "it waits")
        recorder = Recorder(host, heartbeat, outage, lambda: None)
        mailbox: Mailbox[News] = Mailbox()
        taker = Taker(host, bench.name, ["default"], heartbeat, outage, mailbox.tell, recorder)

        def wakes() -> bool:
            tell_of_redis(mailbox, taker, Popped([(4711, 1)]))
            woken, _, _ = select.select([mailbox.descriptors()[0]], [], [], 0)
            assert len(list(mailbox.empty())) == 1
            return bool(woken)

        assert not wakes(), "the taker does it when it has reserved the job"
        assert wakes()


def test_a_worker_that_asked_for_a_plain_job_hears_of_managed_ones_again(
    app: Flask, bench: Bench, host: Host, record_job: RecordJob
) -> None:
    """Postgres was slow for a moment, so an idle worker asked Redis for a plain RQ job only."""
    heartbeat, outage = Heartbeat(bench.worker_id, 60), Outage(logging.getLogger(), "it waits")
    recorder = Recorder(host, heartbeat, outage, lambda: None)
    taker = Taker(host, bench.name, ["default"], heartbeat, outage, lambda news: None, recorder)
    told: list[Any] = []
    wire = broker_of(host).connections.make_wire("default")
    slots = [SlotWorker(app, ["default"], slot_name(bench.name, 1), wire)]
    link = RQLink(wire, ["default"], slots, told.append, None, 60, lambda: None)
    budget = ReserveBudget(children=1, seconds=0.1, most=400)
    demand = Demand(taker, link, budget, has_limits=False, may_block=True)
    idle = WorkerJobs(sent=0, waiting=0, free=1, held=0, bytes=0, mean=None)
    link.start()
    try:
        demand.note_answer(is_empty=True)
        demand.ask(idle)
        wait_until(lambda: not link._wanted.number, what="Redis is asked for any job")
        demand.ask_for_plain()
        wait_until(lambda: not link._wanted.number, what="Redis is asked for a plain job")
        demand.ask(idle)
        job = record_job()
        bench.dispatch_all()
        wait_until(lambda: told, 20, what="the delivery")
        assert [key for popped in told for key in popped.deliveries] == [(job, 1)]
    finally:
        assert link.stop(20)


def test_a_busy_worker_leaves_new_jobs_to_idle_ones(app: Flask, bench: Bench, host: Host) -> None:
    heartbeat, outage = Heartbeat(bench.worker_id, 60), Outage(logging.getLogger(), "it waits")
    recorder = Recorder(host, heartbeat, outage, lambda: None)
    # Neither thread runs: what is wanted of them stays to be seen.
    taker = Taker(host, bench.name, ["default"], heartbeat, outage, lambda news: None, recorder)
    wire = broker_of(host).connections.make_wire("default")
    slots = [SlotWorker(app, ["default"], slot_name(bench.name, 1), wire)]
    link = RQLink(wire, ["default"], slots, lambda told: None, None, 60, lambda: None)
    budget = ReserveBudget(children=2, seconds=0.1, most=400)
    demand = Demand(taker, link, budget, has_limits=False, may_block=True)

    def asked(jobs: WorkerJobs) -> tuple[int, bool, int]:
        """For how many jobs Postgres is asked, whether only for those that waited, and Redis."""
        taker._requests.wanted = link._wanted.number = 0
        demand.ask(jobs)
        return taker._requests.wanted, taker._requests.waited is not None, link._wanted.number

    has_free = WorkerJobs(sent=1, waiting=0, free=1, held=1, bytes=0, mean=0.04)
    busy = WorkerJobs(sent=2, waiting=0, free=0, held=2, bytes=0, mean=0.04)
    assert asked(has_free) == (1, False, 1), "for the free child"
    demand.note_answer(is_empty=False)
    assert asked(has_free) == (1, False, 0), "a job from each would let one of them wait"
    demand.note_answer(is_empty=False)
    assert asked(busy) == (5, True, 0), "newer ones are for idle workers"

    def asks_redis() -> bool:
        demand.note_answer(is_empty=False)
        return asked(busy) == (5, True, 2)

    wait_until(asks_redis, what="what is in Redis does not wait for the whole backlog")
    demand.note_answer(is_empty=True)
    demand.renew()
    assert asked(replace(busy, mean=0.001)) == (16, False, 4), "they begin soon"


def test_a_worker_that_became_busy_leaves_what_it_waited_for_in_redis(
    app: Flask, bench: Bench, host: Host, record_job: RecordJob
) -> None:
    """It waited at Redis, and then Postgres had a job: an idle worker may begin the delivery that comes."""
    heartbeat, outage = Heartbeat(bench.worker_id, 60), Outage(logging.getLogger(), "it waits")
    recorder = Recorder(host, heartbeat, outage, lambda: None)
    taker = Taker(host, bench.name, ["default"], heartbeat, outage, lambda news: None, recorder)
    told: list[Any] = []
    wire = broker_of(host).connections.make_wire("default")
    slots = [SlotWorker(app, ["default"], slot_name(bench.name, 1), wire)]
    link = RQLink(wire, ["default"], slots, told.append, None, 60, lambda: None)
    budget = ReserveBudget(children=1, seconds=0.1, most=400)
    demand = Demand(taker, link, budget, has_limits=False, may_block=True)
    idle = WorkerJobs(sent=0, waiting=0, free=1, held=0, bytes=0, mean=0.04)
    link.start()
    try:
        demand.note_answer(is_empty=True)
        demand.ask(idle)
        wait_until(lambda: link._is_popping, what="it waits at Redis")
        demand.renew()
        demand.ask(idle)
        demand.note_answer(is_empty=False)
        demand.ask(replace(idle, sent=1, free=0, held=1))
        job = record_job()
        bench.dispatch_all()
        queue = Queue("default", connection=wire.redis)
        wait_until(lambda: not link._is_popping and len(queue) == 1, what="the delivery is back")
        assert told == []
        demand.renew()
        demand.note_answer(is_empty=True)
        demand.ask(idle)
        wait_until(lambda: told, what="the delivery, now that it is idle")
        assert [key for popped in told for key in popped.deliveries] == [(job, 1)]
    finally:
        assert link.stop(20)


@pytest.mark.parametrize(("waited", "taken"), [(5, 1), (0.001, 2), (None, 2)])
def test_a_take_for_a_busy_child_leaves_the_newer_jobs(
    bench: Bench, record_job: RecordJob, waited: float | None, taken: int
) -> None:
    old, new = record_job(), record_job()
    later = "UPDATE opsjobs.jobs SET due_at = due_at - interval '1 minute' WHERE id = %s"
    bench.connection.execute(later, (old,))
    wait_until(
        lambda: bench.connection.execute(
            "SELECT due_at <= now() - interval '1 ms' FROM opsjobs.jobs WHERE id = %s", (new,)
        ).fetchone()[0],
        what="the newer one is due for a while",
    )
    found = take(bench, waited=None if waited is None else timedelta(seconds=waited))
    assert found == [(old, 1), (new, 1)][:taken]


def test_nothing_is_left_in_redis_of_a_popped_delivery(
    app: Flask, bench: Bench, host: Host, record_job: RecordJob, redis_client: Redis
) -> None:
    """Although RQ's maintenance looks when it is popped, and notes that it saw it."""
    wire = broker_of(host).connections.make_wire("default")
    slots = [SlotWorker(app, ["default"], slot_name(bench.name, 1), wire)]
    queue = Queue("default", connection=redis_client)
    maintaining = SimpleWorker([queue], connection=redis_client)
    seen: list[Any] = []

    def maintain(_: object) -> None:
        queue.intermediate_queue.cleanup(maintaining, queue)
        seen.append(queue.intermediate_queue.get_first_seen(f"opsjobs-{job}-1"))

    link = RQLink(wire, ["default"], slots, maintain, None, 60, lambda: None)
    link.want(1, may_block=True)
    link.start()
    try:
        wait_until(lambda: link._is_popping, what="it waits for a delivery")
        job = record_job()
        bench.dispatch_all()
        wait_until(lambda: seen, 20, what="the delivery")
        assert seen != [None]
        wait_until(lambda: not redis_client.keys("rq:*opsjobs-*"), what="no trace of it")
    finally:
        assert link.stop(20)


def test_maintenance_leaves_no_note_of_a_delivery_that_was_taken_meanwhile(
    app: Flask, bench: Bench, host: Host, redis_client: Redis
) -> None:
    """It reads the list of popped jobs first, and notes each a moment later."""
    wire = broker_of(host).connections.make_wire("default")
    (queue,) = SlotWorker(app, ["default"], slot_name(bench.name, 1), wire).queues
    popped = queue.intermediate_queue
    redis_client.rpush(popped.key, "opsjobs-1-1")
    assert [popped.set_first_seen(name) for name in ("opsjobs-1-1", "opsjobs-2-1")] == [True, True]
    assert redis_client.keys("rq:*first_seen*") == [
        popped.get_first_seen_key("opsjobs-1-1").encode()
    ]


def test_a_taker_without_file_descriptors_goes_on(
    bench: Bench, host: Host, record_job: RecordJob, caplog: pytest.LogCaptureFixture
) -> None:
    """It reads its statement from a file when it needs it first."""
    told: list[Any] = []
    heartbeat, outage = Heartbeat(bench.worker_id, 60), Outage(logging.getLogger(), "it waits")
    recorder = Recorder(host, heartbeat, outage, lambda: None)
    taker = Taker(host, bench.name, ["default"], heartbeat, outage, told.append, recorder)
    taker.start()
    taker.want(1, 1_000_000, 0)
    wait_until(lambda: told, what="an answer without jobs")
    job = record_job()
    sql.load.cache_clear()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        taker.want(1, 1_000_000, 0)
        says = "the taker failed and tries again"
        wait_until(lambda: says in caplog.text, what="the failure")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    wait_until(lambda: len(told) == 2, what="the answer")
    assert [one.order.id for one in told[1].jobs] == [job]
    assert caplog.text.count(says) == 1
    taker.give_back([told[1].jobs[0].key])
    assert taker.stop(10)


def test_a_taker_that_cannot_write_starts_takes_and_gives_back(
    bench: Bench, host: Host, record_job: RecordJob, caplog: pytest.LogCaptureFixture
) -> None:
    """Only the table of the starts is gone."""
    told: list[Any] = []
    heartbeat, outage = Heartbeat(bench.worker_id, 60), Outage(logging.getLogger(), "it waits")
    recorder = Recorder(host, heartbeat, outage, lambda: None)
    taker = Taker(host, bench.name, ["default"], heartbeat, outage, told.append, recorder)
    taker.start()
    first = record_job()
    taker.want(1, 1_000_000, 0)
    wait_until(lambda: told, what="the first job")
    second = record_job()
    bench.connection.execute("ALTER TABLE opsjobs.attempts RENAME TO attempts_of_before")
    try:
        taker.begin([Start((first, 1), steady_seconds(), None)])
        wait_until(lambda: "the tables of opsjobs are missing" in caplog.text, what="the failure")
        taker.want(1, 1_000_000, 0)
        wait_until(lambda: len(told) == 2, what="the second job")
        taker.give_back([(second, 1)])
        wait_until(lambda: bench.job(second)["state"] == "available", what="it is given back")
    finally:
        bench.connection.execute("ALTER TABLE opsjobs.attempts_of_before RENAME TO attempts")
    wait_until(lambda: len(told) == 3, what="the start")
    assert (told[2], bench.job(first)["state"]) == (Begun([(first, 1)], {(first, 1)}), "started")
    assert caplog.text.count("the tables of opsjobs are missing") == 1
    assert taker.stop(10)


def test_many_outcomes_do_not_linger(
    bench: Bench, record_job: RecordJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While they wait, the worker holds the jobs, and a full one takes no others."""
    # Longer than any machine is up: so the first ones do not linger however young the machine is.
    monkeypatch.setattr(recorders, "_LINGER_SECONDS", 1e9)
    monkeypatch.setattr(recorders, "_ENOUGH", 3)
    first, *others = (record_job() for _ in range(4))
    take(bench)

    def are_written(*jobs: int) -> bool:
        return {bench.job(job)["state"] for job in jobs} == {"finished"}

    with recording(bench, 600) as record:
        record([first])
        wait_until(lambda: are_written(first), 30, what="the first, at once")
        record(others)
        wait_until(lambda: are_written(*others), 30, what="three, which are enough")


class TestBeginning:
    def test_the_row_says_when_and_where(self, bench: Bench, record_job: RecordJob) -> None:
        job = record_job()
        (key,) = take(bench)
        assert begin(bench, key, ago=5.0) == {key}
        row, attempt = bench.job(job), bench.attempt(job)
        assert (row["state"], row["reserved_by"], row["attempt"]) == ("started", None, 1)
        assert (attempt["pid"], attempt["started_at"]) == (7, row["started_at"])
        ago = read_clock(bench.connection) - row["started_at"]
        assert timedelta(seconds=4.9) < ago < timedelta(seconds=60)
        assert begin(bench, key) == {key}, "its answer may have been lost"
        assert bench.job(job)["attempt"] == 1

    def test_a_job_that_is_no_longer_ours_does_not_begin(
        self, bench: Bench, other: Bench, record_job: RecordJob
    ) -> None:
        record_job()
        (key,) = take(bench)
        assert begin(other, key) == set()
        give_back(bench, key)
        assert begin(bench, key) == set()


class TestEnding:
    @pytest.mark.parametrize("is_begun", [False, True])
    def test_a_plain_end(self, bench: Bench, record_job: RecordJob, is_begun: bool) -> None:
        job = record_job()
        (key,) = take(bench)
        if is_begun:
            begin(bench, key)
        ending = ended(bench, key)
        assert ending.is_plain
        (moved,) = endings.finish(bench.connection, [ending], read_clock(bench.connection))
        assert (moved.id, moved.state) == (job, "finished")
        row, attempt = bench.job(job), bench.attempt(job)
        assert (row["state"], row["attempt"], row["reserved_by"]) == ("finished", 1, None)
        assert (attempt["attempt"], attempt["outcome"], attempt["pid"]) == (1, "returned", 7)
        assert attempt["ended_at"] - attempt["started_at"] == timedelta(seconds=1)
        assert row["ended_at"] == attempt["ended_at"]

    @pytest.mark.parametrize("is_begun", [False, True])
    def test_another_end(self, bench: Bench, record_job: RecordJob, is_begun: bool) -> None:
        job = record_job(max_attempts=2)
        (key,) = take(bench)
        if is_begun:
            begin(bench, key)
        ending = ended(bench, key, Outcome("raised", "it broke"))
        endings.write_outcomes(bench.connection, [ending], read_clock(bench.connection))
        row, attempt = bench.job(job), bench.attempt(job)
        assert (row["state"], row["attempt"], row["reserved_by"]) == ("retryable", 1, None)
        assert attempt["ended_at"] - attempt["started_at"] == timedelta(seconds=1)

    def test_both_ways_end_a_job_alike(self, bench: Bench, record_job: RecordJob) -> None:
        jobs = [record_job(), record_job()]
        first, second = take(bench)
        now = read_clock(bench.connection)
        endings.finish(bench.connection, [ended(bench, first)], now)
        plain = ended(bench, second)._replace(outcome=Outcome("returned"))
        endings.write_outcomes(bench.connection, [plain], now)
        apart = {"id", "started_at", "ended_at", "due_at", "created_at", "args", "dispatched_at"}
        one, two = (
            {name: value for name, value in bench.job(job).items() if name not in apart}
            for job in jobs
        )
        assert one == two

    def test_a_late_end_changes_nothing(self, bench: Bench, record_job: RecordJob) -> None:
        job = record_job()
        (key,) = take(bench)
        give_back(bench, key)
        assert take(bench) == [(job, 2)]
        assert (
            endings.finish(bench.connection, [ended(bench, key)], read_clock(bench.connection))
            == []
        )
        assert bench.job(job)["state"] == "queued"


class TestOnlyItsWorkerMovesAReservedRow:
    """Everybody else leaves it alone, and its worker is free to begin it."""

    @pytest.fixture
    def key(self, bench: Bench, record_job: RecordJob) -> Key:
        record_job()
        (key,) = take(bench)
        return key

    def still_ours(self, bench: Bench, key: Key) -> bool:
        return begin(bench, key) == {key}

    def test_another_worker_cannot_give_it_back(self, bench: Bench, other: Bench, key: Key) -> None:
        assert give_back(other, key) == []
        assert self.still_ours(bench, key)

    def test_cancel_and_discard(self, bench: Bench, key: Key) -> None:
        now = read_clock(bench.connection)
        assert endings.cancel(bench.connection, [key[0]], now, "why") == []
        assert endings.discard(bench.connection, [key[0]], now, "why") == []
        assert self.still_ours(bench, key)

    def test_expire(self, bench: Bench, key: Key) -> None:
        bench.connection.execute("UPDATE opsjobs.jobs SET deadline_at = now() - interval '1 s'")
        assert endings.expire(bench.connection, read_clock(bench.connection)) == []
        assert self.still_ours(bench, key)

    def test_recall_and_failed_deliveries(self, bench: Bench, key: Key) -> None:
        assert recall(bench.connection, [key]) == []
        now = read_clock(bench.connection)
        assert endings.count_failed_deliveries(bench.connection, [key], now) == []
        assert self.still_ours(bench, key)

    def test_a_claim_of_another_worker(self, bench: Bench, other: Bench, key: Key) -> None:
        other.claim(*key)
        assert self.still_ours(bench, key)

    def test_a_wish_to_cancel_is_kept_for_its_worker(self, bench: Bench, key: Key) -> None:
        now = read_clock(bench.connection)
        endings.stop(bench.connection, {key[0]: "queued"}, "anna", "it is wrong", now)
        row = bench.job(key[0])
        assert (row["state"], row["cancel_requested_by"]) == ("queued", "anna")
        assert give_back(bench, key) == ["canceled"]
        assert bench.job(key[0])["ended_reason"] == "it is wrong"

    def test_a_giving_back_against_a_start(self, bench: Bench, host: Host, key: Key) -> None:
        """The main thread sends a job while the taker gives it back: one of them wins."""
        again = Bench(host, "worker-1b")
        again.worker_id = bench.worker_id
        began, states = race(lambda: begin(bench, key), lambda: give_back(again, key))
        again.close()
        assert (began == {key}) is (states == [])
        assert bench.job(key[0])["state"] == ("started" if began else "available")


class TestRescue:
    def look(self, bench: Bench, host: Host, **settings: Any) -> None:
        found = replace(host.settings, **settings)
        with bench.connection.transaction():
            now = read_clock(bench.connection)
            watch(bench.connection, now, 1.0, found, host.secrets)

    def test_a_silent_worker_keeps_what_it_may_still_begin(
        self, bench: Bench, host: Host, other: Bench, record_job: RecordJob
    ) -> None:
        job = record_job()
        take(other)
        other.connection.execute(
            "UPDATE opsjobs.workers SET state = 'missing', ended_at = now() WHERE id = %s",
            [other.worker_id],
        )
        self.look(bench, host)
        assert bench.job(job)["state"] == "queued"
        bench.connection.execute(
            "UPDATE opsjobs.jobs SET dispatched_at = dispatched_at - interval '31 s'"
        )
        self.look(bench, host)
        row = bench.job(job)
        assert (row["state"], row["attempt"], row["lost_reservations"]) == ("available", 0, 1)
        assert bench.rows("SELECT 1 FROM opsjobs.attempts") == []

    def test_an_outcome_forgets_lost_reservations(
        self, bench: Bench, record_job: RecordJob
    ) -> None:
        job = record_job()
        bench.connection.execute("UPDATE opsjobs.jobs SET lost_reservations = 2")
        (key,) = take(bench)
        endings.finish(bench.connection, [ended(bench, key)], read_clock(bench.connection))
        assert bench.job(job)["lost_reservations"] == 0

    @pytest.mark.processes
    def test_a_worker_whose_process_is_gone_is_missing_at_once(
        self, bench: Bench, host: Host, record_job: RecordJob
    ) -> None:
        import os
        import subprocess
        import sys

        from flask_opsjobs.workers import transitions as workers
        from flask_opsjobs.workers.process_identity import identify

        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        identity = identify(child.pid)
        assert identity.is_gone() is False
        lost = Bench(host, "gone")
        process = workers.WorkerProcess(
            "gone",
            "here",
            child.pid,
            "0",
            ["default"],
            1,
            identity.boot_id,
            identity.pid_namespace,
            identity.started_at,
        )
        lost.worker_id = workers.register(lost.connection, process, read_clock(lost.connection))
        job = record_job()
        take(lost)
        self.look(bench, host)
        assert bench.job(job)["state"] == "queued", "its process runs"
        child.kill()
        child.communicate()
        self.look(bench, host)
        assert bench.row("SELECT state FROM opsjobs.workers WHERE name = 'gone'") == {
            "state": "missing"
        }
        assert bench.job(job)["state"] == "available"
        lost.close()
        assert identify(os.getpid()).is_gone() is False

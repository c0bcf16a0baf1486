"""Limited lanes in the engine: recorded per row, walked, refilled when a place is free, and cheap to keep."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from math import inf

import pytest
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs import OpsJobs, Unique
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.core.outage import Outage
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.engine.dispatch.dispatch import Dispatcher, Refill, take_limited
from flask_opsjobs.engine.redis.broker import broker_of
from flask_opsjobs.engine.worker.claim import NotClaimed
from flask_opsjobs.engine.worker.heartbeat import Heartbeat
from flask_opsjobs.engine.worker.recorder import Recorder
from flask_opsjobs.engine.worker.taker import LimitedDelivery, Taker
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.lifeline import retention
from flask_opsjobs.loops import dispatch as dispatch_loop
from flask_opsjobs.loops import roll_up
from flask_opsjobs.loops.loop import Runner
from tests.limits.conftest import Limited
from tests.support.dispatching import AfterCommit
from tests.support.engine import Bench
from tests.support.waiting import wait_until

Commit = Callable[..., int]
RETURNED = Outcome(kind="returned")


def places(bench: Bench) -> list[tuple[str, str, str, int]]:
    rows = bench.rows("SELECT lane, limiter, partition, weight FROM opsjobs.jobs ORDER BY id")
    return [tuple(row.values()) for row in rows]


@pytest.mark.parametrize("unique", [None, Unique(by=["account", "size"], until="ended")])
def test_many_rows_each_wait_in_their_own_lane(
    bench: Bench, limited: Limited, db: SQLAlchemy, unique: Unique | None
) -> None:
    task = limited(concurrency=9, weight="size", task={"unique": unique})
    task.enqueue_many({"account": account, "size": account + 1} for account in range(3))
    db.session.commit()
    assert places(bench) == [(f"default|api|{n}", "api", str(n), n + 1) for n in range(3)]


def test_a_partition_is_copied_byte_for_byte(
    bench: Bench, limited: Limited, db: SQLAlchemy
) -> None:
    odd = "a\\b\tc|d\ne"
    task = limited(concurrency=9, partition=lambda arguments: odd)
    task.enqueue_many([{}])
    db.session.commit()
    assert places(bench) == [(f"default|api|{odd}", "api", odd, 1)]
    assert bench.dispatch_all() == 1


def test_a_limited_job_is_never_inserted_as_queued(
    bench: Bench, limited: Limited, host: Host, db: SQLAlchemy
) -> None:
    host.dispatcher = AfterCommit(lambda notes: None, lambda queue: True)
    assert limited(concurrency=1).enqueue().state == "available"


def test_a_place_given_back_is_dispatched_at_once(
    bench: Bench, limited: Limited, commit: Commit, host: Host
) -> None:
    """By the flush that freed it, also while the prefetch is more than half full: no loop is waited for."""
    task = limited(concurrency=1)
    first, second = commit(task), commit(task)
    bench.dispatch_all()
    bench.claim(first)
    ended = bench.record(first, 1, RETURNED)
    refill = Refill(host)
    refill.refill(bench.connection, ended, read_clock(bench.connection))
    assert bench.job(second)["state"] == "queued"


def test_a_delivery_that_a_worker_recalls_is_dispatched_again_without_a_loop(
    bench: Bench, limited: Limited, commit: Commit, host: Host
) -> None:
    """All its children are stuck in long jobs, and another worker may be idle."""
    job_id = commit(limited(concurrency=1))
    bench.dispatch_all()
    heartbeat, outage = Heartbeat(bench.worker_id, 10), Outage(logging.getLogger(), "it waits")
    recorder = Recorder(host, heartbeat, outage, lambda: None)
    taker = Taker(host, bench.name, ["default"], heartbeat, outage, lambda news: None, recorder)
    for thread in (recorder, taker):
        thread.start()
    taker.recall(LimitedDelivery((job_id, 1)))
    wait_until(lambda: bench.job(job_id)["dispatch_no"] == 2, what="it is dispatched again")
    assert bench.job(job_id)["state"] == "queued"
    assert taker.stop(10)
    assert recorder.stop(10)


def test_past_redis_a_worker_takes_what_it_asks_for_and_no_more(
    bench: Bench, limited: Limited, commit: Commit, host: Host, record_job: Commit
) -> None:
    """The prefetch does not count then. A limit, a pause and the order of the queues do."""
    task = limited(concurrency=1)
    other = limited("many", limiter="other", concurrency=3)
    for account in range(4):
        commit(task, account=account)
    full = commit(task, account=0)
    late = [commit(other.options(queue="late")) for _ in range(5)]
    paused = commit(task.options(queue="paused"), account=9)
    elsewhere = commit(task.options(queue="elsewhere"), account=8)
    unlimited = record_job()
    bench.connection.execute(
        "INSERT INTO opsjobs.queues (name, is_paused, paused_at, paused_by, paused_reason, created_at)"
        " VALUES ('paused', true, now(), 'l.brandt', 'maintenance', now())"
    )

    def take(number: int) -> list[int]:
        queues = ["paused", "default", "late"]
        now = read_clock(bench.connection)
        return [
            each.id for each in take_limited(bench.connection, host.settings, queues, number, now)
        ]

    first = take(3)
    assert len(first) == 3
    rest = take(100)
    assert len(rest) == 1 + 3, "one for each account, and three of the other limiter"
    assert set(first + rest[:1]).isdisjoint({full, *late})
    assert set(rest[1:]) <= set(late)
    assert take(100) == []
    for job_id in (full, paused, elsewhere, unlimited):
        assert bench.job(job_id)["state"] == "available"


def test_tokens_come_again_after_a_clock_was_stepped_back(
    bench: Bench, limited: Limited, commit: Commit
) -> None:
    task = limited(rate=2, per=1, burst=1)
    first = commit(task)
    commit(task)
    bench.dispatch_all()
    bench.claim(first)
    # The claim wrote it by a clock that was an hour ahead: nobody sets the clock of the tests' Postgres.
    bench.connection.execute(
        "UPDATE opsjobs.buckets SET refilled_at = refilled_at + interval '1 h', tokens = 0"
    )
    assert bench.dispatch_all() == 0
    wait_until(lambda: bench.dispatch_all() == 1, 10)


def test_what_lies_in_redis_for_nobody_keeps_no_place_from_another_queue(
    bench: Bench, limited: Limited, db: SQLAlchemy, opsjobs: OpsJobs
) -> None:
    """Two queues share a limiter, and the workers of one are gone, or busy for an hour."""
    task = limited(concurrency=1)
    left, asked = task.options(queue="left").enqueue(), task.enqueue()
    db.session.commit()
    assert bench.dispatch("left|api|0") == 1
    assert bench.dispatch_all() == 0, "it may be taken any moment"
    bench.connection.execute(
        "UPDATE opsjobs.jobs SET dispatched_at = dispatched_at - interval '3 s'"
    )
    codes = {reason.code for reason in opsjobs.explain(asked.id).reasons}
    assert "limit_concurrency" not in codes
    assert bench.dispatch_all() == 1
    bench.claim(asked.id)
    assert isinstance(bench.claim(left.id), NotClaimed), "the claim counts all of them"
    assert bench.job(left.id)["state"] == "available"


def test_many_partitions_with_one_job_each_are_dispatched_by_flushes(
    bench: Bench, limited: Limited, commit: Commit, host: Host
) -> None:
    """Pitfall: a prefetch that is refilled once a second runs so many jobs a second."""
    task = limited(concurrency=1)
    ids = [commit(task, account=account) for account in range(5)]
    bench.connection.execute("INSERT INTO opsjobs.queues VALUES ('default', false, 2, now())")
    assert bench.dispatch_all() == 2, "the prefetch of the queue"
    for job_id in ids[:2]:
        bench.claim(job_id)
    ended = [*bench.record(ids[0], 1, RETURNED), *bench.record(ids[1], 1, RETURNED)]
    refill = Refill(host)
    assert refill.due_in() == inf
    refill.refill(bench.connection, ended, read_clock(bench.connection))
    assert refill.due_in() <= 0
    refill.dispatch_rest(bench.connection, read_clock(bench.connection))
    assert refill.due_in() == inf
    states = [bench.job(job_id)["state"] for job_id in ids]
    assert states == ["finished", "finished", "queued", "queued", "available"]


def test_a_flush_that_cannot_dispatch_all_lanes_goes_on_later(
    bench: Bench,
    limited: Limited,
    commit: Commit,
    host: Host,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Outcomes and heartbeats wait meanwhile, and no loop is needed for the rest."""
    monkeypatch.setattr("flask_opsjobs.engine.dispatch.dispatch._ALL_LANES_SECONDS", -1)
    monkeypatch.setattr("flask_opsjobs.engine.dispatch.dispatch._LANES", 1)
    task = limited(concurrency=1)
    first, second, third = (commit(task, account=account) for account in range(3))
    bench.dispatch("default|api|0")
    bench.claim(first)
    refill = Refill(host)
    now = read_clock(bench.connection)
    refill.refill(bench.connection, bench.record(first, 1, RETURNED), now)
    refill.dispatch_rest(bench.connection, now)
    assert [bench.job(each)["state"] for each in (second, third)] == ["queued", "available"]
    assert 0 < refill.due_in() < 5
    refill.dispatch_rest(bench.connection, now)
    assert bench.job(third)["state"] == "queued"
    assert refill.due_in() == inf


def test_more_limited_jobs_may_be_in_redis_than_others(
    bench: Bench, limited: Limited, commit: Commit, record_job: Commit
) -> None:
    """No worker takes them past Redis, so 2 x its children would be all that runs between two turns."""
    task = limited(concurrency=1)
    for account in range(25):
        commit(task, account=account)
        record_job()
    assert bench.dispatch("default") == 2
    assert bench.dispatch_all() == 18, "20 for each child, with those that are there"


def test_the_lane_whose_first_job_is_oldest_comes_first(
    bench: Bench, limited: Limited, commit: Commit
) -> None:
    task = limited(concurrency=1)
    first = commit(task, account=9)
    commit(task, account=1)
    dispatcher = Dispatcher(bench.connection, broker_of(bench.host), bench.host.settings)
    bench.connection.execute("INSERT INTO opsjobs.queues VALUES ('default', false, 1, now())")
    assert dispatcher.dispatch_all(read_clock(bench.connection)) == 1
    assert bench.job(first)["state"] == "queued"


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [
        ({"rate": 10, "per": 1, "burst": 1}, 0.1),  # in less than a quarter second there is one
        ({"rate": 2, "per": 1, "burst": 2}, 0.5),
        ({"rate": 1, "per": 60}, 60.0),
        ({"concurrency": 1}, None),  # an end, and no time, makes room
    ],
)
def test_the_next_pass_comes_with_the_next_token(
    bench: Bench,
    limited: Limited,
    commit: Commit,
    host: Host,
    limit: dict[str, int],
    seconds: float | None,
) -> None:
    task = limited(**limit)
    for _ in range(5):
        commit(task)
    runner = Runner(dispatch_loop.LOOP, host)
    now = read_clock(bench.connection)
    runner.run_once(bench.connection, now)
    for row in bench.rows("SELECT id, dispatch_no FROM opsjobs.jobs WHERE state = 'queued'"):
        bench.claim(row["id"], row["dispatch_no"])
    runner.run_once(bench.connection, now)
    took = (read_clock(bench.connection) - now).total_seconds()
    if seconds is None:
        assert runner.wait_seconds is None
    else:
        assert runner.wait_seconds == pytest.approx(seconds, abs=0.1 + took)


def test_a_paused_queue_s_tokens_hurry_nobody(
    bench: Bench, limited: Limited, commit: Commit, host: Host
) -> None:
    task = limited(rate=10, per=1, burst=1)
    for _ in range(5):
        commit(task)
    Operator(host).pause("default", actor="anna", reason="it is a test")
    runner = Runner(dispatch_loop.LOOP, host)
    runner.run_once(bench.connection)
    assert runner.wait_seconds is None


def test_what_limiters_counted_is_summed_per_minute(
    bench: Bench, limited: Limited, commit: Commit, host: Host
) -> None:
    task = limited(concurrency=1)
    for account in range(3):
        job_id = commit(task, account=account)
        bench.dispatch_all()
        bench.claim(job_id)
        bench.record(job_id, 1, RETURNED)
    Runner(roll_up.LOOP, host).run_once(bench.connection)
    row = bench.row("SELECT sum(admitted) AS n FROM opsjobs.limit_minutes")
    assert row["n"] == 3
    assert bench.rows("SELECT 1 FROM opsjobs.limit_count_deltas") == []


def test_an_idle_bucket_goes_and_one_that_still_means_something_stays(
    bench: Bench, limited: Limited, commit: Commit
) -> None:
    task = limited(rate=1, per=60)
    for account in range(3):
        job_id = commit(task, account=account)
        bench.dispatch_all()
        bench.claim(job_id)
        bench.record(job_id, 1, RETURNED)
    bench.connection.execute(
        "UPDATE opsjobs.buckets SET cooldown_at = now(), cooldown_by = 'anna', cooldown_reason = 'rest',"
        " cooldown_until = now() + interval '9 d' WHERE partition = '1'"
    )
    bench.connection.execute(
        "UPDATE opsjobs.buckets SET refilled_at = now() + interval '9 d' WHERE partition = '2'"
    )
    settings, now = bench.host.settings, read_clock(bench.connection)
    soon = now + timedelta(hours=1)
    assert retention.retain(bench.connection, settings, soon)["buckets"] == 0, "used lately"
    later = now + timedelta(days=2)
    assert retention.count_retainable(bench.connection, settings, later)["buckets"] == 1
    assert retention.retain(bench.connection, settings, later)["buckets"] == 1
    left = bench.rows("SELECT partition FROM opsjobs.buckets ORDER BY 1")
    assert [row["partition"] for row in left] == ["1", "2"]

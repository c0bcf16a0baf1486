"""The claim of the next jobs of a lane in which a worker has freed places: without a delivery."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain
from typing import Any

import pytest
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs import OpsJobs
from flask_opsjobs.core.outage import Outage
from flask_opsjobs.endings import EndedAttempt
from flask_opsjobs.engine.worker import recorder as recorders
from flask_opsjobs.engine.worker.claim import ClaimedNext, LimitedLane, claim_next
from flask_opsjobs.engine.worker.heartbeat import Heartbeat
from flask_opsjobs.engine.worker.recorder import Recorder
from flask_opsjobs.engine.worker.taker import ClaimAnswer, Taker
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.lifecycle import FINAL, MANAGED_STATES
from flask_opsjobs.jobs.perform.current import Claimed
from flask_opsjobs.jobs.perform.outcomes import Outcome
from tests.conftest import MakeBench
from tests.limits.conftest import Limited
from tests.support.engine import Bench, forget_tasks, race
from tests.support.waiting import wait_until

Commit = Callable[..., int]
LANE = LimitedLane("default|api|0", "default")
RETURNED = Outcome(kind="returned")


def claim(bench: Bench, number: int, lane: LimitedLane = LANE) -> ClaimedNext:
    return claim_next(bench.connection, lane, number, bench.worker_id, bench.name)


def ids(found: ClaimedNext) -> list[int]:
    return [each.id for each in found.jobs]


def leases(bench: Bench) -> list[tuple[int, int]]:
    rows = bench.rows("SELECT job_id, dispatch_no FROM opsjobs.leases ORDER BY job_id")
    return [(row["job_id"], row["dispatch_no"]) for row in rows]


def test_it_claims_the_first_due_jobs_for_which_there_is_room(
    bench: Bench, limited: Limited, commit: Commit
) -> None:
    task = limited(concurrency=3)
    jobs = [commit(task) for _ in range(5)]
    urgent = commit(task.options(priority=1))
    found = claim(bench, 2)
    assert (ids(found), found.has_more) == ([urgent, jobs[0]], True)
    found = claim(bench, 2)
    assert (ids(found), found.has_more) == ([jobs[1]], False), "three at once"
    assert claim(bench, 2) == ClaimedNext([])
    assert leases(bench) == [(jobs[0], 1), (jobs[1], 1), (urgent, 1)]
    row, attempt = bench.job(jobs[0]), bench.attempt(jobs[0])
    assert (row["state"], row["attempt"], row["worker_id"]) == ("started", 1, bench.worker_id)
    assert row["dispatched_at"] == row["started_at"] == attempt["started_at"]
    assert bench.job(jobs[2])["state"] == "available"
    assert bench.row("SELECT admitted FROM opsjobs.buckets")["admitted"] == 3
    assert bench.row("SELECT sum(admitted) AS n FROM opsjobs.limit_count_deltas")["n"] == 3
    bench.record(urgent, 1, RETURNED)
    assert ids(claim(bench, 2)) == [jobs[2]]


@pytest.mark.parametrize("state", [state for state in MANAGED_STATES if state != "available"])
def test_a_job_in_another_state_is_left_alone(
    bench: Bench, limited: Limited, commit: Commit, state: str
) -> None:
    job = commit(limited(concurrency=1))
    bench.connection.execute(
        """UPDATE opsjobs.jobs SET state = %(state)s, dispatch_no = 1, due_at = created_at,
            dispatched_at = created_at, started_at = created_at, worker_id = %(worker)s,
            ended_at = CASE WHEN %(is_final)s THEN created_at END,
            ended_by = CASE WHEN %(is_final)s THEN 'canceled' END""",
        {"state": state, "is_final": state in FINAL, "worker": bench.worker_id},
    )
    before = bench.job(job)
    assert claim(bench, 1) == ClaimedNext([])
    assert bench.job(job) == before


def test_it_says_that_nothing_more_is_due(bench: Bench, limited: Limited, commit: Commit) -> None:
    job = commit(limited(concurrency=3))
    found = claim(bench, 2)
    assert (ids(found), found.has_more) == ([job], False)


def test_it_leaves_the_room_of_what_lies_in_redis(
    bench: Bench, limited: Limited, commit: Commit
) -> None:
    task = limited(concurrency=2)
    first, second, third = (commit(task) for _ in range(3))
    assert bench.dispatch(LANE.lane, prefetch=1) == 1
    assert ids(claim(bench, 3)) == [second]
    assert isinstance(bench.claim(first), Claimed)
    assert bench.job(third)["state"] == "available"


def test_each_of_them_takes_its_token(bench: Bench, limited: Limited, commit: Commit) -> None:
    """Of a tight bucket also those that come within a moment, one after the other."""
    task = limited(rate=10, per=1, burst=1)
    jobs = [commit(task) for _ in range(8)]
    found = claim(bench, 8)
    waits = [each.wait_seconds for each in found.jobs]
    assert ids(found) == jobs[: len(waits)]
    assert waits == pytest.approx([0.1 * number for number in range(len(waits))])
    assert len(waits) == 3, "as many as a dispatch would have taken"
    starts = [bench.job(job_id)["started_at"] for job_id in jobs[:3]]
    assert [start - starts[0] for start in starts] == [timedelta(seconds=wait) for wait in waits]
    tokens = bench.row("SELECT tokens FROM opsjobs.buckets")["tokens"]
    assert tokens == pytest.approx(-2)


def test_none_passes_a_heavier_one(bench: Bench, limited: Limited, commit: Commit) -> None:
    task = limited(concurrency=4, weight="size")
    heavy, heavier, _light = commit(task, size=2), commit(task, size=3), commit(task, size=1)
    assert ids(claim(bench, 3)) == [heavy]
    bench.record(heavy, 1, RETURNED)
    assert ids(claim(bench, 1)) == [heavier]


def test_what_can_never_start_is_passed(
    bench: Bench, limited: Limited, commit: Commit, host: Host, opsjobs: OpsJobs
) -> None:
    task = limited(concurrency=9, weight="size")
    heavy, light = commit(task, size=9), commit(task, size=1)
    forget_tasks(host)
    limited(concurrency=2, weight="size")
    assert ids(claim(bench, 1)) == [light]
    assert bench.job(heavy)["state"] == "available"


def test_a_paused_queue_and_a_limiter_in_cooldown_give_nothing(
    bench: Bench, limited: Limited, commit: Commit
) -> None:
    job = commit(limited(concurrency=3))
    bench.connection.execute(
        "INSERT INTO opsjobs.queues (name, is_paused, paused_at, paused_by, paused_reason, created_at)"
        " VALUES ('default', true, now(), 'l.brandt', 'maintenance', now())"
    )
    assert claim(bench, 1) == ClaimedNext([])
    bench.connection.execute("DELETE FROM opsjobs.queues")
    bench.connection.execute(
        "UPDATE opsjobs.limiters SET cooldown_at = now(), cooldown_until = now() + interval '1 h',"
        " cooldown_by = 'l.brandt', cooldown_reason = 'maintenance'"
    )
    assert claim(bench, 1) == ClaimedNext([])
    assert bench.job(job)["state"] == "available"


def test_overdue_jobs_end_and_take_nothing(bench: Bench, limited: Limited, commit: Commit) -> None:
    task = limited(concurrency=1, task={"deadline": timedelta(hours=1)})
    late = [commit(task) for _ in range(2)]
    bench.connection.execute(
        "UPDATE opsjobs.jobs SET deadline_at = clock_timestamp() - interval '1 s'"
    )
    job = commit(task)
    found = claim(bench, 2)
    assert (ids(found), found.has_more) == ([], True)
    assert [bench.job(job_id)["ended_by"] for job_id in late] == ["deadline", "deadline"]
    assert ids(claim(bench, 2)) == [job]
    assert leases(bench) == [(job, 1)]


def test_eight_workers_never_claim_more_than_the_room_and_none_twice(
    make_bench: MakeBench, limited: Limited, db: SQLAlchemy
) -> None:
    task = limited(concurrency=3)
    benches = [make_bench() for _ in range(8)]
    task.enqueue_many({} for _ in range(200))
    db.session.commit()

    def work(bench: Bench) -> list[int]:
        done: list[int] = []
        for _ in range(10):
            for job in claim(bench, 2).jobs:
                running = bench.row("SELECT count(*) AS n FROM opsjobs.leases")["n"]
                assert running <= 3
                bench.record(job.id, job.dispatch_no, RETURNED)
                done.append(job.id)
        return done

    answers = race(*(lambda bench=bench: work(bench) for bench in benches))
    assert [error for error in answers if isinstance(error, Exception)] == []
    ran = list(chain(*answers))
    assert len(ran) == len(set(ran)) >= 10
    assert leases(benches[0]) == []


def test_it_races_the_claim_of_a_delivery_for_the_last_place(
    make_bench: MakeBench, limited: Limited, commit: Commit
) -> None:
    task = limited(concurrency=1)
    one, two = make_bench(), make_bench()
    for account in range(15):
        delivered, _ = (commit(task, account=account) for _ in range(2))
        lane = LimitedLane(f"default|api|{account}", "default")
        assert one.dispatch(lane.lane) == 1
        # As long as nobody hears of it, as after two seconds on another queue.
        two.connection.execute(
            "UPDATE opsjobs.jobs SET queue = 'elsewhere', dispatched_at = now() - interval '3 s'"
            " WHERE id = %s",
            [delivered],
        )
        race(
            lambda delivered=delivered: one.claim(delivered),
            lambda lane=lane: claim(two, 1, lane),
        )
        running = [
            row["job_id"]
            for row in one.rows(
                "SELECT job_id FROM opsjobs.leases WHERE partition = %s", str(account)
            )
        ]
        assert len(running) == 1
        assert one.job(running[0])["state"] == "started"


@contextmanager
def threads(bench: Bench, host: Host, told: list[Any]) -> Iterator[tuple[Taker, Recorder]]:
    """A taker and a recorder that offers lanes, running."""
    heartbeat, outage = Heartbeat(bench.worker_id, 60), Outage(logging.getLogger(), "it waits")
    recorder = Recorder(host, heartbeat, outage, lambda: None, offer=told.append)
    taker = Taker(host, bench.name, ["default"], heartbeat, outage, told.append, recorder)
    for thread in (recorder, taker):
        thread.start()
    yield taker, recorder
    assert taker.stop(10)
    assert recorder.stop(10)


def test_children_that_are_idle_at_once_get_their_jobs_in_one_transaction(
    make_bench: MakeBench, limited: Limited, commit: Commit, host: Host
) -> None:
    task = limited(concurrency=4)
    one, two = make_bench(), make_bench()
    jobs = [commit(task) for _ in range(5)]
    told: list[Any] = []
    with threads(one, host, told) as (taker, _):
        with two.connection.transaction():
            two.connection.execute(
                "INSERT INTO opsjobs.buckets VALUES ('api', '0', NULL, NULL, now())"
            )
            taker.claim_next(LANE)
            wait_until(lambda: is_waiting(one), what="the first claim waits for the bucket")
            for _ in range(3):
                taker.claim_next(LANE)
        wait_until(lambda: len(told) == 2, what="both answers")
        assert [(each.asked, [job.key[0] for job in each.jobs]) for each in told] == [
            (1, jobs[:1]),
            (3, jobs[1:4]),
        ]
        transactions = two.rows("SELECT DISTINCT xmin FROM opsjobs.leases")
        assert len(transactions) == 2


def test_a_claim_whose_answer_was_lost_is_found_again(
    make_bench: MakeBench, limited: Limited, commit: Commit, host: Host
) -> None:
    """Its connection broke after the commit: the job costs one attempt, and no other takes its place."""
    task = limited(concurrency=2)
    one, two = make_bench(), make_bench()
    first, second = commit(task), commit(task)
    told: list[ClaimAnswer] = []
    with threads(one, host, told) as (taker, _):
        for number in (1, 2):  # after the second answer it has looked for forgotten reservations
            taker.claim_next(LimitedLane("default|api|9", "default"))
            wait_until(lambda number=number: len(told) == number)
        told.clear()
        with two.connection.transaction():
            two.connection.execute("LOCK TABLE opsjobs.jobs IN ACCESS EXCLUSIVE MODE")
            taker.claim_next(LANE)
            wait_until(lambda: is_waiting(one), what="the claim waits for the table")
            # What the claim would have written, had it come to its commit.
            committed = claim_next(two.connection, LANE, 1, one.worker_id, one.name)
            assert ids(committed) == [first]
            two.connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                " AND datname = current_database()"
            )
        wait_until(lambda: told, what="the answer")
        assert [job.key for job in told[0].jobs] == [(first, 1)]
        assert told[0].has_more, "it was not asked whether there is more"
        assert leases(two) == [(first, 1)]
        assert two.job(first)["attempt"] == 1
        taker.claim_next(LANE)
        wait_until(lambda: len(told) == 2)
        assert [job.key for job in told[1].jobs] == [(second, 1)]


def is_waiting(bench: Bench) -> bool:
    # Not in a transaction: it would see the same for ever.
    found = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    return bool(bench.rows(found))


def test_an_end_offers_its_place_until_nobody_claims_any_more(
    bench: Bench, limited: Limited, commit: Commit, host: Host
) -> None:
    task = limited(concurrency=1)
    first, second = commit(task), commit(task)
    assert ids(claim(bench, 1)) == [first]
    told: list[Any] = []
    with threads(bench, host, told) as (taker, recorder):
        end(bench, recorder, first)
        wait_until(lambda: told, what="its place is offered")
        assert told == [[LANE]]
        assert bench.job(second)["state"] == "available", "it is for who got the offer"
        taker.claim_next(LANE)
        wait_until(lambda: len(told) == 2, what="it is claimed")
        third = commit(task)
        recorder.offer_no_more()
        end(bench, recorder, second)
        wait_until(lambda: bench.job(third)["state"] == "queued", what="it is dispatched")
        assert len(told) == 2


def test_an_outcome_for_whose_place_others_wait_does_not_linger(
    bench: Bench, limited: Limited, commit: Commit, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others are collected for 20 ms after a flush: here for so long that the test would fail."""
    monkeypatch.setattr(recorders, "_LINGER_SECONDS", 600.0)
    task = limited(concurrency=2)
    first, second = commit(task), commit(task)
    assert ids(claim(bench, 2)) == [first, second]
    with threads(bench, host, []) as (_, recorder):
        end(bench, recorder, first)
        wait_until(lambda: bench.job(first)["state"] == "finished", what="the first flush")
        end(bench, recorder, second)
        wait_until(
            lambda: bench.job(second)["state"] == "finished", 30, what="it is written at once"
        )


def end(bench: Bench, recorder: Recorder, job_id: int) -> None:
    """As the main thread does it when a limited job has ended."""
    outcome = EndedAttempt(job_id, 1, bench.worker_id, bench.name, RETURNED)
    recorder.collect(outcome, is_urgent=True)
    recorder.submit()

"""The watcher: who is late or missing by its own passes, and the fenced rescue of what they left."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from flask_opsjobs.core import db
from flask_opsjobs.core.db import is_away
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.endings import transitions as ending_transitions
from flask_opsjobs.engine.worker.claim import claim
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.lifeline.watch import Watched, watch
from flask_opsjobs.settings import Settings
from flask_opsjobs.workers import transitions as workers
from tests.conftest import MakeBench
from tests.lifeline.conftest import StartJob
from tests.support.engine import Bench, race
from tests.support.waiting import wait_until


class Watcher:
    """A watcher whose passes the test makes;
    `later` moves its clock by the elapsed time unless told another.
    """

    def __init__(self, bench: Bench, **settings: Any) -> None:
        self.connection = bench.connection
        self.secrets = bench.host.secrets
        self.settings: Settings = replace(bench.host.settings, **settings)
        self.now: datetime = read_clock(bench.connection)

    def passes(self, elapsed: float = 10, times: int = 1, *, step: float | None = None) -> Watched:
        for _ in range(times):
            self.now += timedelta(seconds=elapsed if step is None else step)
            with self.connection.transaction():
                watched = watch(self.connection, self.now, elapsed, self.settings, self.secrets)
        return watched


def state(bench: Bench) -> str:
    found = bench.row("SELECT state FROM opsjobs.workers WHERE id = %s", bench.worker_id)
    return str(found["state"])


def beat(bench: Bench, number: int, *reserved: str) -> None:
    now = read_clock(bench.connection)
    workers.record_heartbeat(
        bench.connection, bench.worker_id, workers.HeartbeatReport(number, reserved=reserved), now
    )


@pytest.fixture
def watcher(bench: Bench) -> Watcher:
    found = Watcher(bench)
    found.passes(0)
    return found


def test_late_after_45_seconds_and_missing_after_120_without_a_new_heartbeat(
    bench: Bench, watcher: Watcher
) -> None:
    assert (watcher.passes(times=4).late, state(bench)) == ([], "alive")
    assert (watcher.passes().late, state(bench)) == ([bench.name], "late")
    assert (watcher.passes(times=6).missing, state(bench)) == ([], "late")
    assert (watcher.passes().missing, state(bench)) == ([bench.name], "missing")
    assert watcher.passes().missing == []
    ended = bench.row("SELECT ended_at FROM opsjobs.workers WHERE id = %s", bench.worker_id)
    assert ended["ended_at"] == watcher.now - timedelta(seconds=10)


def test_a_heartbeat_that_grows_resets_the_count(bench: Bench, watcher: Watcher) -> None:
    watcher.passes(times=11)
    beat(bench, 1)
    assert state(bench) == "alive"
    assert watcher.passes(times=5).late == []
    assert watcher.passes().late == [bench.name]
    beat(bench, 2)
    watcher.passes(times=4)
    assert state(bench) == "alive"


def test_a_heartbeat_with_the_same_number_again_proves_nothing(
    bench: Bench, watcher: Watcher
) -> None:
    beat(bench, 1)
    watcher.passes()
    for _ in range(12):
        bench.rows(
            "UPDATE opsjobs.workers SET heartbeat_at = now() WHERE id = %s RETURNING 1",
            bench.worker_id,
        )
        watcher.passes()
    assert state(bench) == "missing"


def test_after_an_outage_of_the_watcher_nobody_is_rescued_at_once(
    bench: Bench, start_job: StartJob, watcher: Watcher
) -> None:
    job_id = start_job(bench)
    watched = watcher.passes(elapsed=6 * 3600)
    assert (watched.late, watched.missing, watched.rescued) == ([], [], [])
    assert watcher.passes(elapsed=3600).missing == []
    assert bench.job(job_id)["state"] == "started"
    # Awake again, it counts on from there.
    watcher.passes(times=8)
    assert state(bench) == "missing"


def test_a_clock_stepped_forward_condemns_nobody(bench: Bench, watcher: Watcher) -> None:
    assert watcher.passes(elapsed=86_400).late == []
    assert state(bench) == "alive"


def test_a_clock_that_jumps_back_counts_for_nothing_and_blinds_nobody(
    bench: Bench, start_job: StartJob, watcher: Watcher
) -> None:
    job_id = start_job(bench)
    watcher.passes(elapsed=-3600)
    watcher.passes(times=12)
    assert state(bench) == "missing"
    job = bench.job(job_id)
    # It was claimed in what is now the future, and is rescued all the same.
    assert job["started_at"] > watcher.now
    assert job["state"] == "available"


def test_the_age_of_a_heartbeat_says_nothing(bench: Bench, watcher: Watcher) -> None:
    """Pitfall: ages condemn healthy workers."""
    bench.rows(
        "UPDATE opsjobs.workers SET heartbeat_at = now() - interval '1 day', heartbeat_no = 3 RETURNING 1"
    )
    assert watcher.passes().late == []
    assert state(bench) == "alive"


def test_plain_workers_are_not_judged_by_heartbeats(bench: Bench, watcher: Watcher) -> None:
    """Pitfall: an idle RQ worker sends a heartbeat each 405 s, a busy SimpleWorker never."""
    workers.find_or_register_plain(bench.connection, "plain", "here", 1, watcher.now)
    watcher.passes(times=100)
    assert bench.row("SELECT state FROM opsjobs.workers WHERE name = 'plain'") == {"state": "alive"}


class TestRescue:
    """What a missing worker left behind is rescued, once, whoever else has a hand on it."""

    def test_a_missing_workers_jobs_go_back_as_a_failure_with_its_cause(
        self, bench: Bench, start_job: StartJob, watcher: Watcher
    ) -> None:
        job_id = start_job(bench)
        before = bench.row("SELECT heartbeat_at FROM opsjobs.workers")["heartbeat_at"].astimezone(
            UTC
        )
        (rescued,) = watcher.passes(times=12).rescued
        assert (rescued.id, rescued.dispatch_no, rescued.state) == (job_id, 1, "available")
        attempt = bench.attempt(job_id)
        assert attempt["outcome"] == "lost"
        assert (
            attempt["cause_of_death"]
            == f"worker vanished: no heartbeat after {before:%Y-%m-%d %H:%M:%S} UTC"
        )
        assert bench.job(job_id)["attempt"] == 1

    def test_at_the_limit_the_job_fails(
        self, bench: Bench, start_job: StartJob, watcher: Watcher
    ) -> None:
        job_id = start_job(bench, max_attempts=1)
        (rescued,) = watcher.passes(times=12).rescued
        job = bench.job(job_id)
        assert (rescued.state, job["state"], job["ended_by"]) == ("failed", "failed", "exhausted")
        assert "no heartbeat after" in job["ended_reason"]

    def test_both_of_two_abandoned_jobs(
        self, bench: Bench, start_job: StartJob, watcher: Watcher
    ) -> None:
        jobs = {start_job(bench), start_job(bench)}
        assert {job.id for job in watcher.passes(times=12).rescued} == jobs

    def test_manually_nothing_is_rescued(self, bench: Bench, start_job: StartJob) -> None:
        watcher = Watcher(bench, rescue="manual")
        job_id = start_job(bench)
        watched = watcher.passes(times=14)
        assert (watched.rescued, watched.abandoned) == ([], 1)
        assert (state(bench), bench.job(job_id)["state"]) == ("missing", "started")
        # Back to automatic, the abandoned job is still found.
        watcher.settings = replace(watcher.settings, rescue="automatic")
        assert [job.id for job in watcher.passes().rescued] == [job_id]

    def test_what_others_run_stays(self, make_bench: MakeBench, start_job: StartJob) -> None:
        dead, alive = make_bench(), make_bench()
        lost, running = start_job(dead), start_job(alive)
        watcher = Watcher(dead)
        for number in range(13):
            beat(alive, number + 1, f"{running}-1")
            watcher.passes()
        assert dead.job(lost)["state"] == "available"
        assert dead.job(running)["state"] == "started"
        assert state(alive) == "alive"

    def test_a_worker_that_wakes_after_its_rescue_is_fenced(
        self, make_bench: MakeBench, start_job: StartJob
    ) -> None:
        frozen, other = make_bench(), make_bench()
        job_id = start_job(frozen)
        Watcher(frozen).passes(times=13)
        other.dispatch()
        other.claim(job_id, 2)
        assert frozen.record(job_id, 1, Outcome("returned")) == []
        assert [job.state for job in other.record(job_id, 2, Outcome("returned"))] == ["finished"]
        beat(frozen, 9)
        assert state(frozen) == "alive"

    def test_a_claim_made_between_waking_and_the_next_heartbeat_is_left_alone(
        self, bench: Bench, start_job: StartJob
    ) -> None:
        watcher = Watcher(bench)
        # Its verdict falls while the worker sleeps; then it wakes, claims first and sends a heartbeat after.
        watcher.now -= timedelta(seconds=200)
        watcher.passes(times=13)
        assert state(bench) == "missing"
        job_id = start_job(bench)
        watcher.now = read_clock(bench.connection)
        assert watcher.passes().rescued == []
        beat(bench, 1, f"{job_id}-1")
        assert watcher.passes().rescued == []
        assert state(bench) == "alive"

    def test_a_claim_of_a_missing_worker_that_never_sends_a_heartbeat_again_is_rescued(
        self, bench: Bench, start_job: StartJob
    ) -> None:
        watcher = Watcher(bench)
        watcher.now -= timedelta(seconds=200)
        watcher.passes(times=13)
        job_id = start_job(bench)
        watcher.now = read_clock(bench.connection)
        assert watcher.passes(times=11).rescued == []
        assert [job.id for job in watcher.passes().rescued] == [job_id]

    def test_jobs_of_a_worker_that_nobody_recorded(
        self, bench: Bench, start_job: StartJob, watcher: Watcher
    ) -> None:
        job_id = start_job(bench)
        bench.rows("DELETE FROM opsjobs.workers RETURNING id")
        assert watcher.passes().rescued == []
        assert [job.id for job in watcher.passes(times=12).rescued] == [job_id]
        assert "is unknown" in bench.attempt(job_id)["cause_of_death"]

    def test_jobs_that_a_worker_left_when_it_stopped(
        self, bench: Bench, start_job: StartJob, watcher: Watcher
    ) -> None:
        job_id = start_job(bench)
        workers.stop(bench.connection, bench.worker_id, read_clock(bench.connection))
        assert [job.id for job in watcher.passes().rescued] == [job_id]
        assert "stopped before the job ended" in bench.attempt(job_id)["cause_of_death"]

    def test_jobs_of_a_plain_worker_whose_key_in_redis_expired(
        self, bench: Bench, record_job: Callable[..., int], watcher: Watcher
    ) -> None:
        now = read_clock(bench.connection)
        plain = workers.find_or_register_plain(bench.connection, "plain", "here", 1, now)
        job_id = record_job()
        bench.dispatch()
        claim(bench.connection, (job_id, 1), plain, "plain")
        assert watcher.passes(times=50).rescued == []
        watcher.now = read_clock(bench.connection)
        bench.rows(
            "UPDATE opsjobs.workers SET state = 'missing', ended_at = %s WHERE id = %s RETURNING 1",
            watcher.now,
            plain,
        )
        assert [job.id for job in watcher.passes().rescued] == [job_id]
        assert "RQ's key of plain is gone" in bench.attempt(job_id)["cause_of_death"]

    def test_a_wish_to_cancel_is_fulfilled(
        self, bench: Bench, start_job: StartJob, watcher: Watcher
    ) -> None:
        job_id = start_job(bench)
        bench.rows(
            "UPDATE opsjobs.jobs SET cancel_requested_at = now(),"
            " cancel_requested_by = 'anna', cancel_reason = 'it is wrong' RETURNING id"
        )
        watcher.passes(times=12)
        assert bench.job(job_id)["state"] == "canceled"


class TestRaces:
    def test_two_watchers_rescue_each_job_once(
        self, make_bench: MakeBench, start_job: StartJob
    ) -> None:
        dead, other = make_bench(), make_bench()
        jobs = [start_job(dead) for _ in range(20)]
        Watcher(dead).passes(times=12)
        one, two = Watcher(dead), Watcher(other)
        for watcher in (one, two):
            watcher.now += timedelta(seconds=200)
        answers = race(one.passes, two.passes)
        assert sorted(job.id for watched in answers for job in watched.rescued) == sorted(jobs)
        assert {dead.job(job_id)["state"] for job_id in jobs} == {"available"}
        lost = dead.row("SELECT count(*) AS n FROM opsjobs.attempts WHERE outcome = 'lost'")
        assert lost == {"n": 20}

    @pytest.mark.parametrize("turn", range(5))
    def test_rescue_against_finish_one_of_them_wins(
        self, make_bench: MakeBench, start_job: StartJob, turn: int
    ) -> None:
        worker, other = make_bench(), make_bench()
        jobs = [start_job(worker) for _ in range(5)]
        beat(other, 1)
        watcher = Watcher(other)
        watcher.passes(times=12)
        watched, recorded = race(
            watcher.passes,
            lambda: [job for id in jobs for job in worker.record(id, 1, Outcome("returned"))],
        )
        rescued = {job.id for job in watched.rescued}
        finished = {job.id for job in recorded}
        assert rescued & finished == set()
        assert rescued | finished == set(jobs)
        for job_id in jobs:
            expected = "available" if job_id in rescued else "finished"
            assert worker.job(job_id)["state"] == expected
            outcome = worker.attempt(job_id)["outcome"]
            assert outcome == ("lost" if job_id in rescued else "returned")

    def test_a_job_that_is_being_written_is_left_to_the_next_pass(
        self, make_bench: MakeBench, start_job: StartJob
    ) -> None:
        dead, other, writer = make_bench(), make_bench(), make_bench()
        written, free = start_job(dead), start_job(dead)
        watcher = Watcher(other)
        with writer.connection.transaction():
            lock = "SELECT FROM opsjobs.jobs WHERE id = %s FOR UPDATE"
            writer.connection.execute(lock, [written])
            watcher.connection.execute("SET lock_timeout = '1s'")
            assert [job.id for job in watcher.passes(times=13).rescued] == [free]
        assert [job.id for job in watcher.passes().rescued] == [written]

    def test_a_process_that_stands_still_while_it_writes_an_end_loses_its_lock(
        self, make_bench: MakeBench, start_job: StartJob, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dead, other = make_bench(), make_bench()
        job_id = start_job(dead)
        watcher = Watcher(other)
        standing, left = threading.Event(), threading.Event()

        def stand_still(*_: object) -> None:
            standing.set()
            left.wait(30)

        monkeypatch.setattr(ending_transitions, "AFTER_END", [stand_still])
        monkeypatch.setattr(
            db, "_END_IF_FROZEN", "SET LOCAL idle_in_transaction_session_timeout = '100ms'"
        )
        with ThreadPoolExecutor(1) as pool:
            recorded = pool.submit(dead.record, job_id, 1, Outcome("returned"))
            assert standing.wait(10)
            monkeypatch.undo()
            watcher.passes(times=12)
            wait_until(lambda: watcher.passes().rescued)
            left.set()
            with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout) as caught:
                recorded.result()
        assert is_away(caught.value), "the outcome is kept, and written again on a new connection"
        assert other.job(job_id)["state"] == "available"

    def test_a_heartbeat_in_flight_is_neither_waited_for_nor_overruled(
        self, make_bench: MakeBench
    ) -> None:
        worker, other = make_bench(), make_bench()
        beat(other, 1)
        watcher = Watcher(other)
        watcher.passes(times=12)
        beat(worker, 1)
        watcher.passes(times=12)
        with worker.connection.transaction():
            beat(worker, 2)
            assert worker.name not in watcher.passes().missing
        watcher.passes()
        assert state(worker) == "alive"

"""Workers report for themselves: start, heartbeats, lost jobs, stop;
a wrong report costs at most a second run.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from flask_opsjobs import endings
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.jobs.perform.current import Claimed
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.lifeline.disown import rescue_disowned
from flask_opsjobs.workers import transitions as workers
from tests.conftest import MakeBench
from tests.lifeline.conftest import StartJob
from tests.support.engine import Bench


def row(bench: Bench, worker_id: int | None = None) -> dict[str, Any]:
    return bench.row("SELECT * FROM opsjobs.workers WHERE id = %s", worker_id or bench.worker_id)


def beat(bench: Bench, number: int, *reserved: str) -> list[tuple[int, int]]:
    now = read_clock(bench.connection)
    asked = workers.record_heartbeat(
        bench.connection,
        bench.worker_id,
        workers.HeartbeatReport(number, reserved=reserved, rss_kb=4096, counts={"no_row": 1}),
        now,
    )
    return list(asked.stops)


def disown(bench: Bench, suspects: set[tuple[int, int]], *reserved: str) -> set[tuple[int, int]]:
    now = read_clock(bench.connection)
    return rescue_disowned(bench.connection, bench.worker_id, reserved, suspects, now)


def test_a_heartbeat_says_what_is_reserved_and_how_it_goes(bench: Bench) -> None:
    assert beat(bench, 1, "7-2") == []
    found = row(bench)
    assert (found["heartbeat_no"], found["reserved"], found["rss_kb"]) == (1, ["7-2"], 4096)
    assert (found["rss_kb"], found["counts"], found["state"]) == (4096, {"no_row": 1}, "alive")


def test_a_heartbeat_brings_the_wish_to_stop(bench: Bench, start_job: StartJob) -> None:
    one, _other = start_job(bench), start_job(bench)
    bench.rows(
        "UPDATE opsjobs.jobs SET cancel_requested_at = now(),"
        " cancel_requested_by = 'anna', cancel_reason = 'it is wrong' WHERE id = %s RETURNING id",
        one,
    )
    assert beat(bench, 1) == [(one, 1)]


def test_a_missing_worker_that_sends_a_heartbeat_comes_back(bench: Bench) -> None:
    bench.rows(
        "UPDATE opsjobs.workers SET state = 'missing', ended_at = now() WHERE id = %s RETURNING 1",
        bench.worker_id,
    )
    beat(bench, 5)
    found = row(bench)
    assert (found["state"], found["ended_at"]) == ("alive", None)


def test_one_that_has_stopped_stays_stopped(bench: Bench) -> None:
    workers.stop(bench.connection, bench.worker_id, read_clock(bench.connection))
    beat(bench, 6)
    assert row(bench)["state"] == "stopped"
    assert row(bench)["ended_at"] is not None


def test_a_forgotten_worker_is_told_to_start_anew(bench: Bench) -> None:
    bench.rows("DELETE FROM opsjobs.workers WHERE id = %s RETURNING id", bench.worker_id)
    with pytest.raises(workers.WorkerRemoved, match="restart it"):
        beat(bench, 1)


def test_a_worker_takes_over_the_row_that_the_observer_made_of_it(bench: Bench) -> None:
    now = read_clock(bench.connection)
    plain = workers.find_or_register_plain(bench.connection, "w", "here", 1, now)
    assert workers.find_or_register_plain(bench.connection, "w", "here", 1, now) == plain
    ours = workers.register(
        bench.connection,
        workers.WorkerProcess(
            name="w", host="here", pid=1, version="0", deploy_version="2026.11.3", queues=["a b"]
        ),
        now,
    )
    assert ours == plain
    assert (row(bench, ours)["version"], row(bench, ours)["deploy_version"]) == ("0", "2026.11.3")
    assert (row(bench, ours)["kind"], row(bench, ours)["queues"]) == ("pool", ["a b"])


class TestDisown:
    """From a live worker only what two consecutive heartbeats disown is rescued."""

    def test_two_heartbeats_in_a_row_rescue(self, bench: Bench, start_job: StartJob) -> None:
        job_id = start_job(bench)
        suspects = disown(bench, set())
        assert suspects == {(job_id, 1)}
        assert bench.job(job_id)["state"] == "started"
        assert disown(bench, suspects) == set()
        job = bench.job(job_id)
        assert (job["state"], job["dispatch_no"], job["worker_id"]) == ("available", 1, None)
        attempt = bench.attempt(job_id)
        assert (attempt["outcome"], attempt["cause_of_death"]) == (
            "lost",
            "its worker is alive but does not run it",
        )

    def test_one_that_is_reserved_again_is_left_alone(
        self, bench: Bench, start_job: StartJob
    ) -> None:
        job_id = start_job(bench)
        suspects = disown(bench, set())
        assert disown(bench, suspects, f"{job_id}-1") == set()
        assert disown(bench, set()) == {(job_id, 1)}
        assert bench.job(job_id)["state"] == "started"

    def test_a_job_claimed_while_the_heartbeat_travelled_is_left_alone(
        self, bench: Bench, start_job: StartJob
    ) -> None:
        lost, fresh = start_job(bench), start_job(bench)
        assert disown(bench, {(lost, 1)}) == {(fresh, 1)}
        assert bench.job(lost)["state"] == "available"
        assert bench.job(fresh)["state"] == "started"

    def test_what_others_run_is_never_touched(
        self, make_bench: MakeBench, start_job: StartJob
    ) -> None:
        one, two = make_bench(), make_bench()
        job_id = start_job(two)
        assert disown(one, disown(one, {(job_id, 1)})) == set()
        assert one.job(job_id)["state"] == "started"

    def test_an_earlier_dispatch_of_the_same_job_is_no_suspicion(
        self, bench: Bench, start_job: StartJob
    ) -> None:
        job_id = start_job(bench)
        suspects = disown(bench, set())
        disown(bench, suspects)
        bench.dispatch()
        bench.claim(job_id, 2)
        assert disown(bench, suspects) == {(job_id, 2)}
        assert bench.job(job_id)["state"] == "started"

    def test_a_late_outcome_meets_the_fence(self, bench: Bench, start_job: StartJob) -> None:
        job_id = start_job(bench)
        disown(bench, disown(bench, set()))
        assert bench.record(job_id, 1, Outcome("returned")) == []
        assert bench.job(job_id)["state"] == "available"

    def test_the_last_attempt_fails(self, bench: Bench, start_job: StartJob) -> None:
        job_id = start_job(bench, max_attempts=1)
        disown(bench, disown(bench, set()))
        job = bench.job(job_id)
        assert (job["state"], job["ended_by"]) == ("failed", "exhausted")

    def test_a_stepped_clock_disowns_nothing(self, bench: Bench, start_job: StartJob) -> None:
        job_id = start_job(bench)
        long_after = read_clock(bench.connection) + timedelta(days=365)
        for _ in range(3):
            held = {
                *rescue_disowned(
                    bench.connection, bench.worker_id, [f"{job_id}-1"], set(), long_after
                )
            }
            assert held == set()
        assert bench.job(job_id)["state"] == "started"


class TestLost:
    """What a worker runs although its job is not its own any more."""

    def find(self, bench: Bench, *running: tuple[int, int]) -> set[tuple[int, int]]:
        return workers.find_lost(bench.connection, bench.worker_id, running)

    def test_a_job_is_its_own_until_it_is_rescued(self, bench: Bench, start_job: StartJob) -> None:
        one, two = start_job(bench), start_job(bench)
        assert self.find(bench, (one, 1), (two, 1)) == set()
        now = read_clock(bench.connection)
        endings.rescue(bench.connection, [bench.worker_id], now, "vanished", exclude=[f"{two}-1"])
        assert self.find(bench, (one, 1), (two, 1)) == {(one, 1)}
        assert self.find(bench) == set()

    def test_a_second_run_elsewhere_and_here_is_another_delivery(
        self, make_bench: MakeBench, start_job: StartJob
    ) -> None:
        one, two = make_bench(), make_bench()
        job_id = start_job(one)
        endings.rescue(one.connection, [one.worker_id], read_clock(one.connection), "vanished")
        one.dispatch()
        for holder, other in ((two, one), (one, two)):
            number = one.job(job_id)["dispatch_no"]
            assert isinstance(holder.claim(job_id, number), Claimed)
            assert self.find(one, (job_id, 1)) == {(job_id, 1)}
            assert self.find(holder, (job_id, number)) == set()
            assert self.find(other, (job_id, number)) == {(job_id, number)}
            now = read_clock(one.connection)
            endings.rescue(one.connection, [holder.worker_id], now, "vanished")
            one.dispatch()

    def test_a_claim_that_a_crash_of_postgres_forgot_is_its_own(
        self, bench: Bench, record_job: Callable[..., int]
    ) -> None:
        job_id = record_job()
        bench.dispatch()
        # What the crash leaves of the claim is a row
        # that is `queued` under the number of the running delivery.
        assert self.find(bench, (job_id, 1)) == set()

    def test_a_job_that_is_gone(self, bench: Bench) -> None:
        assert self.find(bench, (4711, 1)) == {(4711, 1)}

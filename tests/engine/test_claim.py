"""The claim and the fence: a delivery is performed once, whoever else bears an older number."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from flask_opsjobs import endings
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.engine.dispatch.dispatch import recall
from flask_opsjobs.engine.worker import claim as claiming
from flask_opsjobs.engine.worker.claim import NotClaimed
from flask_opsjobs.jobs.lifecycle import MANAGED_STATES
from flask_opsjobs.jobs.perform.current import Claimed
from flask_opsjobs.jobs.perform.outcomes import Outcome
from tests.conftest import MakeBench
from tests.support.engine import Bench, race

pytestmark = pytest.mark.lane

RecordJob = Callable[..., int]
RETURNED = Outcome(kind="returned")


def test_a_claim_starts_the_attempt(bench: Bench, record_job: RecordJob) -> None:
    job_id = record_job(text="hi 🎈")
    bench.dispatch()
    claimed = bench.claim(job_id)
    assert isinstance(claimed, Claimed)
    assert (claimed.args, claimed.attempt, claimed.dispatch_no) == ('{"text": "hi 🎈"}', 1, 1)
    job, attempt = bench.job(job_id), bench.attempt(job_id)
    assert (job["state"], job["worker_id"]) == ("started", bench.worker_id)
    assert (attempt["attempt"], attempt["worker"], attempt["ended_at"]) == (1, bench.name, None)


def test_two_deliveries_of_one_job_are_performed_once(
    make_bench: MakeBench, record_job: RecordJob
) -> None:
    one, two = make_bench(), make_bench()
    for _ in range(20):
        job_id = record_job()
        one.dispatch(prefetch=1000)
        answers = race(
            lambda job_id=job_id: one.claim(job_id), lambda job_id=job_id: two.claim(job_id)
        )
        assert sorted(type(answer).__name__ for answer in answers) == ["Claimed", "NotClaimed"]
        assert one.job(job_id)["attempt"] == 1


def test_an_old_number_finds_nothing(bench: Bench, record_job: RecordJob) -> None:
    job_id = record_job()
    bench.dispatch()
    recall(bench.connection, [(job_id, 1)])
    assert bench.claim(job_id, 1) == NotClaimed("not_queued")
    bench.dispatch()
    assert bench.claim(job_id, 1) == NotClaimed("dispatched_again")
    assert isinstance(bench.claim(job_id, 2), Claimed)


def test_a_job_id_that_does_not_exist(bench: Bench) -> None:
    assert bench.claim(4711) == NotClaimed("no_row")


def test_claim_against_recall(make_bench: MakeBench, record_job: RecordJob) -> None:
    one, two = make_bench(), make_bench()
    for _ in range(20):
        job_id = record_job()
        one.dispatch(prefetch=1000)
        claimed, recalled = race(
            lambda job_id=job_id: one.claim(job_id),
            lambda job_id=job_id: recall(two.connection, [(job_id, 1)]),
        )
        assert isinstance(claimed, Claimed) != bool(recalled)
        assert one.job(job_id)["state"] == (
            "started" if isinstance(claimed, Claimed) else "available"
        )


def test_a_claim_asked_again_after_a_broken_connection_is_ours(
    bench: Bench, record_job: RecordJob
) -> None:
    job_id = record_job()
    bench.dispatch()
    assert isinstance(bench.claim(job_id), Claimed)
    assert bench.claim(job_id) == NotClaimed("not_queued"), (
        "a second delivery must not run it again"
    )
    again = claiming.claim(
        bench.connection, (job_id, 1), bench.worker_id, bench.name, is_retry=True
    )
    assert isinstance(again, Claimed)
    assert (again.attempt, bench.job(job_id)["attempt"]) == (1, 1)


def test_an_overdue_job_ends_before_it_starts(bench: Bench, record_job: RecordJob) -> None:
    job_id = record_job(deadline=timedelta(hours=1))
    bench.dispatch()
    bench.connection.execute(
        "UPDATE opsjobs.jobs SET deadline_at = clock_timestamp() - interval '1 s'"
    )
    assert bench.claim(job_id) == NotClaimed("deadline")
    job = bench.job(job_id)
    assert (job["state"], job["ended_by"], job["attempt"]) == ("failed", "deadline", 0)


def test_a_forgotten_claim_still_closes(bench: Bench, record_job: RecordJob) -> None:
    """Pitfall: the claim commits asynchronously. After a crash of Postgres its row is `queued` again."""
    job_id = record_job()
    bench.dispatch()
    # What the crash leaves: the claim never happened, the function has run.
    (ended,) = bench.record(job_id, 1, RETURNED)
    assert ended.state == "finished"
    job, attempt = bench.job(job_id), bench.attempt(job_id)
    assert (job["attempt"], attempt["outcome"]) == (1, "returned")


def test_a_late_finish_after_rescue_changes_nothing(bench: Bench, record_job: RecordJob) -> None:
    job_id = record_job()
    bench.dispatch()
    bench.claim(job_id)
    endings.rescue(bench.connection, [bench.worker_id], read_clock(bench.connection), "vanished")
    assert bench.record(job_id, 1, RETURNED) == []
    assert bench.job(job_id)["state"] == "available"
    bench.dispatch()
    bench.claim(job_id, 2)
    assert bench.record(job_id, 1, RETURNED) == [], "nor may it close the second worker's attempt"
    assert bench.attempt(job_id, 2)["ended_at"] is None
    assert bench.attempt(job_id, 1)["outcome"] == "lost"


def test_a_late_finish_races_the_rescue(make_bench: MakeBench, record_job: RecordJob) -> None:
    one, two = make_bench(), make_bench()
    for _ in range(20):
        job_id = record_job()
        one.dispatch(prefetch=1000)
        one.claim(job_id)
        now = read_clock(one.connection)
        finished, rescued = race(
            lambda job_id=job_id: one.record(job_id, 1, RETURNED),
            lambda now=now: endings.rescue(two.connection, [one.worker_id], now, "vanished"),
        )
        assert bool(finished) != bool(rescued)
        assert one.job(job_id)["state"] == ("finished" if finished else "available")


def test_a_late_finish_after_cancel_changes_nothing(bench: Bench, record_job: RecordJob) -> None:
    job_id = record_job()
    bench.dispatch()
    bench.claim(job_id)
    bench.record(job_id, 1, Outcome(kind="canceled", reason="stopped"))
    assert bench.record(job_id, 1, RETURNED) == []
    assert bench.job(job_id)["state"] == "canceled"


@pytest.mark.parametrize("state", [state for state in MANAGED_STATES if state != "queued"])
def test_only_a_queued_job_can_be_claimed(bench: Bench, record_job: RecordJob, state: str) -> None:
    job_id = record_job()
    bench.dispatch()
    # Written directly: no real writer leaves these states under the number of a delivery still in Redis.
    bench.connection.execute(
        "UPDATE opsjobs.jobs SET state = %(state)s, started_at = clock_timestamp(),"
        " ended_at = CASE WHEN %(final)s THEN clock_timestamp() END,"
        " ended_by = CASE WHEN %(final)s THEN 'canceled' END",
        {"state": state, "final": state in ("finished", "failed", "canceled")},
    )
    assert bench.claim(job_id) == NotClaimed("not_queued")

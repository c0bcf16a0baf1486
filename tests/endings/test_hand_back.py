"""A job that a worker refuses goes back without an attempt,
is tried again for ten minutes, and then fails.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

import pytest
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs import OpsJobs, Unique, endings
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.core import sql
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.endings import EndedAttempt, MovedJob
from flask_opsjobs.jobs.perform.current import Claimed
from flask_opsjobs.jobs.perform.outcomes import Outcome
from tests.conftest import MakeBench
from tests.support.engine import Bench, race

RecordJob = Callable[..., int]
UNKNOWN = Outcome("not_run", "no task 'note' is declared here", ended_by="unknown_task")
INVALID = Outcome("not_run", "task note: text: is missing", ended_by="invalid_args")
RETURNED = Outcome("returned")
MINUTES = timedelta(minutes=1)


def claim(bench: Bench, job_id: int) -> int:
    """Move a job from where it waits into the hands of this worker; its dispatch number."""
    late = read_clock(bench.connection) + timedelta(days=1)
    bench.connection.execute(sql.load("stage_jobs"), {"now": late, "limit": 10})
    bench.dispatch()
    number: int = bench.job(job_id)["dispatch_no"]
    assert isinstance(bench.claim(job_id, number), Claimed)
    return number


def record(
    bench: Bench, job_id: int, outcome: Outcome, now: datetime, number: int
) -> list[MovedJob]:
    ending = EndedAttempt(job_id, number, bench.worker_id, bench.name, outcome)
    return endings.write_outcomes(bench.connection, [ending], now)


@pytest.mark.parametrize("outcome", [UNKNOWN, INVALID], ids=lambda outcome: outcome.ended_by)
def test_it_is_due_after_about_5_10_and_20_seconds_and_fails_after_ten_minutes(
    bench: Bench, record_job: RecordJob, outcome: Outcome
) -> None:
    """Each refusal comes the moment that the job is due."""
    job_id = record_job(max_attempts=1)
    first = now = read_clock(bench.connection)
    waits = []
    while bench.job(job_id)["state"] != "failed":
        number = claim(bench, job_id)
        record(bench, job_id, outcome, now, number)
        job = bench.job(job_id)
        assert job["first_handed_back_at"] == first
        if job["state"] == "scheduled":
            assert (job["attempt"], job["max_attempts"], job["error"]) == (0, 1, outcome.error)
            waits.append((job["due_at"] - now).total_seconds())
            now = job["due_at"]
    assert 3.75 <= waits[0] <= 5
    assert 0.75 * (waits[0] + 5) <= waits[1] <= waits[0] + 5
    assert all(15 <= wait <= 20 for wait in waits[4:-1])
    assert len(set(waits)) == len(waits), "equal waits meet the same worker again and again"
    assert now == first + 10 * MINUTES
    assert (job["ended_by"], job["ended_at"], job["attempt"]) == (outcome.ended_by, now, 1)
    # Of the attempts that were handed back the newest stays, beside the one that ended the job.
    attempts = bench.rows("SELECT dispatch_no, outcome, error FROM opsjobs.attempts ORDER BY 1")
    assert attempts == [
        {"dispatch_no": each, "outcome": "not_run", "error": outcome.error}
        for each in (number - 1, number)
    ]


def test_a_refusal_that_comes_late_fails_it_only_after_ten_minutes(
    bench: Bench, record_job: RecordJob
) -> None:
    job_id = record_job()
    now = read_clock(bench.connection)
    record(bench, job_id, UNKNOWN, now, claim(bench, job_id))
    late = now + 10 * MINUTES - timedelta(seconds=1)
    record(bench, job_id, INVALID, late, claim(bench, job_id))
    assert bench.job(job_id)["due_at"] == now + 10 * MINUTES
    record(bench, job_id, INVALID, now + 11 * MINUTES, claim(bench, job_id))
    assert bench.job(job_id)["ended_by"] == "invalid_args"


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (RETURNED, "finished"),
        (Outcome("raised", "Boom"), "retryable"),
        (Outcome("snoozed", delay_seconds=5), "scheduled"),
    ],
    ids=lambda value: getattr(value, "kind", value),
)
def test_a_worker_that_calls_it_ends_the_refusals(
    bench: Bench, record_job: RecordJob, outcome: Outcome, state: str
) -> None:
    job_id = record_job()
    now = read_clock(bench.connection)
    record(bench, job_id, UNKNOWN, now, claim(bench, job_id))
    record(bench, job_id, outcome, now + 9 * MINUTES, claim(bench, job_id))
    job = bench.job(job_id)
    assert (job["state"], job["first_handed_back_at"], job["attempt"]) == (state, None, 1)
    attempts = bench.rows("SELECT outcome FROM opsjobs.attempts ORDER BY dispatch_no")
    assert [row["outcome"] for row in attempts] == ["not_run", outcome.kind]


def test_a_rescue_ends_the_refusals_and_counts_its_attempt(
    bench: Bench, record_job: RecordJob
) -> None:
    job_id = record_job()
    now = read_clock(bench.connection)
    record(bench, job_id, UNKNOWN, now, claim(bench, job_id))
    claim(bench, job_id)
    later = read_clock(bench.connection)
    endings.rescue(bench.connection, [bench.worker_id], later, "gone")
    job = bench.job(job_id)
    assert (job["state"], job["first_handed_back_at"], job["attempt"]) == ("available", None, 1)


def test_a_retry_gives_it_another_ten_minutes(bench: Bench, record_job: RecordJob) -> None:
    job_id = record_job()
    now = read_clock(bench.connection)
    record(bench, job_id, UNKNOWN, now - 11 * MINUTES, claim(bench, job_id))
    record(bench, job_id, UNKNOWN, now, claim(bench, job_id))
    assert bench.job(job_id)["state"] == "failed"
    Operator(bench.host).retry(job_id, actor="anna", reason="the new code is deployed")
    assert bench.job(job_id)["first_handed_back_at"] is None
    later = now + MINUTES
    record(bench, job_id, UNKNOWN, later, claim(bench, job_id))
    job = bench.job(job_id)
    assert (job["state"], job["first_handed_back_at"]) == ("scheduled", later)
    attempts = bench.rows("SELECT dispatch_no FROM opsjobs.attempts ORDER BY dispatch_no")
    assert [row["dispatch_no"] for row in attempts] == [1, 2, 3], "what led to the end stays"


def test_a_wish_to_cancel_ends_it(bench: Bench, record_job: RecordJob) -> None:
    job_id = record_job()
    number = claim(bench, job_id)
    Operator(bench.host).cancel(job_id, actor="anna", reason="it is a test")
    (ended,) = record(bench, job_id, UNKNOWN, read_clock(bench.connection), number)
    assert (ended.state, bench.job(job_id)["ended_reason"]) == ("canceled", "it is a test")


def test_a_refusal_under_an_old_number_changes_nothing(bench: Bench, record_job: RecordJob) -> None:
    job_id = record_job()
    now = read_clock(bench.connection)
    old = claim(bench, job_id)
    record(bench, job_id, UNKNOWN, now, old)
    claim(bench, job_id)
    before = bench.job(job_id)
    assert record(bench, job_id, UNKNOWN, now + 9 * MINUTES, old) == []
    assert bench.job(job_id) == before


def test_a_claim_that_a_crash_forgot_is_handed_back_without_an_attempt(
    bench: Bench, record_job: RecordJob
) -> None:
    job_id = record_job()
    bench.dispatch()
    record(bench, job_id, UNKNOWN, read_clock(bench.connection), 1)
    job = bench.job(job_id)
    assert (job["state"], job["attempt"]) == ("scheduled", 0)


def test_a_unique_call_stays_single_while_it_is_handed_back(
    bench: Bench, opsjobs: OpsJobs, db: SQLAlchemy
) -> None:
    task = opsjobs.task(unique=Unique(until="ended"), name="once")(lambda: None)
    job_id = task.enqueue().id
    db.session.commit()
    record(bench, job_id, UNKNOWN, read_clock(bench.connection), claim(bench, job_id))
    again = task.enqueue()
    assert (again.id, again.state, again.conflict) == (job_id, "scheduled", True)


def test_a_refusal_and_a_rescue_at_once_move_it_once(
    make_bench: MakeBench, record_job: RecordJob
) -> None:
    one, two = make_bench(), make_bench()
    for _ in range(15):
        job_id = record_job()
        number = claim(one, job_id)
        now = read_clock(one.connection)
        refused, rescued = race(
            partial(record, one, job_id, UNKNOWN, now, number),
            lambda: endings.rescue(
                two.connection, [one.worker_id], read_clock(two.connection), "gone"
            ),
        )
        assert len(refused) + len(rescued) == 1
        job = one.job(job_id)
        expected = ("scheduled", 0) if refused else ("available", 1)
        assert (job["state"], job["attempt"]) == expected
        endings.cancel(one.connection, [job_id], now, "the next one")

"""Recording outcomes: each kind leads where the lifecycle says,
in one transaction, whatever runs beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import psycopg
import pytest

from flask_opsjobs import endings
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.endings import EndedAttempt
from flask_opsjobs.jobs.failure_key import key_of_end
from flask_opsjobs.jobs.perform.outcomes import Outcome
from tests.conftest import MakeBench
from tests.support.engine import Bench, race

RecordJob = Callable[..., int]


def start(bench: Bench, record_job: RecordJob, **options: object) -> int:
    job_id = record_job(**options)
    bench.dispatch(prefetch=100_000)
    bench.claim(job_id)
    return job_id


@pytest.mark.parametrize(
    ("outcome", "max_attempts", "state", "ended_by"),
    [
        (Outcome(kind="returned"), 1, "finished", "returned"),
        (Outcome(kind="raised", error="Boom"), 2, "retryable", None),
        (Outcome(kind="raised", error="Boom"), 1, "failed", "exhausted"),
        (Outcome(kind="timed_out", error="too long"), 2, "retryable", None),
        (Outcome(kind="died", error="killed"), 1, "failed", "exhausted"),
        (Outcome(kind="retry_in", delay_seconds=60), 2, "retryable", None),
        (Outcome(kind="snoozed", delay_seconds=60), 1, "scheduled", None),
        (Outcome(kind="canceled", reason="no need"), 2, "canceled", "canceled"),
        (Outcome(kind="discarded", reason="hopeless"), 2, "failed", "discarded"),
        (Outcome(kind="not_run", ended_by="deadline"), 9, "failed", "deadline"),
        (Outcome(kind="not_run", ended_by="invalid_args"), 1, "scheduled", None),
        (Outcome(kind="not_run", ended_by="unknown_task"), 1, "scheduled", None),
    ],
)
def test_each_outcome_leads_to_its_state(
    bench: Bench,
    record_job: RecordJob,
    outcome: Outcome,
    max_attempts: int,
    state: str,
    ended_by: str | None,
) -> None:
    job_id = start(bench, record_job, max_attempts=max_attempts)
    (ended,) = bench.record(job_id, 1, outcome)
    job, attempt = bench.job(job_id), bench.attempt(job_id)
    assert (ended.state, job["state"], job["ended_by"]) == (state, state, ended_by)
    assert (attempt["outcome"], attempt["ended_at"] is not None) == (outcome.kind, True)
    assert job["worker_id"] is None


def test_the_delay_says_when_it_is_due_again(bench: Bench, record_job: RecordJob) -> None:
    job_id = start(bench, record_job, max_attempts=2)
    bench.record(job_id, 1, Outcome(kind="raised", error="Boom", delay_seconds=90))
    job, attempt = bench.job(job_id), bench.attempt(job_id)
    assert (job["due_at"] - attempt["ended_at"]).total_seconds() == 90


def test_a_snooze_costs_no_attempt(bench: Bench, record_job: RecordJob) -> None:
    job_id = start(bench, record_job, max_attempts=3)
    bench.record(job_id, 1, Outcome(kind="snoozed", delay_seconds=5))
    job = bench.job(job_id)
    assert (job["attempt"], job["max_attempts"]) == (1, 4)


def test_a_job_that_shall_be_canceled_is_not_tried_again(
    bench: Bench, record_job: RecordJob
) -> None:
    job_id = start(bench, record_job, max_attempts=3)
    bench.connection.execute(
        "UPDATE opsjobs.jobs SET cancel_requested_at = clock_timestamp(),"
        " cancel_requested_by = 'anna', cancel_reason = 'it is wrong'"
    )
    (ended,) = bench.record(job_id, 1, Outcome(kind="raised", error="Boom"))
    assert ended.state == "canceled"


def test_what_it_returned_before_the_cancel_arrived_counts(
    bench: Bench, record_job: RecordJob
) -> None:
    job_id = start(bench, record_job)
    bench.connection.execute(
        "UPDATE opsjobs.jobs SET cancel_requested_at = clock_timestamp(),"
        " cancel_requested_by = 'anna', cancel_reason = 'it is wrong'"
    )
    (ended,) = bench.record(job_id, 1, Outcome(kind="returned"))
    assert ended.state == "finished"


def test_the_output_is_kept_as_json(bench: Bench, record_job: RecordJob) -> None:
    job_id = start(bench, record_job)
    value = {"total": 3, "name": "Ümläut 🎈", "nothing": None}
    bench.record(job_id, 1, Outcome(kind="returned", output=json.dumps(value), output_bytes=40))
    assert bench.row(
        "SELECT value, size_bytes, omitted FROM opsjobs.outputs WHERE job_id = %s", job_id
    ) == {
        "value": value,
        "size_bytes": 40,
        "omitted": None,
    }


def test_crossing_flushes_do_not_deadlock(make_bench: MakeBench, record_job: RecordJob) -> None:
    """Pitfall: two flushes that lock in arrival order deadlock."""
    one, two = make_bench(), make_bench()
    jobs = [start(one, record_job) for _ in range(60)]

    def flush(bench: Bench, ids: list[int]) -> list[endings.MovedJob]:
        batch = [
            EndedAttempt(job_id, 1, bench.worker_id, bench.name, Outcome(kind="returned"))
            for job_id in ids
        ]
        return endings.write_outcomes(bench.connection, batch, read_clock(bench.connection))

    answers = race(lambda: flush(one, jobs), lambda: flush(two, jobs[::-1]))
    assert sorted(len(answer) for answer in answers) == [0, 60]


def test_one_bad_outcome_writes_nothing_of_its_flush(bench: Bench, record_job: RecordJob) -> None:
    """Pitfall: one NUL byte rolls back its neighbours. The recorder then repeats them one by one."""
    good, bad = start(bench, record_job), start(bench, record_job)
    batch = [
        EndedAttempt(good, 1, bench.worker_id, bench.name, Outcome(kind="returned")),
        EndedAttempt(bad, 1, bench.worker_id, bench.name, Outcome(kind="raised", error="a\x00b")),
    ]
    with pytest.raises(psycopg.Error):
        endings.write_outcomes(bench.connection, batch, read_clock(bench.connection))
    assert {bench.job(good)["state"], bench.job(bad)["state"]} == {"started"}


def test_a_rescue_counts_as_a_failure_and_ends_at_the_limit(
    bench: Bench, record_job: RecordJob
) -> None:
    again, last = start(bench, record_job, max_attempts=2), start(bench, record_job, max_attempts=1)
    endings.rescue(
        bench.connection, [bench.worker_id], read_clock(bench.connection), "worker vanished"
    )
    assert (bench.job(again)["state"], bench.job(again)["attempt"]) == ("available", 1)
    assert (bench.job(last)["state"], bench.job(last)["ended_by"]) == ("failed", "exhausted")
    assert bench.attempt(last)["cause_of_death"] == "worker vanished"


def test_a_rescue_keeps_what_is_held_and_what_was_claimed_since(
    bench: Bench, record_job: RecordJob
) -> None:
    held, before = start(bench, record_job), start(bench, record_job)
    moment = read_clock(bench.connection)
    since = start(bench, record_job)
    rescued = endings.rescue(
        bench.connection,
        [bench.worker_id],
        read_clock(bench.connection),
        "gone",
        exclude=[f"{held}-1"],
        claimed_before=moment,
    )
    assert [job.id for job in rescued] == [before]
    assert bench.job(since)["state"] == "started"


def test_three_refusals_end_a_job(bench: Bench, record_job: RecordJob) -> None:
    job_id = record_job()
    states = []
    for number in (1, 2, 3):
        bench.dispatch()
        endings.count_failed_deliveries(
            bench.connection, [(job_id, number)], read_clock(bench.connection)
        )
        states.append(bench.job(job_id)["state"])
    assert states == ["available", "available", "failed"]
    assert bench.job(job_id)["ended_by"] == "undeliverable"


def test_a_failed_attempt_keeps_its_key_and_its_death(bench: Bench, record_job: RecordJob) -> None:
    job_id = start(bench, record_job, max_attempts=2)
    key, facts = key_of_end("note", "died", "signal"), {"signal": "SIGKILL", "peak_kb": 700}
    died = Outcome("died", "killed", death="signal", death_facts=facts, failure_key=key)
    bench.record(job_id, 1, died)
    attempt = bench.attempt(job_id)
    assert attempt["failure_key"] == bytes.fromhex(key)
    assert (attempt["death"], attempt["death_facts"]) == ("signal", facts)
    assert (attempt["is_counted"], attempt["deploy_id"]) == (False, None)


def test_an_attempt_that_did_not_fail_has_no_key(bench: Bench, record_job: RecordJob) -> None:
    job_id = start(bench, record_job, max_attempts=2)
    bench.record(job_id, 1, Outcome("snoozed", reason="busy"))
    attempt = bench.attempt(job_id)
    assert (attempt["failure_key"], attempt["death"], attempt["death_facts"]) == (None, None, None)


@pytest.mark.parametrize(
    ("cause", "death"),
    [
        ("no heartbeat for 120 s", "vanished"),
        (endings.NOT_RUN_BY_WORKER, "unknown"),
        (endings.WORKER_STOPPED, "stopped"),
    ],
)
def test_a_rescue_makes_the_same_key_as_python(
    bench: Bench, record_job: RecordJob, cause: str, death: str
) -> None:
    job_id = start(bench, record_job)
    endings.rescue(bench.connection, [bench.worker_id], read_clock(bench.connection), cause)
    (task,) = bench.rows("SELECT task FROM opsjobs.jobs WHERE id = %s", job_id)
    attempt = bench.attempt(job_id)
    assert (attempt["outcome"], attempt["death"]) == ("lost", death)
    assert attempt["failure_key"].hex() == key_of_end(task["task"], "lost", death)

"""The last look before a function is called: an old claim is made again, or the function is not called."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import create_engine

from flask_opsjobs import endings
from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.core.steady_clock import steady_seconds
from flask_opsjobs.engine.worker.claim import Confirm
from flask_opsjobs.jobs.perform.current import Claimed
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.jobs.perform.perform import perform
from flask_opsjobs.jobs.record.declaration import TaskDeclaration
from tests.conftest import MakeBench
from tests.support.engine import Bench, race
from tests.support.jobs import Notebook
from tests.support.waiting import wait_until

RecordJob = Callable[..., int]


def start(bench: Bench, job_id: int) -> Claimed:
    bench.dispatch(prefetch=1000)
    claimed = bench.claim(job_id)
    assert isinstance(claimed, Claimed)
    return claimed


def confirm(bench: Bench, claimed: Claimed, late_by: float, **changes: Any) -> Confirm:
    """What the worker of `bench` asks when so many times `OPSJOBS_LATE_SECONDS` passed after its claim."""
    late = bench.host.settings.late_seconds * late_by
    host = replace(bench.host, **changes)
    return Confirm(
        host, claimed, bench.worker_id, bench.name, seconds=lambda: claimed.asked_at + late
    )


def rescue(bench: Bench) -> list[endings.MovedJob]:
    now = read_clock(bench.connection)
    return endings.rescue(bench.connection, [bench.worker_id], now, "vanished")


def test_the_clock_is_one_that_a_suspended_machine_does_not_stop() -> None:
    assert abs(steady_seconds() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 5


def test_a_young_claim_is_not_asked_again(bench: Bench, record_job: RecordJob) -> None:
    claimed = start(bench, record_job())
    # No Postgres answers there.
    nowhere = create_engine("postgresql+psycopg://127.0.0.1:1/none")
    assert confirm(bench, claimed, 0.49, engine=nowhere)() is claimed


def test_an_old_claim_that_is_still_ours_is_young_again(
    bench: Bench, record_job: RecordJob
) -> None:
    job_id = record_job()
    claimed = start(bench, job_id)
    again = confirm(bench, claimed, 0.51)()
    assert isinstance(again, Claimed)
    assert (again.attempt, again.dispatch_no) == (1, 1)
    assert again.claimed_at > claimed.claimed_at
    assert bench.job(job_id)["state"] == "started"
    assert len(bench.rows("SELECT 1 FROM opsjobs.attempts")) == 1


def test_an_old_claim_of_a_rescued_job_is_lost(bench: Bench, record_job: RecordJob) -> None:
    job_id = record_job()
    claimed = start(bench, job_id)
    rescue(bench)
    for _ in range(2):  # It waits; then another worker has run it to its end.
        outcome = confirm(bench, claimed, 0.51)()
        assert isinstance(outcome, Outcome)
        assert outcome.kind == "lost"
        assert bench.record(job_id, 1, outcome) == []
        if bench.job(job_id)["state"] == "available":
            bench.dispatch()
            bench.claim(job_id, 2)
            bench.record(job_id, 2, Outcome(kind="returned"))
    assert bench.job(job_id)["state"] == "finished"


def test_a_claim_that_a_crash_of_postgres_forgot_is_made_again(
    bench: Bench, record_job: RecordJob
) -> None:
    job_id = record_job()
    bench.dispatch()
    bench.connection.execute("BEGIN")
    claimed = bench.claim(job_id)
    bench.connection.execute("ROLLBACK")
    assert isinstance(claimed, Claimed)
    assert isinstance(confirm(bench, claimed, 0.51)(), Claimed)
    assert (bench.job(job_id)["state"], bench.job(job_id)["attempt"]) == ("started", 1)


def test_when_postgres_cannot_be_asked_the_job_goes_back_and_the_attempt_does_not_count(
    bench: Bench, record_job: RecordJob
) -> None:
    job_id = record_job(max_attempts=1)
    claimed = start(bench, job_id)
    nowhere = create_engine("postgresql+psycopg://127.0.0.1:1/none")
    outcome = confirm(bench, claimed, 0.51, engine=nowhere)()
    assert isinstance(outcome, Outcome)
    bench.record(job_id, 1, outcome)
    job = bench.job(job_id)
    assert (job["state"], job["max_attempts"] - job["attempt"]) == ("scheduled", 1)
    assert "Postgres could not be asked again (OperationalError)" in job["error"]


def test_rescue_races_the_last_look(make_bench: MakeBench, record_job: RecordJob) -> None:
    """Whoever comes first decides: the function is called, or the job is rescued;
    never both, never neither.
    """
    one, two = make_bench(), make_bench()
    for _ in range(20):
        job_id = record_job()
        claimed = start(one, job_id)
        now = read_clock(two.connection)
        confirmed, rescued = race(
            confirm(one, claimed, 0.51),
            lambda now=now: endings.rescue(two.connection, [one.worker_id], now, "vanished"),
        )
        assert isinstance(confirmed, Claimed) != bool(rescued)
        state = "started" if isinstance(confirmed, Claimed) else "available"
        assert one.job(job_id)["state"] == state
        one.record(job_id, 1, Outcome(kind="returned"))


# --- in `perform`


def make_task(called: list[str], on_start: Callable[[Any], Any] | None = None) -> TaskDeclaration:
    def note(text: str = "") -> None:
        called.append("function")

    return TaskDeclaration(note, name="note", on_start=on_start)


def test_neither_hook_nor_function_is_called_for_a_job_that_was_rescued(
    bench: Bench, record_job: RecordJob
) -> None:
    claimed = start(bench, record_job())
    rescue(bench)
    called: list[str] = []
    task = make_task(called, lambda job: called.append("on_start"))
    outcome = perform({"note": task}, claimed, Notebook(), confirm(bench, claimed, 0.51))
    assert (outcome.kind, called) == ("lost", [])


def test_a_job_that_is_rescued_while_its_hook_runs_is_not_called(
    bench: Bench, record_job: RecordJob
) -> None:
    claimed = start(bench, record_job())
    moments = iter([0, 1000])  # the hook takes its time
    ask = Confirm(
        bench.host,
        claimed,
        bench.worker_id,
        bench.name,
        seconds=lambda: claimed.asked_at + next(moments),
    )
    called: list[str] = []
    task = make_task(called, lambda job: rescue(bench))
    outcome = perform({"note": task}, claimed, Notebook(), ask)
    assert (outcome.kind, called) == ("lost", [])


@pytest.mark.parametrize("late_by", [0.49, 0.51])
def test_a_deadline_that_passed_in_a_freeze_ends_the_job(
    bench: Bench, record_job: RecordJob, late_by: float
) -> None:
    job_id = record_job(deadline=timedelta(hours=1))
    claimed = start(bench, job_id)
    bench.connection.execute(
        "UPDATE opsjobs.jobs SET deadline_at = clock_timestamp() - interval '1 s'"
    )
    called: list[str] = []
    tasks = {"note": make_task(called)}
    outcome = perform(tasks, claimed, Notebook(), confirm(bench, claimed, late_by))
    bench.record(job_id, 1, outcome)
    job = bench.job(job_id)
    if late_by > 0.5:
        assert (job["state"], job["ended_by"], called) == ("failed", "deadline", [])
    else:
        assert (job["state"], called) == ("finished", ["function"])


@pytest.mark.sessions
def test_a_last_look_leaves_no_connection_behind(bench: Bench, record_job: RecordJob) -> None:
    claimed = start(bench, record_job())
    sessions = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid()"
    )
    with connect_apart(bench.host.engine) as other:
        before = other.execute(sessions).fetchone()
        confirm(bench, claimed, 0.51)()
        # Postgres ends a session a moment after its client has left.
        wait_until(lambda: other.execute(sessions).fetchone() == before, 10)

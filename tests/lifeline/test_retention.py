"""Retention: what is old enough goes, oldest first and in bounded batches;
what still guards or waits stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from flask_opsjobs import OpsJobs, Unique
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.lifeline import loop_runs, retention
from flask_opsjobs.loops import cron
from flask_opsjobs.loops.loop import Runner
from flask_opsjobs.settings import Settings
from flask_opsjobs.workers import transitions as workers
from tests.conftest import MakeBench
from tests.lifeline.conftest import StartJob
from tests.support.engine import Bench, race

EndJob = Callable[..., int]


@pytest.fixture
def now(bench: Bench) -> datetime:
    return read_clock(bench.connection)


@pytest.fixture
def settings(bench: Bench) -> Settings:
    return replace(
        bench.host.settings,
        keep_finished_days=2,
        keep_canceled_days=3,
        keep_failed_days=4,
        keep_output_days=1,
    )


@pytest.fixture
def end_job(bench: Bench, start_job: StartJob, now: datetime) -> EndJob:
    """A job that ended so many days ago, by the real arrow; then its times are moved."""

    def end(kind: str, days: float, **options: Any) -> int:
        job_id = start_job(bench, max_attempts=1, **options)
        has_output = kind == "returned"
        bench.record(job_id, 1, Outcome(kind, output="1" if has_output else None, output_bytes=1))
        ended = now - timedelta(days=days)
        bench.rows("UPDATE opsjobs.jobs SET ended_at = %s WHERE id = %s RETURNING 1", ended, job_id)
        bench.rows(
            "UPDATE opsjobs.outputs SET created_at = %s WHERE job_id = %s RETURNING 1",
            ended,
            job_id,
        )
        return job_id

    return end


def left(bench: Bench, table: str = "jobs", column: str = "id") -> set[Any]:
    return {row[column] for row in bench.rows(f"SELECT {column} FROM opsjobs.{table}")}


def test_an_adopted_job_goes_with_what_is_known_of_it(
    bench: Bench, settings: Settings, now: datetime
) -> None:
    """A job whose end nobody saw is kept as long as a failed one."""
    old, new = (
        bench.row(
            """INSERT INTO opsjobs.jobs (origin, rq_place, rq_id, task, queue, lane, state, args,
                   max_attempts, created_at, due_at, ended_at, ended_by)
               VALUES ('rq', 'default', %s, 'app.send', 'mail', 'mail', 'unknown', '{}', 1, %s, %s, %s,
                   'unseen') RETURNING id""",
            *(f"days-{days}", *3 * [now - timedelta(days=days)]),
        )["id"]
        for days in (4.01, 3.99)
    )
    for id in (old, new):
        bench.rows(
            """INSERT INTO opsjobs.rq_facts (job_id, created_source, changed_at)
               VALUES (%s, 'rq', now()) RETURNING 1""",
            id,
        )
        bench.rows("INSERT INTO opsjobs.rq_views (job_id) VALUES (%s) RETURNING 1", id)
    assert retention.count_retainable(bench.connection, settings, now)["unknown jobs"] == 1
    assert retention.retain(bench.connection, settings, now)["unknown jobs"] == 1
    assert left(bench) == {new}
    assert left(bench, "rq_facts", "job_id") == left(bench, "rq_views", "job_id") == {new}


def test_a_redis_that_nobody_asks_any_more_is_forgotten(
    bench: Bench, settings: Settings, now: datetime
) -> None:
    old, new = now - timedelta(days=31), now - timedelta(days=29)
    for name, looked_at, seen_at in (
        ("old", old, old),
        ("not adopted from any more", old, new),
        ("never adopted from, old", None, old),
        ("never adopted from", None, new),
        ("default", new, None),
    ):
        bench.rows(
            "INSERT INTO opsjobs.rq_places (name, looked_at, seen_at) VALUES (%s, %s, %s) RETURNING 1",
            name,
            looked_at,
            seen_at,
        )
    assert retention.count_retainable(bench.connection, settings, now)["rq_places"] == 2
    assert retention.retain(bench.connection, settings, now)["rq_places"] == 2
    kept = {"default", "never adopted from", "not adopted from any more"}
    assert left(bench, "rq_places", "name") == kept


def test_each_state_is_kept_for_its_own_days(
    bench: Bench, end_job: EndJob, start_job: StartJob, settings: Settings, now: datetime
) -> None:
    kinds = {"returned": 2, "canceled": 3, "discarded": 4}
    kept = {end_job(kind, days - 0.01) for kind, days in kinds.items()}
    gone = {end_job(kind, days + 0.01) for kind, days in kinds.items()}
    running = start_job(bench)
    removed = retention.retain(bench.connection, settings, now)
    assert {what: number for what, number in removed.items() if number} == {
        "outputs": 2,
        "finished jobs": 1,
        "failed jobs": 1,
        "canceled jobs": 1,
    }
    assert left(bench) == {*kept, running}
    assert left(bench, "attempts", "job_id") == {*kept, running}
    assert gone.isdisjoint(left(bench))


def test_outputs_go_before_their_jobs(
    bench: Bench, end_job: EndJob, settings: Settings, now: datetime
) -> None:
    old, new = end_job("returned", 1.5), end_job("returned", 0.5)
    assert retention.retain(bench.connection, settings, now)["outputs"] == 1
    assert left(bench) == {old, new}
    assert left(bench, "outputs", "job_id") == {new}


def test_a_unique_lock_that_still_holds_outlives_its_job(
    bench: Bench, opsjobs: OpsJobs, end_job: EndJob, db: Any, settings: Settings, now: datetime
) -> None:
    def forever(text: str = "") -> None:
        """Unique for ever."""

    def within(text: str = "") -> None:
        """Unique within ten days."""

    tasks = [
        opsjobs.task(unique=Unique(until="forever"))(forever),
        opsjobs.task(unique=Unique(within=timedelta(days=10)))(within),
    ]
    ids = [end_job("returned", 5, task=task) for task in tasks]
    assert retention.retain(bench.connection, settings, now)["finished jobs"] == 2
    assert left(bench, "unique_locks", "job_id") == set(ids)
    for task, job_id in zip(tasks, ids, strict=True):
        again = task.enqueue(text="")
        assert (again.id, again.conflict) == (job_id, True)
    db.session.rollback()
    after = retention.retain(bench.connection, settings, now + timedelta(days=11))
    assert after["unique_locks"] == 1
    assert left(bench, "unique_locks", "job_id") == {ids[0]}


def test_workers_and_loop_runs(
    make_bench: MakeBench, start_job: StartJob, settings: Settings
) -> None:
    living, stopped, abandoned = (make_bench() for _ in range(3))
    now = read_clock(living.connection)
    start_job(abandoned)
    for bench in (stopped, abandoned):
        workers.stop(bench.connection, bench.worker_id, now)
    note = loop_runs.Note("watch", "p", 10, 0.1, "nothing to do")
    loop_runs.note_pass(living.connection, None, note, now)
    later = now + timedelta(days=7, seconds=1)
    assert retention.retain(living.connection, settings, later)["workers"] == 1
    assert stopped.worker_id not in left(living, "workers")
    assert {living.worker_id, abandoned.worker_id} <= left(living, "workers")
    assert left(living, "loop_runs", "loop") == {"watch"}
    later = now + timedelta(days=30, seconds=1)
    assert retention.retain(living.connection, settings, later)["loop_runs"] == 1


@pytest.mark.parametrize("days", [0, 1.5, 3.5, 40])
def test_the_dry_run_counts_what_is_removed_after_it(
    bench: Bench, end_job: EndJob, settings: Settings, now: datetime, days: float
) -> None:
    for kind in ("returned", "returned", "canceled", "discarded"):
        for age in (0.5, 1.2, 2.5, 3.2, 4.5):
            end_job(kind, age)
    workers.stop(bench.connection, bench.worker_id, now)
    loop_runs.note_pass(bench.connection, None, loop_runs.Note("watch", "p", 10, 0.1, "x"), now)
    later = now + timedelta(days=days)
    counted = retention.count_retainable(bench.connection, settings, later)
    assert retention.count_retainable(bench.connection, settings, later) == counted
    assert retention.retain(bench.connection, settings, later) == counted
    assert sum(retention.count_retainable(bench.connection, settings, later).values()) == 0


def test_a_batch_is_bounded_and_takes_the_oldest(
    bench: Bench, end_job: EndJob, settings: Settings, now: datetime
) -> None:
    jobs = [end_job("canceled", 10 + age) for age in range(7)]
    assert sum(retention.retain(bench.connection, settings, now, limit=3).values()) == 3
    assert left(bench) == set(jobs[:4])
    assert sum(retention.retain(bench.connection, settings, now, limit=3).values()) == 3
    assert sum(retention.retain(bench.connection, settings, now, limit=3).values()) == 1


def test_two_of_them_share_the_work(
    make_bench: MakeBench, end_job: EndJob, settings: Settings, now: datetime
) -> None:
    for _ in range(20):
        end_job("canceled", 10)
    one, two = make_bench(), make_bench()
    answers = race(
        *(
            lambda bench=bench: retention.retain(bench.connection, settings, now)
            for bench in (one, two)
        )
    )
    assert sum(answer["canceled jobs"] for answer in answers) == 20


def test_the_command(
    app: Any, bench: Bench, end_job: EndJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    jobs = {end_job("returned", 100) for _ in range(5)}
    fresh = end_job("returned", 1)
    asked = app.test_cli_runner().invoke(args=["opsjobs", "retain", "--dry-run"])
    assert asked.exit_code == 0, asked.output
    assert "5  finished jobs" in asked.output
    assert "10  would be removed" in asked.output
    assert left(bench) == {*jobs, fresh}
    done = app.test_cli_runner().invoke(args=["opsjobs", "retain"])
    assert done.exit_code == 0, done.output
    assert "5  finished jobs" in done.output
    assert "10  were removed" in done.output
    assert left(bench) == {fresh}


def test_the_command_without_a_schema_says_what_to_run(
    make_app: Any, empty_database_url: str
) -> None:
    app = make_app(SQLALCHEMY_DATABASE_URI=empty_database_url)
    asked = app.test_cli_runner().invoke(args=["opsjobs", "retain"])
    assert asked.exit_code == 2
    assert "flask db upgrade" in asked.output


def test_fates_of_slots_are_kept_for_their_days(
    bench: Bench, opsjobs: OpsJobs, note: Any, settings: Settings, now: datetime
) -> None:
    # None of the passes comes within the minute in which a slot still runs.
    opsjobs.cron(f"0 {(now.hour + 6) % 24} * * *")(note)
    scheduler = Runner(cron.LOOP, bench.host)
    for days in (-12, -10.5, -0.5):
        scheduler.run_once(bench.connection, now + timedelta(days=days))
    assert len(left(bench, "cron_slots")) == 2
    settings = replace(settings, keep_slots_days=2)
    assert retention.count_retainable(bench.connection, settings, now)["cron_slots"] == 1
    assert retention.retain(bench.connection, settings, now)["cron_slots"] == 1
    assert len(left(bench, "cron_slots")) == 1

"""Managed jobs on a plain RQ worker, here a SimpleWorker in the test's own process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from rq import Queue, SimpleWorker

from flask_opsjobs import OpsJobs, current_job
from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.jobs.record.task import Task
from tests.support.engine import Bench

Work = Callable[[Task], int]


@pytest.fixture
def work(db: Any, bench: Bench, redis_client: Redis) -> Work:
    """Enqueues a call, dispatches it and lets a plain worker perform it; the job's id."""

    def work(task: Task) -> int:
        job_id = task.enqueue().id
        db.session.commit()
        assert bench.dispatch() == 1
        queue = Queue(connection=redis_client)
        SimpleWorker([queue], connection=redis_client).work(burst=True, logging_level="CRITICAL")
        return job_id

    return work


def progress_of(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["progress_done"], row["progress_total"], row["progress_note"]


def test_progress_is_seen_while_the_job_runs_and_kept_after_it(
    opsjobs: OpsJobs, bench: Bench, work: Work
) -> None:
    seen = []

    def call() -> None:
        current_job().progress(3, 10, "third")
        seen.append(progress_of(bench.row("SELECT * FROM opsjobs.attempts")))
        current_job().progress(4, 10, "told with the end: a tenth of a second has not passed")

    job_id = work(opsjobs.task(name="call")(call))
    assert seen == [(3, 10, "third")]
    attempt = bench.attempt(job_id)
    assert attempt["outcome"] == "returned"
    assert progress_of(attempt) == (
        4,
        10,
        "told with the end: a tenth of a second has not passed",
    )


def test_a_time_limit_that_comes_while_progress_is_written_is_recorded(
    opsjobs: OpsJobs, bench: Bench, work: Work
) -> None:
    """The limit breaks off the statement, and with it the connection."""
    other = connect_apart(bench.host.engine)

    def call() -> None:
        other.execute("BEGIN")
        other.execute("SELECT FROM opsjobs.attempts FOR UPDATE")
        current_job().progress(1)

    task = opsjobs.task(
        name="call", timeout=1, max_attempts=1, on_failure=lambda job, error: other.close()
    )(call)
    job_id = work(task)
    attempt = bench.attempt(job_id)
    assert (attempt["outcome"], attempt["progress_done"]) == ("timed_out", 1)
    assert bench.job(job_id)["state"] == "failed"


@pytest.mark.sessions
def test_a_connection_that_breaks_while_the_job_runs_does_not_cost_its_end(
    opsjobs: OpsJobs, bench: Bench, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    def call() -> None:
        bench.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query LIKE '%%INSERT INTO opsjobs.attempts%%'"
            " AND pid <> pg_backend_pid()"
        )
        for done in range(3):
            current_job().progress(done)

    job_id = work(opsjobs.task(name="call")(call))
    attempt = bench.attempt(job_id)
    assert (attempt["outcome"], attempt["progress_done"]) == ("returned", 2)
    assert caplog.text.count("Postgres is away") == caplog.text.count("Postgres is back") == 1

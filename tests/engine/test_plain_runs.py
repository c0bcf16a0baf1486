"""Our worker records plain RQ jobs whole: each run with its times, end, lines and cause of death."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from redis import Redis
from rq import Queue, Repeat, Retry, SimpleWorker
from rq.job import Job as RQJob
from rq.job import JobStatus
from sqlalchemy import NullPool, create_engine, text

from flask_opsjobs.engine.adopted.ask_rq import RqJobName, ask_rq
from flask_opsjobs.engine.worker.plain_runs import PlainRunRecord, PlainRuns
from flask_opsjobs.testing.postgres import TemporaryPostgres
from flask_opsjobs.testing.valkey import Valkey
from tests.conftest import MakeBench
from tests.support import host as host_module
from tests.support.plain import (
    die_plain,
    fail_plain,
    hold_plain,
    log_plain,
    outlast_plain,
    retry_plain,
    take_plain,
)
from tests.support.processes import Children, is_alive
from tests.support.waiting import wait_until

Run = Callable[..., None]


@pytest.fixture
def queue(redis_client: Redis) -> Queue:
    return Queue("default", connection=redis_client)


@pytest.fixture
def work(site: Flask, children: Children) -> Run:
    """Lets a worker of ours perform everything that is queued, and end."""

    def work(*options: str) -> None:
        worker = children.flask("opsjobs", "worker", "--burst", *options)
        assert worker.wait(60) == 0

    return work


def rows(statement: str, **values: Any) -> list[dict[str, Any]]:
    found = host_module.db.session.execute(text(statement), values).mappings().all()
    host_module.db.session.rollback()
    return [dict(row) for row in found]


class Gone:
    """Its class is not found where the job runs."""


def row_of(job: RQJob) -> dict[str, Any]:
    (row,) = rows(
        """SELECT j.*, f.started_source, f.ended_source, v.arguments FROM opsjobs.jobs j
           JOIN opsjobs.rq_facts f ON f.job_id = j.id LEFT JOIN opsjobs.rq_views v ON v.job_id = j.id
           WHERE rq_id = :id""",
        id=job.id,
    )
    return row


def runs_of(job: RQJob) -> list[dict[str, Any]]:
    return rows(
        """SELECT a.* FROM opsjobs.attempts a JOIN opsjobs.jobs j ON j.id = a.job_id
           WHERE j.rq_id = :id ORDER BY a.dispatch_no""",
        id=job.id,
    )


@pytest.mark.parametrize("kind", ["kept", "fresh"])
def test_a_run_that_returns_is_recorded(queue: Queue, work: Run, kind: str) -> None:
    job = queue.enqueue(log_plain, "two words")
    work(*(["--jobs-per-process", "1"] if kind == "fresh" else []))
    row, (run,) = row_of(job), runs_of(job)
    assert (row["origin"], row["rq_place"], row["task"]) == (
        "rq",
        "default",
        "tests.support.plain.log_plain",
    )
    assert (row["state"], row["ended_by"], row["rq_status"]) == (
        "finished",
        "returned",
        "finished",
    )
    assert (row["started_source"], row["ended_source"]) == ("worker", "worker")
    assert row["rq_created_at"] == job.created_at
    assert (run["outcome"], run["attempt"], run["dispatch_no"]) == ("returned", 1, 1)
    assert "WARNING tests.support.plain: two words" in run["log_tail"]
    assert "rq.worker" not in run["log_tail"]
    assert job.created_at <= run["started_at"] <= run["ended_at"] == row["ended_at"]
    (result,) = job.results()
    assert run["execution_id"] == result.execution_id
    (worker,) = rows("SELECT id, name FROM opsjobs.workers")
    assert (run["worker_id"], run["worker"]) == (worker["id"], worker["name"])


def test_a_run_that_raises_is_recorded(queue: Queue, work: Run) -> None:
    job = queue.enqueue(fail_plain, "no paper")
    work()
    row, (run,) = row_of(job), runs_of(job)
    assert (row["state"], row["ended_by"], row["error"]) == (
        "failed",
        "exhausted",
        "RuntimeError: no paper",
    )
    assert (run["outcome"], run["error"]) == ("raised", "RuntimeError: no paper")
    assert "in fail_plain" in run["traceback"]
    assert len(run["failure_key"]) == 16


def test_a_child_that_dies_is_recorded_with_its_cause(queue: Queue, work: Run) -> None:
    job = queue.enqueue(die_plain)
    work()
    row, (run,) = row_of(job), runs_of(job)
    assert (row["state"], row["rq_status"]) == ("failed", "failed")
    assert (run["outcome"], run["death"]) == ("died", "signal")
    assert run["death_facts"]["signal"] == "SIGKILL"
    assert run["cause_of_death"] == "killed by SIGKILL"
    assert "WARNING tests.support.plain: about to die" in run["log_tail"]
    (result,) = job.results()
    assert run["execution_id"] == result.execution_id


def test_a_time_limit_is_recorded(queue: Queue, work: Run) -> None:
    job = queue.enqueue(outlast_plain, job_timeout=1)
    work()
    (run,) = runs_of(job)
    assert (run["outcome"], run["death"]) == ("timed_out", "timed_out")
    assert run["death_facts"] == {"limit_seconds": 1}
    assert row_of(job)["timeout_seconds"] == 1


def test_a_stop_by_rqs_command_is_recorded(
    site: Flask, children: Children, queue: Queue, tmp_path: Path
) -> None:
    worker = children.flask("opsjobs", "worker")
    gate = tmp_path / "gate"
    job = queue.enqueue(hold_plain, str(gate))
    wait_until(Path(f"{gate}.begun").exists, 30)
    ask_rq(queue.connection, "cancel", RqJobName(job.id, job.created_at))
    wait_until(lambda: rows("SELECT 1 FROM opsjobs.attempts"), 30)
    row, (run,) = row_of(job), runs_of(job)
    assert (row["state"], row["ended_by"], row["rq_status"]) == ("canceled", "canceled", "stopped")
    assert (run["outcome"], run["death"]) == ("canceled", "stopped")
    assert run["death_facts"]["by"] == "stopped by a command of RQ"
    assert worker.terminate() == 0


def test_each_run_of_a_retried_job_is_an_attempt(queue: Queue, work: Run) -> None:
    job = queue.enqueue(fail_plain, retry=Retry(max=2))
    work()
    assert [run["outcome"] for run in runs_of(job)] == ["raised"] * 3
    assert [run["attempt"] for run in runs_of(job)] == [1, 2, 3]
    row = row_of(job)
    assert (row["state"], row["attempt"], row["max_attempts"]) == ("failed", 3, 3)


def test_a_retry_that_waits_leaves_the_job_retryable(queue: Queue, work: Run) -> None:
    job = queue.enqueue(fail_plain, retry=Retry(max=1, interval=3600))
    work()
    row = row_of(job)
    assert (row["state"], row["rq_status"], row["ended_at"]) == ("retryable", "scheduled", None)


def test_a_retry_that_is_queued_again_leaves_the_job_queued(queue: Queue, work: Run) -> None:
    """RQ stamps its place in the queue after the run has ended."""
    job = queue.enqueue(fail_plain, retry=Retry(max=1))
    work("--max-jobs", "1")
    row, (run,) = row_of(job), runs_of(job)
    assert (row["state"], row["rq_status"], row["ended_at"]) == ("queued", "queued", None)
    assert row["dispatched_at"] < run["started_at"], "when it was queued for this run"


def test_a_job_that_asks_for_a_retry_too_often_has_failed(queue: Queue, work: Run) -> None:
    job = queue.enqueue(retry_plain, 0)
    work()
    first, last = runs_of(job)
    assert (first["outcome"], last["outcome"], row_of(job)["state"]) == (
        "retry_in",
        "raised",
        "failed",
    )
    assert last["error"] == "it returned an rq.Retry more often than that allows"


def test_each_death_of_a_retried_job_is_an_attempt(queue: Queue, work: Run) -> None:
    job = queue.enqueue(die_plain, retry=Retry(max=1))
    work()
    assert [(run["attempt"], run["outcome"], run["death"]) for run in runs_of(job)] == [
        (1, "died", "signal"),
        (2, "died", "signal"),
    ]
    assert row_of(job)["state"] == "failed"


def test_a_returned_retry_and_a_repeat_are_told_apart(queue: Queue, work: Run) -> None:
    asks = queue.enqueue(retry_plain)
    repeats = queue.enqueue(take_plain, repeat=Repeat(times=1, interval=3600))
    work()
    assert ([run["outcome"] for run in runs_of(asks)], row_of(asks)["state"]) == (
        ["retry_in"],
        "retryable",
    )
    assert ([run["outcome"] for run in runs_of(repeats)], row_of(repeats)["state"]) == (
        ["returned"],
        "scheduled",
    )


def test_a_job_that_rq_deletes_at_once_keeps_its_arguments(queue: Queue, work: Run) -> None:
    job = queue.enqueue(take_plain, 1, result_ttl=0, password="s3cr3t")
    work()
    assert not queue.connection.exists(job.key)
    row = row_of(job)
    assert row["state"] == "finished"
    assert row["arguments"] == '{"*args": [1], "password": "s3cr3t"}'


def test_a_time_that_rq_did_not_note_has_no_source(queue: Queue, work: Run) -> None:
    """Somebody pushed the job past RQ's `enqueue`, so RQ has no time of its enqueue."""
    job = queue.create_job(take_plain)
    job.save()
    queue.push_job_id(job.id)
    work()
    (row,) = rows(
        """SELECT j.state, j.dispatched_at, f.dispatched_source FROM opsjobs.jobs j
           JOIN opsjobs.rq_facts f ON f.job_id = j.id WHERE rq_id = :id""",
        id=job.id,
    )
    assert (row["state"], row["dispatched_at"], row["dispatched_source"]) == (
        "finished",
        None,
        None,
    )


def test_an_id_that_is_used_again_is_another_job(queue: Queue, work: Run) -> None:
    first = queue.enqueue(take_plain, job_id="daily", result_ttl=0)
    work()
    queue.enqueue(take_plain, job_id="daily")
    work()
    found = rows("SELECT rq_id, state FROM opsjobs.jobs ORDER BY id")
    assert found == [{"rq_id": first.id, "state": "finished"}] * 2


def adopt(job: RQJob, state: str, **columns: Any) -> int:
    """A row for a plain job, as the adopting loop makes it; its id."""
    values = {"rq_id": job.id, "rq_created_at": job.created_at, "state": state, **columns}
    names, marks = ", ".join(values), ", ".join(f":{name}" for name in values)
    statement = f"""
        WITH new AS (
            INSERT INTO opsjobs.jobs (origin, rq_place, task, queue, lane, args, max_attempts, created_at,
                due_at, {names})
            VALUES ('rq', 'default', 'f', 'default', 'default', '{{}}', 1, :rq_created_at, :rq_created_at,
                {marks})
            RETURNING id
        )
        INSERT INTO opsjobs.rq_facts (job_id, created_source, changed_at)
        SELECT id, 'rq', :rq_created_at FROM new RETURNING job_id"""
    job_id = host_module.db.session.execute(text(statement), values).scalar_one()
    host_module.db.session.commit()
    return int(job_id)


def test_what_rq_said_later_is_not_written_over(site: Flask, queue: Queue, work: Run) -> None:
    """The record of a run comes late: meanwhile the adopting loop has seen the job queued again."""
    job = queue.enqueue(fail_plain)
    adopt(job, "queued", dispatched_at=datetime.now(UTC) + timedelta(minutes=1))
    work()
    row, (run,) = row_of(job), runs_of(job)
    assert (run["outcome"], run["attempt"]) == ("raised", 1)
    assert (row["state"], row["ended_at"], row["attempt"]) == ("queued", None, 1)


def test_a_run_that_the_adopting_loop_has_seen_is_completed(
    site: Flask, children: Children, queue: Queue, tmp_path: Path
) -> None:
    children.flask("opsjobs", "worker")
    gate = tmp_path / "gate"
    job = queue.enqueue(hold_plain, str(gate))
    wait_until(Path(f"{gate}.begun").exists, 30)
    ((_, execution),) = queue.started_job_registry.get_job_and_execution_ids(cleanup=False)
    job_id = adopt(job, "started", started_at=job.created_at, attempt=7, dispatch_no=7)
    host_module.db.session.execute(
        text(
            """INSERT INTO opsjobs.attempts (job_id, dispatch_no, attempt, worker, started_at, execution_id)
               VALUES (:id, 7, 7, 'seen', now(), :execution)"""
        ),
        {"id": job_id, "execution": execution},
    )
    host_module.db.session.commit()
    gate.touch()
    wait_until(lambda: row_of(job)["state"] == "finished", 30)
    (run,) = runs_of(job)
    assert (run["attempt"], run["outcome"], run["worker"] != "seen") == (7, "returned", True)


def test_nothing_is_recorded_when_adopting_is_off(
    site: Flask, children: Children, queue: Queue
) -> None:
    job = queue.enqueue(take_plain)
    assert children.flask("opsjobs", "worker", "--burst", OPSJOBS_ADOPT=False).wait(60) == 0
    assert job.get_status() is JobStatus.FINISHED
    assert rows("SELECT id FROM opsjobs.jobs") == []


@pytest.mark.parametrize("kind", ["ours", "plain"])
def test_a_plain_job_whose_function_has_become_a_task_runs_as_a_plain_job(
    queue: Queue, work: Run, kind: str
) -> None:
    """It waited in Redis while the host's code got `@opsjobs.task`."""
    job = queue.enqueue("tests.support.host.add", 20, b=22)
    if kind == "ours":
        work()
        assert (row_of(job)["origin"], row_of(job)["state"]) == ("rq", "finished")
    else:
        SimpleWorker([queue], connection=queue.connection).work(burst=True)
    assert job.get_status() is JobStatus.FINISHED
    assert job.latest_result().return_value == 42
    assert rows("SELECT id FROM opsjobs.jobs WHERE origin = 'opsjobs'") == []


def test_a_call_that_cannot_be_read_is_recorded(queue: Queue, work: Run) -> None:
    """Its module is gone, so RQ fails it. It still has a name."""
    job = queue.enqueue(take_plain, Gone())
    data: bytes = job.data
    queue.connection.hset(job.key, "data", data.replace(b"test_plain_runs", b"tests_of_yester"))
    work()
    row, (run,) = row_of(job), runs_of(job)
    assert (row["state"], row["task"]) == ("failed", "tests.support.plain.take_plain")
    assert "DeserializationError" in run["error"]


def test_a_worker_of_another_redis_records_under_its_place(
    site: Flask, children: Children, redis_url: str, own_valkey: Valkey
) -> None:
    """As the adopting loop does: it names the Redis of another queue by its address."""
    with own_valkey.client() as redis:
        job = Queue("reports", connection=redis).enqueue(take_plain)
        config = {
            "OPSJOBS_REDIS_URL": None,
            "RQ_CONNECTION": redis_url,
            "RQ_QUEUES": ["default", "reports"],
            "RQ_QUEUE_CONNECTIONS": {"reports": own_valkey.url},
        }
        env = {f"TEST_CONFIG_{key}": json.dumps(value) for key, value in config.items()}
        assert children.python("-c", WORKER_OF_REPORTS, env=env).wait(60) == 0
        assert job.get_status() is JobStatus.FINISHED
        where = redis.connection_pool.connection_kwargs
    assert row_of(job)["rq_place"] == f"{where['host']}:{where['port']}/{where['db']}"


WORKER_OF_REPORTS = """
import sys
from flask_rq import RQ
from flask_opsjobs.cli.worker import run
from flask_opsjobs.engine.worker.parent import WorkerOptions
from tests.support.host import create_app

app = create_app()
RQ(app)
with app.app_context():
    sys.exit(run(app, ["reports"], WorkerOptions(burst=True)))
"""


# --- kills


def abandon(queue: Queue) -> None:
    """Let RQ see that nobody runs what it calls started: the heartbeats of those runs are long over."""
    redis, key = queue.connection, queue.started_job_registry.key
    runs: Any = redis.zrange(key, 0, -1)
    redis.zadd(key, dict.fromkeys(runs, 1))


@pytest.mark.chaos
def test_a_plain_job_of_a_killed_worker_is_what_rq_makes_of_it(
    site: Flask, children: Children, queue: Queue, tmp_path: Path
) -> None:
    """Nobody is left to record its end. The next worker lets RQ fail it, and the adopting loop sees that."""
    worker = children.flask("opsjobs", "worker")
    gate = tmp_path / "gate"
    job = queue.enqueue(hold_plain, str(gate))
    wait_until(Path(f"{gate}.begun").exists, 30)
    # Another child may be doing RQ's maintenance.
    (running,) = wait_until(lambda: len(found := worker.job_children()) == 1 and found, 30)
    worker.kill()
    wait_until(lambda: not is_alive(running), 30)
    abandon(queue)
    children.flask("opsjobs", "worker")
    wait_until(lambda: job.get_status() is JobStatus.FAILED, 30)
    children.flask("opsjobs", "run")
    (run,) = wait_until(lambda: runs_of(job), 60)
    assert (run["outcome"], run["worker_id"]) == ("died", None)
    row = row_of(job)
    assert (row["state"], row["ended_by"], row["attempt"]) == ("failed", "exhausted", 1)


DIES_IN_ITS_TEARDOWN = """
import os, signal, sys
from flask_opsjobs.cli.worker import run
from flask_opsjobs.engine.worker.parent import WorkerOptions
from tests.support.host import create_app

app = create_app()

@app.teardown_appcontext
def tear_down(_):
    if "RQ_JOB_ID" in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)

with app.app_context():
    sys.exit(run(app, ["default"], WorkerOptions(burst=True)))
"""


@pytest.mark.chaos
def test_a_process_that_dies_after_rq_knows_the_end_changes_nothing(
    site: Flask, children: Children, queue: Queue
) -> None:
    """The job has finished, so its run has not died."""
    job = queue.enqueue(take_plain)
    assert children.python("-c", DIES_IN_ITS_TEARDOWN).wait(60) == 0
    assert job.get_status() is JobStatus.FINISHED
    children.flask("opsjobs", "run")
    (run,) = wait_until(lambda: runs_of(job), 60)
    assert (run["outcome"], run["death"], row_of(job)["state"]) == ("returned", None, "finished")


@pytest.mark.slow
@pytest.mark.chaos
def test_a_run_whose_end_rq_cannot_be_told_is_recorded(
    site: Flask, children: Children, own_valkey: Valkey, tmp_path: Path
) -> None:
    """Redis goes away in the middle of a plain job. RQ calls it started until Redis says otherwise."""
    worker = children.flask("opsjobs", "worker", OPSJOBS_REDIS_URL=own_valkey.url)
    gate = tmp_path / "gate"
    with own_valkey.client() as redis:
        job = Queue("default", connection=redis).enqueue(hold_plain, str(gate))
        wait_until(Path(f"{gate}.begun").exists, 30)
        own_valkey.kill()
        gate.touch()
        (run,) = wait_until(lambda: runs_of(job), 30)
        assert run["outcome"] == "raised"
        assert run["error"].startswith("ConnectionError")
        row = row_of(job)
        assert (row["state"], row["rq_status"], row["ended_at"]) == ("started", "started", None)
        own_valkey.start()
        worker.wait_for("Redis answers again", 30)
        again = Queue("default", connection=redis).enqueue(take_plain)
        wait_until(lambda: runs_of(again), 30)
    assert row_of(again)["state"] == "finished"
    assert worker.terminate() == 0


@pytest.mark.slow
@pytest.mark.chaos
def test_plain_jobs_run_while_postgres_is_away_and_are_recorded_when_it_is_back(
    own_postgres: TemporaryPostgres, own_database_url: str, children: Children, queue: Queue
) -> None:
    """From begin to end, and past deliveries of managed jobs, which must wait. RQ keeps the results."""
    config = {"SQLALCHEMY_DATABASE_URI": own_database_url, "OPSJOBS_HEARTBEAT_SECONDS": 0.3}
    worker = children.flask("opsjobs", "worker", **config)
    worker.wait_for("listens to", 30)
    own_postgres.kill()

    def run_some() -> list[RQJob]:
        queue.push_job_id("opsjobs-9999999-1")
        jobs = [queue.enqueue("tests.support.host.add", number, b=1) for number in range(10)]
        for job in jobs:
            wait_until(lambda job=job: job.get_status() is JobStatus.FINISHED, 30)
        return jobs

    jobs = run_some()
    worker.wait_for("takes no more jobs", 30)
    jobs += run_some()
    assert [job.latest_result().return_value for job in jobs] == [*range(1, 11)] * 2
    assert "takes jobs again" not in worker.log
    own_postgres.start()
    with create_engine(own_database_url, poolclass=NullPool).connect() as connection:

        def count_runs() -> Any:
            connection.rollback()
            return connection.execute(text(COUNT_RUNS)).all()

        wait_until(lambda: count_runs() == [("finished", "returned", 20)], 60)
    assert worker.terminate() == 0


COUNT_RUNS = """
    SELECT j.state, a.outcome, count(*)
    FROM opsjobs.jobs j JOIN opsjobs.attempts a ON a.job_id = j.id GROUP BY 1, 2
"""


# --- what waits


def test_what_waits_is_bounded_and_the_oldest_is_given_up() -> None:
    runs = PlainRuns("default", "worker", 1, most_bytes=1_000)
    assert [runs.add(b"x" * 300) for _ in range(5)] == [True, False, False, False, False]
    assert len(runs) == 3
    assert runs.due_in() < 1


def record_of(rq_id: str, number: int) -> bytes:
    """The record of a run of a job that returned."""
    at = "2026-01-01T00:00:00+00:00"
    times = {"created_at": at, "enqueued_at": at, "started_at": at, "ended_at": at}
    run = {"execution_id": f"run {number}", "status": "finished", "outcome": "returned", "pid": 1}
    return PlainRunRecord(rq_id, "default", "print", **times, **run).to_json()  # type: ignore[arg-type]


def test_a_locked_row_holds_up_only_the_runs_of_its_job(make_bench: MakeBench) -> None:
    bench, operator = make_bench(), make_bench()
    runs = PlainRuns("default", bench.name, bench.worker_id)

    def recorded(rq_id: str) -> list[str]:
        statement = """SELECT execution_id FROM opsjobs.attempts a JOIN opsjobs.jobs j ON j.id = a.job_id
            WHERE j.rq_id = %s ORDER BY a.dispatch_no"""
        return [row["execution_id"] for row in bench.rows(statement, rq_id)]

    runs.add(record_of("one", 1))
    assert runs.write(bench.connection)
    with operator.connection.transaction():
        operator.rows("SELECT id FROM opsjobs.jobs WHERE rq_id = 'one' FOR UPDATE")
        for number in (2, 3):
            for rq_id in ("one", "two"):
                runs.add(record_of(rq_id, number))
        assert not runs.write(bench.connection)
        assert (recorded("one"), recorded("two")) == (["run 1"], ["run 2", "run 3"])
        assert (len(runs), runs.due_in() < 1) == (2, True)
    assert runs.write(bench.connection)
    assert (recorded("one"), len(runs)) == (["run 1", "run 2", "run 3"], 0)

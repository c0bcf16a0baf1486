from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import Session

from flask_opsjobs import Cancel, Discard, OpsJobs, RetryIn, SchemaBehind, Snooze, current_job
from flask_opsjobs.errors import MigrationBlocked, OpsJobsError
from flask_opsjobs.jobs.record.task import Task
from flask_opsjobs.testing import (
    Performed,
    StoredJob,
    assert_no_leaks,
    create_schema,
    drop_schema,
)
from tests.conftest import MakeApp
from tests.support.processes import Children
from tests.support.sources import ROOT
from tests.support.waiting import wait_until

pytestmark = pytest.mark.lane

PerformDue = Callable[..., Performed]
Enqueued = Callable[..., list[dict[str, Any]]]
Jobs = Callable[..., list[StoredJob]]


@pytest.fixture
def add(opsjobs: OpsJobs) -> Task:
    @opsjobs.task(record_output=True)
    def add(a: int, b: int = 2) -> int:
        return a + b

    return add


@pytest.fixture
def fail(opsjobs: OpsJobs) -> Task:
    @opsjobs.task(max_attempts=3, backoff=60)
    def fail(message: str = "on purpose") -> None:
        raise ValueError(message)

    return fail


def later(**changes: float) -> datetime:
    return datetime.now(UTC) + timedelta(**changes)


# --- performing


def test_a_due_job_is_performed_through_the_real_record(
    db: SQLAlchemy, add: Task, opsjobs_perform_due: PerformDue
) -> None:
    job = add.enqueue(1)
    db.session.commit()
    performed = opsjobs_perform_due()
    assert performed.counts == {"finished": 1}
    assert performed.calls == 1
    (done,) = performed.jobs
    assert (done.id, done.output, done.attempt, done.ended_by) == (job.id, 3, 1, "returned")
    attempts = db.session.execute(sa.text("SELECT outcome, worker FROM opsjobs.attempts")).all()
    assert attempts == [("returned", "inline")]


def test_nothing_is_due_twice(db: SQLAlchemy, add: Task, opsjobs_perform_due: PerformDue) -> None:
    add.enqueue(1)
    db.session.commit()
    opsjobs_perform_due()
    assert opsjobs_perform_due() == Performed(calls=0, jobs=())


def test_jobs_that_a_job_enqueues_are_performed_too(
    db: SQLAlchemy, opsjobs: OpsJobs, opsjobs_perform_due: PerformDue
) -> None:
    @opsjobs.task
    def count_down(left: int) -> None:
        if left:
            count_down.enqueue(left - 1)
            db.session.commit()

    count_down.enqueue(3)
    db.session.commit()
    assert opsjobs_perform_due().counts == {"finished": 4}


def test_what_a_job_did_not_commit_is_lost_as_in_a_worker(
    db: SQLAlchemy, opsjobs: OpsJobs, add: Task, opsjobs_perform_due: PerformDue, opsjobs_jobs: Jobs
) -> None:
    @opsjobs.task
    def forgets_to_commit() -> None:
        add.enqueue(1)

    forgets_to_commit.enqueue()
    db.session.commit()
    assert opsjobs_perform_due().counts == {"finished": 1}
    assert opsjobs_jobs(add) == []


def test_each_lane_is_performed_by_priority(
    db: SQLAlchemy, opsjobs: OpsJobs, opsjobs_perform_due: PerformDue
) -> None:
    seen = []

    @opsjobs.task
    def note(word: str) -> None:
        seen.append(word)

    note.enqueue("third")
    note.options(priority=1).enqueue("second")
    note.options(priority=0, queue="alone").enqueue("first")
    db.session.commit()
    opsjobs_perform_due()
    assert seen == ["first", "second", "third"]


def test_a_failed_attempt_waits_for_its_backoff(
    db: SQLAlchemy, fail: Task, opsjobs_perform_due: PerformDue
) -> None:
    fail.enqueue()
    db.session.commit()
    performed = opsjobs_perform_due()
    (job,) = performed.jobs
    assert (job.state, job.error) == ("retryable", "ValueError: on purpose")
    assert isinstance(job.exception, ValueError)
    assert opsjobs_perform_due().jobs == ()


def test_time_passes_until_the_moment_asked_for(
    db: SQLAlchemy, fail: Task, add: Task, opsjobs_perform_due: PerformDue
) -> None:
    fail.enqueue()
    add.options(delay=30).enqueue(1)
    add.options(delay=timedelta(days=1)).enqueue(2)
    db.session.commit()
    performed = opsjobs_perform_due(at=later(seconds=90))
    assert performed.counts == {"retryable": 1, "finished": 1}
    assert performed.calls == 3
    assert opsjobs_perform_due(at=later(minutes=10)).counts == {"failed": 1}
    assert opsjobs_perform_due(at=later(days=2)).counts == {"finished": 1}


def test_a_retry_without_backoff_is_due_at_once(
    db: SQLAlchemy, opsjobs: OpsJobs, opsjobs_perform_due: PerformDue
) -> None:
    @opsjobs.task(max_attempts=3, backoff=0)
    def third_time() -> None:
        if current_job().attempt < 3:
            raise RuntimeError("not yet")

    third_time.enqueue()
    db.session.commit()
    performed = opsjobs_perform_due()
    assert (performed.calls, performed.counts) == (3, {"finished": 1})
    assert performed.jobs[0].exception is None


def test_a_job_that_snoozes_is_called_as_often_as_time_allows(
    db: SQLAlchemy, opsjobs: OpsJobs, opsjobs_perform_due: PerformDue
) -> None:
    @opsjobs.task
    def poll() -> None:
        raise Snooze(timedelta(minutes=10))

    poll.enqueue()
    db.session.commit()
    performed = opsjobs_perform_due(at=later(minutes=55))
    assert (performed.calls, performed.counts) == (6, {"scheduled": 1})


def test_a_snooze_without_end_is_told(
    db: SQLAlchemy,
    opsjobs: OpsJobs,
    opsjobs_perform_due: PerformDue,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @opsjobs.task
    def poll() -> None:
        raise Snooze(0)

    monkeypatch.setattr("flask_opsjobs.engine.inline_worker.MOST_ROUNDS", 20)
    poll.enqueue()
    db.session.commit()
    with pytest.raises(OpsJobsError, match=r"after 20 rounds .* task poll: it comes back"):
        opsjobs_perform_due()
    assert opsjobs_perform_due(limit=30).calls == 30


def test_with_a_limit_the_rest_stays_as_it_was(
    db: SQLAlchemy, add: Task, opsjobs_perform_due: PerformDue, opsjobs_jobs: Jobs
) -> None:
    add.enqueue_many({"a": number} for number in range(5))
    db.session.commit()
    performed = opsjobs_perform_due(limit=2)
    assert (performed.calls, performed.counts) == (2, {"finished": 2})
    assert [job.state for job in opsjobs_jobs()] == ["finished"] * 2 + ["available"] * 3
    assert opsjobs_perform_due().counts == {"finished": 3}


@pytest.mark.parametrize(
    ("decision", "state"),
    [(Cancel("no"), "canceled"), (Discard("no"), "failed"), (RetryIn(60), "retryable")],
)
def test_a_job_may_end_in_any_way(
    db: SQLAlchemy,
    opsjobs: OpsJobs,
    opsjobs_perform_due: PerformDue,
    decision: Exception,
    state: str,
) -> None:
    @opsjobs.task
    def decide() -> None:
        raise decision

    decide.enqueue()
    db.session.commit()
    assert opsjobs_perform_due().counts == {state: 1}


def test_a_deadline_passes_with_the_time(
    db: SQLAlchemy, add: Task, opsjobs_perform_due: PerformDue
) -> None:
    add.options(delay=60, deadline=timedelta(seconds=30)).enqueue(1)
    add.options(queue="paused", deadline=timedelta(minutes=1)).enqueue(2)
    db.session.execute(
        sa.text(
            "INSERT INTO opsjobs.queues (name, is_paused, paused_at, paused_by, paused_reason, created_at) "
            "VALUES ('paused', true, now(), 'l.brandt', 'maintenance', now())"
        )
    )
    db.session.commit()
    performed = opsjobs_perform_due(at=later(hours=1))
    assert sorted((job.state, job.ended_by) for job in performed.jobs) == [
        ("failed", "deadline"),
        ("finished", "returned"),
    ]


def test_a_worker_that_is_gone_fails_its_job(
    db: SQLAlchemy, opsjobs: OpsJobs, add: Task, opsjobs_perform_due: PerformDue
) -> None:
    add.enqueue(1)
    db.session.commit()
    del opsjobs.tasks["add"]
    assert opsjobs_perform_due().jobs[0].ended_by == "unknown_task"


def test_the_hosts_own_hook_is_called(
    db: SQLAlchemy, opsjobs: OpsJobs, opsjobs_perform_due: PerformDue
) -> None:
    seen = []

    @opsjobs.task(on_failure=lambda job, error: seen.append(str(error)))
    def fail() -> None:
        raise ValueError("on purpose")

    fail.enqueue()
    db.session.commit()
    opsjobs_perform_due()
    assert seen == ["on purpose"]


def test_a_failed_assertion_of_pytest_in_a_job_fails_the_test(
    db: SQLAlchemy, opsjobs: OpsJobs, add: Task, opsjobs_perform_due: PerformDue, opsjobs_jobs: Jobs
) -> None:
    @opsjobs.task(max_attempts=1)
    def give_up() -> None:
        pytest.fail("seen in a job")

    give_up.enqueue()
    add.enqueue(1)
    db.session.commit()
    with pytest.raises(pytest.fail.Exception, match="seen in a job"):
        opsjobs_perform_due()
    assert [job.state for job in opsjobs_jobs()] == ["failed", "available"]


def test_progress_and_log_are_kept(
    db: SQLAlchemy, opsjobs: OpsJobs, app: Flask, opsjobs_perform_due: PerformDue
) -> None:
    @opsjobs.task
    def tell() -> None:
        current_job().progress(3, 4, "nearly")
        app.logger.warning("nearly there")

    tell.enqueue()
    db.session.commit()
    opsjobs_perform_due()
    kept = db.session.execute(sa.text("SELECT progress_done, log_tail FROM opsjobs.attempts")).one()
    assert kept.progress_done == 3
    assert "nearly there" in kept.log_tail


# --- the value


def test_jobs_that_did_not_finish_are_told_with_their_error(
    db: SQLAlchemy, fail: Task, opsjobs_perform_due: PerformDue
) -> None:
    fail.enqueue(message="this one")
    db.session.commit()
    performed = opsjobs_perform_due()
    with pytest.raises(
        AssertionError, match="task fail is retryable: ValueError: this one"
    ) as told:
        performed.assert_finished()
    assert isinstance(told.value.__cause__, ValueError)


def test_finished_means_that_there_was_one(
    db: SQLAlchemy, add: Task, opsjobs_perform_due: PerformDue
) -> None:
    with pytest.raises(AssertionError, match="no job was due"):
        opsjobs_perform_due().assert_finished()
    add.enqueue(1)
    db.session.commit()
    assert opsjobs_perform_due().assert_finished().jobs[0].output == 3


# --- what was enqueued


def test_what_was_enqueued_is_told_before_the_commit(
    db: SQLAlchemy, add: Task, fail: Task, opsjobs_enqueued: Enqueued, opsjobs_jobs: Jobs
) -> None:
    add.enqueue(1)
    add.options(tags=["urgent"], priority=0).enqueue(2, b=3)
    assert opsjobs_enqueued(add) == [{"a": 1}, {"a": 2, "b": 3}]
    assert opsjobs_enqueued("fail") == []
    assert [(job.tags, job.priority) for job in opsjobs_jobs(add)] == [([], 5), (["urgent"], 0)]
    db.session.rollback()
    assert opsjobs_jobs() == []


def test_looking_leaves_no_transaction_open(db: SQLAlchemy, opsjobs_jobs: Jobs) -> None:
    opsjobs_jobs()
    assert not db.session().in_transaction()


# --- which app, which session


def test_without_a_context_the_fixture_app_is_meant(
    app: Flask, add: Task, opsjobs_perform_due: PerformDue, opsjobs_enqueued: Enqueued
) -> None:
    with app.app_context():
        add.enqueue(1)
        app.extensions["sqlalchemy"].session.commit()
    assert opsjobs_enqueued(add) == [{"a": 1}]
    assert opsjobs_perform_due().counts == {"finished": 1}


def test_another_session_may_be_named(
    db: SQLAlchemy, add: Task, opsjobs_perform_due: PerformDue, opsjobs_enqueued: Enqueued
) -> None:
    with Session(db.engine) as session:
        add.options(session=session).enqueue(1)
        assert opsjobs_enqueued(add) == []
        assert opsjobs_enqueued(add, session=session) == [{"a": 1}]
        with pytest.raises(OpsJobsError, match="written and not committed"):
            opsjobs_perform_due(session=session)
        session.commit()
    assert opsjobs_perform_due().counts == {"finished": 1}


def test_what_is_not_committed_is_not_performed(
    db: SQLAlchemy, add: Task, opsjobs_perform_due: PerformDue
) -> None:
    add.enqueue(1)
    with pytest.raises(OpsJobsError, match="commit before you call"):
        opsjobs_perform_due()
    db.session.commit()
    db.session.execute(sa.text("SELECT 1"))  # reading alone is fine
    assert opsjobs_perform_due().counts == {"finished": 1}


def test_an_app_that_hands_jobs_to_rq_is_refused(
    make_app: MakeApp, opsjobs_perform_due: PerformDue
) -> None:
    with (
        make_app(TESTING=False).app_context(),
        pytest.raises(OpsJobsError, match="before OpsJobs joins it"),
    ):
        opsjobs_perform_due()


def test_an_app_without_opsjobs_is_told(opsjobs_perform_due: PerformDue) -> None:
    with Flask("other").app_context(), pytest.raises(OpsJobsError, match="has not joined"):
        opsjobs_perform_due()


def test_a_moment_without_a_zone_is_refused(
    db: SQLAlchemy, opsjobs_perform_due: PerformDue
) -> None:
    with pytest.raises(ValueError, match="with a time zone"):
        opsjobs_perform_due(at=datetime(2026, 1, 1))  # noqa: DTZ001


# --- inside a transaction of the test's own


@pytest.fixture(params=["create_savepoint", "conditional_savepoint"])
def around(request: pytest.FixtureRequest, app: Flask) -> Iterator[SQLAlchemy]:
    """The host's sessions inside one transaction that is rolled back, as suites do that must be fast."""
    db: SQLAlchemy = app.extensions["sqlalchemy"]
    with app.app_context():
        db.session.configure(join_transaction_mode=request.param)
        engines = db.engines
        engine = engines[None]
        with engine.connect() as connection:
            transaction = connection.begin()
            engines[None] = connection
            try:
                yield db
            finally:
                db.session.remove()
                engines[None] = engine
                transaction.rollback()
                with engine.connect() as other:
                    assert other.scalar(sa.text("SELECT count(*) FROM opsjobs.jobs")) == 0


def test_jobs_inside_the_tests_transaction_are_performed_there(
    around: SQLAlchemy,
    opsjobs: OpsJobs,
    add: Task,
    opsjobs_perform_due: PerformDue,
    opsjobs_enqueued: Enqueued,
) -> None:
    @opsjobs.task
    def start() -> None:
        add.enqueue(20)
        around.session.commit()

    start.enqueue()
    around.session.commit()
    performed = opsjobs_perform_due()
    assert performed.counts == {"finished": 2}
    assert [job.output for job in performed.jobs] == [None, 22]
    assert opsjobs_enqueued(add) == [{"a": 20}]


def test_performing_nothing_there_commits_nothing(
    around: SQLAlchemy, opsjobs_perform_due: PerformDue
) -> None:
    assert opsjobs_perform_due(at=later(hours=1)).jobs == ()


def test_a_database_error_there_costs_the_job_alone(
    around: SQLAlchemy, opsjobs: OpsJobs, add: Task, opsjobs_perform_due: PerformDue
) -> None:
    @opsjobs.task(max_attempts=1)
    def divide() -> None:
        around.session.execute(sa.text("SELECT 1/0"))

    divide.enqueue()
    add.enqueue(1)
    around.session.commit()
    performed = opsjobs_perform_due()
    assert sorted(performed.counts) == ["failed", "finished"]


def test_a_limit_and_time_work_there(
    around: SQLAlchemy, fail: Task, add: Task, opsjobs_perform_due: PerformDue
) -> None:
    fail.enqueue()
    add.enqueue_many([{"a": 1}, {"a": 2}])
    around.session.commit()
    assert opsjobs_perform_due(limit=1).calls == 1
    assert opsjobs_perform_due(at=later(hours=1)).counts == {"failed": 1, "finished": 2}


def test_a_job_that_ends_the_tests_transaction_is_told(
    app: Flask, opsjobs: OpsJobs, opsjobs_perform_due: PerformDue
) -> None:
    db: SQLAlchemy = app.extensions["sqlalchemy"]

    @opsjobs.task
    def roll_back() -> None:
        db.session.execute(sa.text("SELECT 1"))
        db.session.rollback()

    with app.app_context(), db.engine.connect() as connection:
        engine, db.engines[None] = db.engine, connection
        transaction = connection.begin()
        try:
            roll_back.enqueue()
            db.session.commit()
            with pytest.raises(OpsJobsError, match="create_savepoint"):
                opsjobs_perform_due()
        finally:
            db.session.remove()
            db.engines[None] = engine
            transaction.close()


def test_pages_are_not_searched_there_for_leaks(around: SQLAlchemy, app: Flask, add: Task) -> None:
    add.enqueue(4711)
    around.session.commit()
    with pytest.raises(OpsJobsError, match="there is a transaction around this test"):
        assert_no_leaks(app.test_client(), ["4711"])


# --- the schema


def test_a_suite_without_migrations_makes_the_schema_itself(
    make_app: MakeApp,
    empty_database_url: str,
    opsjobs: OpsJobs,
    add: Task,
    opsjobs_perform_due: PerformDue,
) -> None:
    app = make_app(SQLALCHEMY_DATABASE_URI=empty_database_url, opsjobs=opsjobs)
    with app.app_context():
        with pytest.raises(SchemaBehind):
            opsjobs_perform_due()
        create_schema()
        create_schema()
        add.enqueue(1)
        app.extensions["sqlalchemy"].session.commit()
        assert opsjobs_perform_due().counts == {"finished": 1}
        drop_schema()
        with app.extensions["sqlalchemy"].engine.connect() as connection:
            assert connection.scalar(sa.text("SELECT to_regnamespace('opsjobs')")) is None


SCRIPT = """
import sys

sys.modules["pytest"] = None  # as if it were not installed

from flask_opsjobs import testing
from tests.support.host import add, create_app, db

with create_app(TESTING=True).app_context():
    testing.create_schema()
    add.enqueue(1, 2)
    db.session.commit()
    print(testing.perform_due().counts)
    testing.drop_schema()
"""


@pytest.mark.slow
@pytest.mark.processes
def test_a_script_makes_the_schema_where_there_is_no_pytest(empty_database_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        env={**os.environ, "TEST_DATABASE_URL": empty_database_url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "{'finished': 1}\n", done.stderr


@pytest.mark.processes
def test_the_schema_is_dropped_as_soon_as_the_worker_and_the_loops_of_a_test_are_gone(
    app: Flask, children: Children, capsys: pytest.CaptureFixture[str]
) -> None:
    worker, loops = children.flask("opsjobs", "worker", "mail"), children.flask("opsjobs", "run")
    worker.wait_for("listens to", 60)
    engine = app.extensions["opsjobs"].engine

    def ask(question: str) -> Any:
        with engine.connect() as connection:
            return connection.scalar(sa.text(question))

    wait_until(lambda: ask("SELECT max(last_at) FROM opsjobs.loop_runs"), 60)
    with app.app_context():
        with pytest.raises(MigrationBlocked, match=r"of the loops, worker \S+ sent a heartbeat"):
            drop_schema()
        # A fixture may kill what it has started, and then it says no goodbye.
        worker.kill_all()
        with pytest.raises(MigrationBlocked, match=r"because the process \S+ of the loops sent"):
            drop_schema()
        assert loops.terminate(60) == 0
        capsys.readouterr()
        drop_schema()
    # Pytest would show it under each test that fails.
    assert capsys.readouterr().err == ""
    assert ask("SELECT to_regnamespace('opsjobs')") is None


def test_the_schema_of_a_real_app_is_not_dropped(make_app: MakeApp) -> None:
    with make_app(TESTING=False).app_context(), pytest.raises(OpsJobsError, match="TESTING"):
        drop_schema()

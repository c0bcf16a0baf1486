from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import IntegrityError, ProgrammingError, SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from flask_opsjobs import InvalidArgs, OpsJobs, SchemaBehind, signals
from flask_opsjobs.errors import WrongSession
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.record.enqueue import Enqueued
from flask_opsjobs.jobs.record.task import Task
from tests.conftest import MakeApp
from tests.support.dispatching import AfterCommit

SECRET = "s3cr3t-value"


@pytest.fixture
def add(opsjobs: OpsJobs) -> Task:
    @opsjobs.task
    def add(a: int, b: int = 2) -> int:
        return a + b

    return add


@pytest.fixture
def other(host: Host) -> Iterator[Engine]:
    """A second engine on the same database, which sees what is committed."""
    engine = create_engine(host.engine.url)
    yield engine
    engine.dispose()


def rows(engine: Engine) -> list[dict[str, Any]]:
    """All jobs, as another connection sees them."""
    with engine.connect() as connection:
        found = connection.execute(text("SELECT * FROM opsjobs.jobs ORDER BY id"))
        return [dict(row) for row in found.mappings()]


def test_a_job_is_one_row_in_the_hosts_transaction(
    db: SQLAlchemy, add: Task, other: Engine
) -> None:
    job = add.enqueue(1, b=3)
    assert job == Enqueued(job.id, "available", conflict=False)
    assert rows(other) == []
    db.session.commit()
    (row,) = rows(other)
    assert row["id"] == job.id
    assert (
        row
        | {
            "task": "add",
            "queue": "default",
            "lane": "default",
            "state": "available",
            "origin": "opsjobs",
            "priority": 5,
            "args": {"a": 1, "b": 3},
            "meta": {},
            "tags": [],
            "attempt": 0,
            "max_attempts": 5,
            "dispatch_no": 0,
            "dispatched_at": None,
            "timeout_seconds": None,
            "deadline_at": None,
            "unique_key": None,
            "due_at": row["created_at"],
        }
        == row
    )


def test_a_rollback_takes_the_job_with_it(db: SQLAlchemy, add: Task, other: Engine) -> None:
    add.enqueue(1)
    db.session.rollback()
    db.session.commit()
    assert rows(other) == []


def test_all_options_reach_the_row(db: SQLAlchemy, opsjobs: OpsJobs, other: Engine) -> None:
    @opsjobs.task(queue="mail", priority=3, max_attempts=7, timeout=30, tags=["a", 'b,"\\'])
    def send(to: str) -> None: ...

    send.enqueue(to="x")
    send.options(
        queue="bulk:2",
        priority=0,
        max_attempts=1,
        timeout=None,
        deadline=timedelta(hours=2),
        tags=(),
        meta={"who": "me", "when": datetime(2026, 1, 1, tzinfo=UTC)},
        delay=timedelta(minutes=1),
    ).enqueue(to="x")
    db.session.commit()
    first, second = rows(other)
    assert (first["queue"], first["lane"], first["priority"]) == ("mail", "mail", 3)
    assert (first["max_attempts"], first["timeout_seconds"]) == (7, 30)
    assert first["tags"] == ["a", 'b,"\\']
    assert (second["queue"], second["lane"], second["priority"]) == ("bulk:2", "bulk:2", 0)
    assert (second["max_attempts"], second["timeout_seconds"]) == (1, None)
    assert (second["tags"], second["meta"]) == ([], {"who": "me", "when": "2026-01-01T00:00:00Z"})
    assert second["state"] == "scheduled"
    assert second["due_at"] - second["created_at"] == timedelta(minutes=1)
    assert second["deadline_at"] - second["due_at"] == timedelta(hours=2)


def test_a_job_for_later_is_scheduled(db: SQLAlchemy, add: Task, other: Engine) -> None:
    at = datetime.now(UTC) + timedelta(days=1)
    assert add.options(scheduled_at=at).enqueue(1).state == "scheduled"
    assert add.options(delay=0.5).enqueue(1).state == "scheduled"
    past = datetime(2020, 1, 1, tzinfo=UTC)
    assert add.options(scheduled_at=past).enqueue(1).state == "available"
    assert add.options(delay=0).enqueue(1).state == "available"
    db.session.commit()
    assert [row["due_at"] for row in rows(other)][::2] == [at, past]


def test_the_clock_is_postgres_own_and_moves_within_a_transaction(
    db: SQLAlchemy, add: Task, other: Engine
) -> None:
    """`now()` stands still in a transaction: a long one would insert jobs with an old time."""
    begun = db.session.execute(text("SELECT now()")).scalar_one()
    add.enqueue(1)
    add.enqueue(1)
    db.session.commit()
    first, second = (row["created_at"] for row in rows(other))
    assert begun < first < second


def test_invalid_arguments_write_nothing_and_harm_nothing(
    db: SQLAlchemy, add: Task, other: Engine
) -> None:
    db.session.execute(text("CREATE TABLE mine (a int)"))
    with pytest.raises(InvalidArgs) as error:
        add.enqueue(a=SECRET, c=1)
    assert {one["loc"] for one in error.value.errors} == {"a", "c"}
    assert SECRET not in str(error.value)
    add.enqueue(5)
    db.session.commit()
    assert [row["args"] for row in rows(other)] == [{"a": 5}]


def test_nul_and_emoji_in_text(db: SQLAlchemy, opsjobs: OpsJobs, other: Engine) -> None:
    @opsjobs.task
    def say(words: str) -> None: ...

    say.enqueue("😀 ünï \\u0000 \n\t")
    with pytest.raises(InvalidArgs, match="words: has a NUL character"):
        say.enqueue("a\0b")
    db.session.commit()
    assert [row["args"]["words"] for row in rows(other)] == ["😀 ünï \\u0000 \n\t"]


def test_a_5_mb_argument_is_refused_with_the_limit(
    db: SQLAlchemy, opsjobs: OpsJobs, other: Engine
) -> None:
    @opsjobs.task
    def say(words: str) -> None: ...

    with pytest.raises(InvalidArgs, match=r"5000012 bytes .* OPSJOBS_MAX_ARGS_BYTES = 1000000"):
        say.enqueue("x" * 5_000_000)
    with pytest.raises(InvalidArgs, match="meta: is larger than OPSJOBS_MAX_ARGS_BYTES"):
        say.options(meta={"a": "x" * 5_000_000}).enqueue("x")
    say.enqueue("x" * 999_000)
    db.session.commit()
    assert len(rows(other)) == 1


def test_a_due_job_may_be_inserted_as_queued(db: SQLAlchemy, add: Task, host: Host) -> None:
    from flask_opsjobs.jobs.record import enqueue

    connection = db.session.connection()
    for options, state, number in (
        (add.declared, "queued", 1),
        (add.options(delay=60).chosen, "scheduled", 0),
    ):
        row = enqueue.parameters(add, options, host) | {"args": '{"a": 1}'}
        job = enqueue.insert(connection, row, options, dispatch_no=1)
        found = db.session.execute(
            text("SELECT dispatch_no, dispatched_at IS NOT NULL FROM opsjobs.jobs WHERE id = :id"),
            {"id": job.id},
        ).one()
        assert (job.state, *found) == (state, number, number == 1)


# --- whichever session


def test_any_session_on_the_database_will_do(
    db: SQLAlchemy, add: Task, host: Host, other: Engine
) -> None:
    with Session(host.engine) as session:
        add.options(session=session).enqueue(1)
        session.commit()
    with Session(host.engine.execution_options(logging_token="x")) as session:
        add.options(session=session).enqueue_many([{"a": 2}])
        session.commit()
    with Session(other) as session:  # another engine, the same database
        add.options(session=session).enqueue(3)
        session.commit()
    add.options(session=db.session).enqueue(4)  # the registry itself
    db.session.commit()
    with other.connect() as connection, connection.begin() as outer:
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            add.options(session=session).enqueue(5)
            session.commit()
        assert len(rows(host.engine)) == 4  # nothing of it is committed yet
        outer.commit()
    assert [row["args"]["a"] for row in rows(host.engine)] == [1, 2, 3, 4, 5]


def test_a_session_bound_elsewhere_is_refused(
    db: SQLAlchemy, add: Task, empty_database_url: str, other: Engine
) -> None:
    elsewhere = create_engine(empty_database_url)
    with Session(elsewhere) as session, pytest.raises(WrongSession) as error:
        add.options(session=session).enqueue(1)
    assert elsewhere.url.database in str(error.value)
    assert "the jobs are in" in str(error.value)
    with Session() as session, pytest.raises(WrongSession, match="bound to no database"):
        add.options(session=session).enqueue_many([{"a": 1}])
    with pytest.raises(WrongSession, match="takes a SQLAlchemy Session, got str"):
        add.options(session="db").enqueue(1)  # type: ignore[arg-type]
    elsewhere.dispose()
    assert rows(other) == []


def test_opsjobs_bind_names_another_database(
    make_app: MakeApp, opsjobs: OpsJobs, add: Task, database_url: str, empty_database_url: str
) -> None:
    app = make_app(
        opsjobs=opsjobs,
        SQLALCHEMY_DATABASE_URI=empty_database_url,
        SQLALCHEMY_BINDS={"jobs": database_url},
        OPSJOBS_BIND="jobs",
    )
    db = app.extensions["sqlalchemy"]
    with app.app_context():
        add.enqueue(1)
        add.options(session=db.session).enqueue(2)
        add.enqueue_many([{"a": 3}])
        db.session.commit()
        assert [row["args"]["a"] for row in rows(db.engines["jobs"])] == [1, 2, 3]


def test_outside_an_app_context_enqueue_says_so(app: Flask, add: Task) -> None:
    with pytest.raises(RuntimeError, match="outside of application context"):
        add.enqueue(1)


def test_a_missing_schema_is_told_with_the_fix(
    make_app: MakeApp, opsjobs: OpsJobs, add: Task, empty_database_url: str
) -> None:
    app = make_app(opsjobs=opsjobs, SQLALCHEMY_DATABASE_URI=empty_database_url)
    with app.app_context():
        for record in (lambda: add.enqueue(1), lambda: add.enqueue_many([{"a": 1}])):
            with pytest.raises(SchemaBehind, match="flask db upgrade"):
                record()


def test_an_enqueue_takes_no_second_connection_of_the_hosts_pool(
    make_app: MakeApp, opsjobs: OpsJobs, add: Task
) -> None:
    pool = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 0}
    app = make_app(opsjobs=opsjobs, SQLALCHEMY_ENGINE_OPTIONS=pool)
    with app.app_context():
        session = app.extensions["sqlalchemy"].session
        session.execute(text("SELECT 1"))  # holds the only connection
        assert add.enqueue(1).state == "available"
        assert add.enqueue_many([{"a": 2}]).count == 1
        session.commit()


# --- savepoints, and the moment after the commit


@pytest.fixture
def acts(host: Host) -> list[Any]:
    """What the hook was called with, each time, as if dispatch were on."""
    calls: list[Any] = []
    host.dispatcher = AfterCommit(calls.append)
    return calls


def test_after_commit_at_a_savepoint_does_not_act(
    db: SQLAlchemy, add: Task, acts: list[Any], other: Engine
) -> None:
    with db.session.begin_nested():
        add.enqueue(1)
        with db.session.begin_nested():
            add.options(queue="mail").enqueue(1)
    assert acts == []
    assert rows(other) == []
    db.session.commit()
    assert acts == [[("default", "default"), ("mail", "mail")]]
    db.session.commit()
    assert len(acts) == 1


def test_after_a_rollback_nobody_acts(db: SQLAlchemy, add: Task, acts: list[Any]) -> None:
    add.enqueue(1)
    db.session.rollback()
    db.session.execute(text("SELECT 1"))
    db.session.commit()
    assert acts == []


def test_a_savepoint_that_is_rolled_back_takes_its_job_with_it(
    db: SQLAlchemy, add: Task, acts: list[Any], other: Engine
) -> None:
    add.enqueue(1)
    nested = db.session.begin_nested()
    add.enqueue(2)
    nested.rollback()
    db.session.commit()
    assert [row["args"]["a"] for row in rows(other)] == [1]


def test_only_lanes_with_due_jobs_are_dispatched(
    db: SQLAlchemy, add: Task, acts: list[Any]
) -> None:
    add.options(delay=60).enqueue(1)
    add.options(delay=60).enqueue_many([{"a": 1}])
    add.enqueue_many([])
    db.session.commit()
    assert acts == []
    add.enqueue_many([{"a": 1}, {"a": 2}])
    db.session.commit()
    assert acts == [[("default", "default")]]


def test_a_hook_that_raises_does_not_reach_the_host(
    db: SQLAlchemy, add: Task, host: Host, other: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    def explode(notes: Sequence[Any]) -> None:
        raise RuntimeError("Redis is on fire")

    host.dispatcher = AfterCommit(explode)
    add.enqueue(1)
    with caplog.at_level(logging.ERROR):
        db.session.commit()
    assert len(rows(other)) == 1
    assert "could not be dispatched" in caplog.text


def test_a_full_pool_in_commit(
    make_app: MakeApp, opsjobs: OpsJobs, add: Task, caplog: pytest.LogCaptureFixture
) -> None:
    """The hook needs a connection. With none left in the host's pool, `commit()` neither raises nor waits."""
    options = {"poolclass": QueuePool, "pool_size": 1, "max_overflow": 0, "pool_timeout": 0.01}
    app = make_app(opsjobs=opsjobs, SQLALCHEMY_ENGINE_OPTIONS=options)
    db = app.extensions["sqlalchemy"]
    host: Host = app.extensions["opsjobs"]
    seen: list[Any] = []

    def hook(notes: Sequence[Any]) -> None:
        taken = [host.engine.connect()] if not host.engine.pool.checkedout() else []  # type: ignore[attr-defined]
        try:
            with host.spare.one() as connection:
                seen.append(connection.execute("SELECT count(*) FROM opsjobs.jobs").fetchone())
            host.engine.connect()  # as a naive hook would
        finally:
            for each in taken:
                each.close()

    host.dispatcher = AfterCommit(hook)
    with app.app_context():
        add.enqueue(1)
        db.session.commit()
        assert seen == [(1,)]
        assert "QueuePool limit" in caplog.text


def test_a_receiver_of_the_signal_that_raises_changes_nothing(
    db: SQLAlchemy, add: Task, other: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[tuple[Task, Any]] = []

    def explode(sender: Task, **facts: Any) -> None:
        raise RuntimeError("no")

    def hear(sender: Task, enqueued: Any) -> None:
        heard.append((sender, enqueued))

    with signals.job_enqueued.connected_to(explode), signals.job_enqueued.connected_to(hear):
        one = add.enqueue(1)
        many = add.enqueue_many([{"a": 1}])
    db.session.commit()
    assert heard == [(add, one), (add, many)]
    assert len(rows(other)) == 2
    assert "a receiver of the signal job-enqueued raised" in caplog.text


def test_a_statement_of_a_receiver_that_fails_loses_nothing_of_the_host(
    db: SQLAlchemy, add: Task, other: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    def break_off(sender: Task, **facts: Any) -> None:
        db.session.execute(text("INSERT INTO nowhere VALUES (1)"))

    def swallow(sender: Task, **facts: Any) -> None:
        with suppress(SQLAlchemyError):
            break_off(sender)

    for receiver in (break_off, swallow):
        with signals.job_enqueued.connected_to(receiver):
            add.enqueue(1)
            add.enqueue_many([{"a": 1}])
        db.session.commit()
    assert len(rows(other)) == 4
    assert "job-enqueued raised (ProgrammingError at " in caplog.text
    says = "RuntimeError: a statement failed, and the receiver went on"
    assert f"job-enqueued raised ({says})" in caplog.text


def test_the_orm_of_the_host_is_left_alone(db: SQLAlchemy, add: Task) -> None:
    """No object of ours lives in the host's session, and nothing of the host's is flushed by an enqueue."""
    flushed: list[Any] = []
    event.listen(db.session, "before_flush", lambda *about: flushed.append(about))
    add.enqueue(1)
    assert list(db.session.identity_map.keys()) == []
    assert list(db.session.new) == []
    assert flushed == []


def test_threads_enqueue_at_once(app: Flask, add: Task, host: Host) -> None:
    db = app.extensions["sqlalchemy"]

    def record(number: int) -> None:
        with app.app_context():
            for _ in range(20):
                add.enqueue(number)
            db.session.commit()

    threads = [threading.Thread(target=record, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with app.app_context():
        assert len(rows(host.engine)) == 80


def test_postgres_refusal_is_told_without_the_values(db: SQLAlchemy, add: Task, host: Host) -> None:
    """SQLAlchemy's errors carry the parameters of the statement."""
    number = 987654321
    db.session.execute(text("ALTER TABLE opsjobs.jobs ADD CHECK (queue <> 'refused')"))
    db.session.commit()
    call = add.options(queue="refused")
    with pytest.raises(IntegrityError) as one:
        call.enqueue(number)
    db.session.rollback()
    assert one.value.params is None
    # Nor in the host's log, where Postgres' "Failing row contains (…)" would stand.
    told = "".join(traceback.format_exception(one.value))
    assert str(number) not in told
    assert "Failing row" not in told
    assert 'new row for relation "jobs" violates check constraint "' in told
    assert "(SQLSTATE 23514)" in told
    with pytest.raises(IntegrityError) as many:
        call.enqueue_many([{"a": number}])
    assert str(number) not in str(many.value)
    # And the host's transaction goes on.
    assert db.session.execute(text("SELECT 1")).scalar_one() == 1
    db.session.rollback()
    db.session.execute(text("ALTER TABLE opsjobs.jobs RENAME TO elsewhere"))
    with pytest.raises(ProgrammingError) as gone:
        add.enqueue(number)
    assert str(number) not in str(gone.value)

"""Folding: against hosts that add and close, against ends, with kills between statements, and its plans."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from math import inf
from typing import Any

import psycopg
import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import text
from sqlalchemy.orm import Session

from flask_opsjobs import Batch, BatchClosed, OpsJobs, Task
from flask_opsjobs.core import sql
from flask_opsjobs.core.db import Connection, connect_apart
from flask_opsjobs.endings import fold as folding
from flask_opsjobs.endings import pending as pending_module
from flask_opsjobs.endings.fold import MOST_EVENTS, fold, list_batches_to_fold
from flask_opsjobs.endings.pending_batches import PendingBatches
from flask_opsjobs.engine.dispatch.after_commit import AfterCommitDispatch
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.loops import fold as fold_loop
from flask_opsjobs.loops.loop import Runner
from tests.batches.conftest import batch_of, fold_all
from tests.conftest import MakeBench
from tests.support.database import Databases
from tests.support.engine import Bench, race
from tests.support.plans import explain
from tests.support.waiting import wait_until

TIMES = range(10)

STATE = "SELECT state FROM opsjobs.batches WHERE id = %s"


@pytest.fixture
def session(db: SQLAlchemy) -> Iterator[Session]:
    """A second session, as another request has it."""
    with Session(db.engine) as session:
        yield session


# --- beside hosts


def test_folding_goes_on_beside_a_host_that_adds_members(
    db: SQLAlchemy,
    opsjobs: OpsJobs,
    bench: Bench,
    row_task: Task,
    session: Session,
    end: Callable[..., None],
) -> None:
    batch = opsjobs.batch("import").open()
    first = batch.enqueue(row_task, 1)
    db.session.commit()
    opsjobs.batch(id=batch.id, session=session).enqueue(row_task, 2)
    end(first.id)
    assert fold(bench.connection, batch.id) is not None
    row = batch_of(bench, batch.id)
    assert (row["enqueued"], row["ends"]) == (1, {"finished returned": 1})
    session.commit()
    fold_all(bench.connection)
    assert batch_of(bench, batch.id)["enqueued"] == 2


def test_ends_and_additions_in_open_transactions_wait_for_no_count(
    db: SQLAlchemy, opsjobs: OpsJobs, make_bench: MakeBench, row_task: Task, session: Session
) -> None:
    """Case 26: counts are appended, so no row of the batch is hot."""
    first, second = make_bench(), make_bench()
    batch = opsjobs.batch("import").open()
    jobs = [batch.enqueue(row_task, number).id for number in range(2)]
    db.session.commit()
    first.dispatch(prefetch=1_000)
    for bench, job in zip((first, second), jobs, strict=True):
        bench.connection.execute("SET lock_timeout = '100ms'")
        bench.claim(job)
    with first.connection.transaction():
        assert first.record(jobs[0], 1, Outcome("returned"))
        for adding in (db.session, session):
            adding.execute(text("SET lock_timeout = '100ms'"))
            opsjobs.batch(id=batch.id, session=adding).enqueue(row_task, 3)
        assert second.record(jobs[1], 1, Outcome("returned"))
    db.session.commit()
    session.commit()
    fold_all(first.connection)
    row = batch_of(first, batch.id)
    assert (row["enqueued"], row["ends"]) == (4, {"finished returned": 2})


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_closed_batch_does_not_end_before_those_who_add(
    db: SQLAlchemy,
    opsjobs: OpsJobs,
    bench: Bench,
    row_task: Task,
    session: Session,
    end: Callable[..., None],
    is_kept: bool,
) -> None:
    """Case 7: no member is added to a batch that has ended. The close does not wait for them."""
    batch = opsjobs.batch("import").open()
    db.session.commit()
    job = opsjobs.batch(id=batch.id, session=session).enqueue(row_task, 1)
    batch.close()
    db.session.commit()
    fold_all(bench.connection)
    assert bench.row(STATE, batch.id)["state"] == "running"
    with pytest.raises(BatchClosed):
        batch.enqueue(row_task, 2)
    db.session.rollback()
    if is_kept:
        session.commit()
        fold_all(bench.connection)
        assert batch_of(bench, batch.id)["state"] == "running"
        end(job.id)
    else:
        session.rollback()
    fold_all(bench.connection)
    row = batch_of(bench, batch.id)
    assert (row["state"], row["enqueued"], row["lost"]) == ("finished", int(is_kept), 0)


@pytest.mark.parametrize("closers", [2, 3])
def test_hosts_that_fill_one_batch_and_close_it_beside_each_other_do_not_deadlock(
    app: Flask,
    db: SQLAlchemy,
    opsjobs: OpsJobs,
    host: Host,
    bench: Bench,
    row_task: Task,
    closers: int,
) -> None:
    """Each adds a member before any of them closes. An operator's cancel and a fold come between."""
    have_added = threading.Barrier(closers + 1, timeout=30)

    def fill(batch: int) -> None:
        with Session(host.engine) as session:
            mine = Batch(lambda: host, None, id=batch, session=session)
            mine.enqueue(row_task, 1)
            have_added.wait()
            mine.close()
            session.commit()

    def meddle(batch: int, connection: Connection, *, cancels: bool) -> None:
        have_added.wait()
        if cancels:
            with app.app_context():
                opsjobs.operator.cancel_batch(batch, actor="anna", reason="a race of hosts")
        fold_all(connection)

    with closing(connect_apart(host.engine)) as other:
        for number in range(20):
            batch = opsjobs.batch("import").open()
            db.session.commit()
            answers = race(
                *[partial(fill, batch.id)] * closers,
                partial(meddle, batch.id, other, cancels=number % 2 == 1),
            )
            assert answers == [None] * (closers + 1)
            fold_all(bench.connection)
            row = batch_of(bench, batch.id)
            assert row["enqueued"] == closers
            assert row["state"] == ("canceled" if number % 2 else "running")


def test_folding_does_not_wait_for_a_host_that_closes(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, session: Session
) -> None:
    batch = opsjobs.batch("import").open()
    db.session.commit()
    opsjobs.batch(id=batch.id, session=session).close()
    assert fold(bench.connection, batch.id) is None
    session.commit()
    assert list_batches_to_fold(bench.connection) == [batch.id]
    fold_all(bench.connection)
    assert batch_of(bench, batch.id)["state"] == "finished"


@pytest.mark.parametrize("time", TIMES)
def test_close_against_those_who_add(
    db: SQLAlchemy, opsjobs: OpsJobs, host: Host, bench: Bench, row_task: Task, time: int
) -> None:
    batch = opsjobs.batch("import").open()
    db.session.commit()

    def add() -> int:
        with Session(host.engine) as session:
            Batch(lambda: host, None, id=batch.id, session=session).enqueue(row_task, 1)
            session.commit()
        return 1

    def close() -> int:
        with Session(host.engine) as session:
            Batch(lambda: host, None, id=batch.id, session=session).close()
            session.commit()
        return 0

    def fold_it() -> int:
        with closing(connect_apart(host.engine)) as connection:
            return fold_all(connection)

    answers = race(add, add, close, add, fold_it)
    assert all(isinstance(one, int | BatchClosed) for one in answers)
    added = sum(one == 1 for one in answers[:4])
    fold_all(bench.connection)
    row = batch_of(bench, batch.id)
    assert row["enqueued"] == added
    assert row["state"] == ("running" if added else "finished")


@pytest.mark.parametrize("time", TIMES)
def test_close_against_the_last_member(
    db: SQLAlchemy,
    opsjobs: OpsJobs,
    host: Host,
    bench: Bench,
    make_bench: MakeBench,
    row_task: Task,
    report: Task,
    time: int,
    end: Callable[..., None],
) -> None:
    batch = opsjobs.batch("import", on_end=report).open()
    job = batch.enqueue(row_task, 1)
    db.session.commit()
    other = make_bench()

    def close() -> None:
        with Session(host.engine) as session:
            Batch(lambda: host, None, id=batch.id, session=session).close()
            session.commit()
        fold_all(other.connection)

    def finish() -> None:
        end(job.id)
        fold_all(bench.connection)

    assert race(close, finish) == [None, None]
    fold_all(bench.connection)
    row = batch_of(bench, batch.id)
    assert (row["state"], row["end_no"]) == ("finished", 1)
    assert len(bench.rows("SELECT * FROM opsjobs.callbacks")) == 1


@pytest.mark.parametrize("time", TIMES)
def test_two_fold_at_once_and_nothing_is_counted_twice(
    db: SQLAlchemy,
    opsjobs: OpsJobs,
    host: Host,
    bench: Bench,
    row_task: Task,
    report: Task,
    time: int,
) -> None:
    """Case 2."""
    with opsjobs.batch("import", on_end=report) as batch:
        for number in range(5):
            batch.enqueue(row_task, number)
    db.session.commit()
    ids = [row["id"] for row in bench.rows("SELECT id FROM opsjobs.jobs")]

    def finish(name: str, some: list[int]) -> None:
        with closing(Bench(host, name)) as mine:
            for id in some:
                mine.connection.execute(_END, {"id": id})
                fold_all(mine.connection)

    answers = race(lambda: finish("a", ids[:2]), lambda: finish("b", ids[2:]))
    assert answers == [None, None]
    fold_all(bench.connection)
    row = batch_of(bench, batch.id)
    assert (row["enqueued"], row["ends"], row["end_no"]) == (5, {"finished returned": 5}, 1)
    assert len(bench.rows("SELECT * FROM opsjobs.callbacks")) == 1


_END = """
    WITH moved AS (
        UPDATE opsjobs.jobs SET state = 'finished', ended_at = clock_timestamp(), ended_by = 'returned'
        WHERE id = %(id)s RETURNING batch_id, state, ended_by)
    INSERT INTO opsjobs.batch_end_events SELECT batch_id, state, ended_by, 1 FROM moved
"""


# --- kills


@pytest.mark.sessions
@pytest.mark.parametrize("statement", range(1, 10))
def test_killed_between_any_two_statements_the_next_fold_does_it_once(
    db: SQLAlchemy,
    opsjobs: OpsJobs,
    host: Host,
    bench: Bench,
    row_task: Task,
    report: Task,
    alert: Task,
    monkeypatch: pytest.MonkeyPatch,
    statement: int,
    end: Callable[..., None],
) -> None:
    with opsjobs.batch("import", on_end=report, on_failure=alert) as batch:
        job = batch.enqueue(row_task, -1)
    db.session.commit()
    end(job.id, "raised")
    dying = connect_apart(host.engine)
    loaded: list[str] = []

    def load(name: str, **variant: bool) -> str:
        loaded.append(name)
        if len(loaded) == statement:
            values = [dying.info.backend_pid]
            bench.connection.execute("SELECT pg_terminate_backend(%s, 5000)", values)
        return sql_load(name, **variant)

    sql_load = sql.load
    sql_load("lock_batch_to_fold")  # with its parts, which are not statements of their own
    with monkeypatch.context() as patched, closing(dying):
        patched.setattr("flask_opsjobs.endings.fold.sql.load", load)
        if statement <= 8:
            with pytest.raises(psycopg.OperationalError):
                fold(dying, batch.id)
        else:  # it needs eight statements
            fold(dying, batch.id)
    assert len(loaded) == min(statement, 8)
    if statement <= 8:
        assert bench.row("SELECT state FROM opsjobs.batches")["state"] == "running"
        assert bench.rows("SELECT * FROM opsjobs.callbacks") == []
    assert fold_all(bench.connection) <= 2
    row = batch_of(bench, batch.id)
    assert (row["state"], row["end_no"]) == ("failed", 1)
    events = bench.rows("SELECT event FROM opsjobs.callbacks ORDER BY event")
    assert [one["event"] for one in events] == ["end", "failure"]


# --- in turns


def test_many_rows_are_folded_in_turns(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, row_task: Task
) -> None:
    with opsjobs.batch("import") as batch:
        batch.enqueue_many(row_task, ({} for _ in range(MOST_EVENTS)))
    db.session.commit()
    bench.connection.execute(
        "UPDATE opsjobs.jobs SET state = 'finished', ended_at = now(), ended_by = 'returned'"
    )
    bench.connection.execute(
        "INSERT INTO opsjobs.batch_end_events SELECT %s, 'finished', 'returned', 1"
        " FROM generate_series(1, %s)",
        [batch.id, MOST_EVENTS],
    )
    first = fold(bench.connection, batch.id)
    assert first is not None
    assert first.has_more
    assert bench.row("SELECT state FROM opsjobs.batches")["state"] == "running"
    assert fold_all(bench.connection) == 1
    assert batch_of(bench, batch.id)["state"] == "finished"


def test_what_is_taken_back_is_folded_after_what_it_takes_back(
    db: SQLAlchemy,
    opsjobs: OpsJobs,
    bench: Bench,
    row_task: Task,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(folding, "MOST_EVENTS", 2)
    with opsjobs.batch("import") as batch:
        batch.enqueue(row_task)
    db.session.commit()
    values = [(-1, "failed"), (-1, "failed"), (1, "failed"), (1, "failed"), (1, "failed")]
    for number, kind in values:
        bench.connection.execute(
            "INSERT INTO opsjobs.batch_end_events VALUES (%s, %s, 'exhausted', %s)",
            [batch.id, kind, number],
        )
    assert fold_all(bench.connection) >= 2
    ends = bench.rows("SELECT state, number FROM opsjobs.batch_ends")
    assert ends == [{"state": "failed", "number": 1}]


# --- who folds


def test_the_process_that_ended_the_last_member_folds_at_once(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, row_task: Task, end: Callable[..., None]
) -> None:
    with opsjobs.batch("import") as batch:
        jobs = [batch.enqueue(row_task, 1).id for _ in range(2)]
    db.session.commit()
    pending = PendingBatches(only_last=True)
    end(jobs[0])
    pending.add([batch.id])
    pending.advance(bench.connection)
    assert not pending
    assert bench.row("SELECT enqueued FROM opsjobs.batches")["enqueued"] == 0
    end(jobs[1])
    pending.add([batch.id])
    wait_until(lambda: pending.due_in() == 0, what="the next look")
    pending.advance(bench.connection)
    assert not pending
    assert batch_of(bench, batch.id)["state"] == "finished"


def test_a_batch_is_looked_at_seldom_whatever_the_pace_of_its_ends(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending_module, "_SHORTEST_SECONDS", 60)
    pending = PendingBatches(only_last=True)
    assert pending.due_in() == inf
    pending.add([1])
    assert pending.due_in() == 0
    assert pending.advance(bench.connection) == []
    pending.add([1])
    assert 50 < pending.due_in() <= 60


def test_a_close_after_the_last_member_folds_at_once(
    db: SQLAlchemy, opsjobs: OpsJobs, host: Host, bench: Bench
) -> None:
    host.dispatcher = AfterCommitDispatch(host)
    with opsjobs.batch("import") as batch:
        pass
    db.session.commit()
    assert batch_of(bench, batch.id)["state"] == "finished"


def test_the_loop_folds_what_nobody_folded_and_says_how_much(
    db: SQLAlchemy, opsjobs: OpsJobs, host: Host, bench: Bench
) -> None:
    for _ in range(3):
        with opsjobs.batch("import"):
            pass
    db.session.commit()
    runner = Runner(fold_loop.LOOP, host)
    runner.run_once(bench.connection)
    report = "SELECT report FROM opsjobs.loop_runs WHERE loop = 'fold' ORDER BY id DESC LIMIT 1"
    assert bench.row(report)["report"] == "folded 3 batches"
    runner.run_once(bench.connection)
    states = bench.rows("SELECT DISTINCT state FROM opsjobs.batches")
    assert states == [{"state": "finished"}]


def test_the_loop_looks_at_few_closed_batches_a_pass_and_at_all_in_turns(
    db: SQLAlchemy,
    opsjobs: OpsJobs,
    host: Host,
    bench: Bench,
    row_task: Task,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seven closed batches without end events, whose members were deleted by SQL; a pass looks at three."""
    monkeypatch.setattr(folding, "_MOST_LOOKED_AT", 3)
    for _ in range(7):
        with opsjobs.batch("import") as batch:
            batch.enqueue(row_task)
    db.session.commit()
    fold_all(bench.connection)
    bench.connection.execute(
        "DELETE FROM opsjobs.jobs WHERE id = (SELECT max(id) FROM opsjobs.jobs)"
    )
    runner, states = Runner(fold_loop.LOOP, host), []
    for _ in range(3):
        runner.run_once(bench.connection)
        states.append(bench.row(STATE, batch.id)["state"])
    assert states == ["running", "running", "failed"]
    assert batch_of(bench, batch.id)["lost"] == 1
    bench.connection.execute("DELETE FROM opsjobs.jobs")
    for _ in range(3):
        runner.run_once(bench.connection)
    assert bench.rows("SELECT DISTINCT state FROM opsjobs.batches") == [{"state": "failed"}]


def test_a_short_turn_leaves_the_others_to_the_next(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench
) -> None:
    batches = [opsjobs.batch("import").open() for _ in range(3)]
    for batch in batches:
        batch.close()
    db.session.commit()
    pending = PendingBatches()
    pending.add(batch.id for batch in batches)
    for number in (1, 2, 3):
        assert pending
        pending.advance(bench.connection, 0)
        ended = bench.row("SELECT count(*) AS n FROM opsjobs.batches WHERE state = 'finished'")
        assert ended["n"] == number
    assert not pending


def test_rows_of_a_batch_that_is_gone_are_forgotten(bench: Bench) -> None:
    bench.connection.execute("INSERT INTO opsjobs.batch_end_events VALUES (7, 'enqueued', '', 1)")
    assert list_batches_to_fold(bench.connection) == [7]
    assert fold(bench.connection, 7) is None
    assert list_batches_to_fold(bench.connection) == []


def test_a_fault_of_one_batch_is_noted_on_it_and_heals(
    db: SQLAlchemy,
    opsjobs: OpsJobs,
    bench: Bench,
    report: Task,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with opsjobs.batch("bad", on_end=report) as bad:
        pass
    with opsjobs.batch("good") as good:
        pass
    db.session.commit()
    # As after a downgrade: a stored callback that this code cannot read.
    bench.connection.execute(
        "UPDATE opsjobs.batches SET on_end = on_end - 'queue' WHERE id = %s", [bad.id]
    )
    pending = PendingBatches()
    tries = _count_tries(monkeypatch)
    for _ in range(3):  # as after each of three flushes
        pending.add(list_batches_to_fold(bench.connection))
        pending.advance(bench.connection)
    assert tries.count(bad.id) == 1, "it is not tried more often than the pace"
    states = {row["id"]: row for row in bench.rows("SELECT * FROM opsjobs.batches")}
    assert states[good.id]["state"] == "finished"
    assert states[bad.id]["state"] == "running"
    assert states[bad.id]["trouble"]
    assert pending.due_in() > 0.5
    wait_until(lambda: pending.due_in() == 0, what="the next try")
    monkeypatch.setattr(pending_module, "_TROUBLE_SECONDS", 0)
    pending.advance(bench.connection)
    assert tries.count(bad.id) == 2
    assert sum("cannot be folded" in record.message for record in caplog.records) == 1
    bench.connection.execute(
        """UPDATE opsjobs.batches SET on_end = on_end || '{"queue": "default"}' WHERE id = %s""",
        [bad.id],
    )
    pending.add(list_batches_to_fold(bench.connection))
    pending.advance(bench.connection)
    row = batch_of(bench, bad.id)
    assert (row["state"], row["trouble"]) == ("finished", None)
    assert f"batch {bad.id} can be folded again" in caplog.messages


def _count_tries(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batches that are tried from now on."""
    tries: list[int] = []

    def counted(connection: Connection, batch: int) -> Any:
        tries.append(batch)
        return fold(connection, batch)

    monkeypatch.setattr("flask_opsjobs.endings.pending_batches.fold", counted)
    return tries


def test_many_batches_in_trouble_hold_up_no_other(
    db: SQLAlchemy, opsjobs: OpsJobs, host: Host, bench: Bench, report: Task
) -> None:
    """More than one pass looks at; the one that can be folded comes last."""
    for _ in range(120):
        with opsjobs.batch("bad", on_end=report):
            pass
    with opsjobs.batch("good") as good:
        pass
    db.session.commit()
    bench.connection.execute("UPDATE opsjobs.batches SET on_end = on_end - 'queue'")
    runner = Runner(fold_loop.LOOP, host)
    assert runner.run_once(bench.connection), "it goes on at once"
    for _ in range(10):  # a pass lasts a second at most
        runner.run_once(bench.connection)
        if bench.row(STATE, good.id)["state"] == "finished":
            break
    assert bench.row(STATE, good.id)["state"] == "finished"
    assert (
        bench.row("SELECT count(*) AS n FROM opsjobs.batches WHERE state = 'running'")["n"] == 120
    )


def test_a_member_that_is_locked_for_long_makes_no_heartbeat_late(
    db: SQLAlchemy, opsjobs: OpsJobs, host: Host, bench: Bench, row_task: Task
) -> None:
    """Whoever folds a canceled batch waits 0.1 s for it, tries again later, and says after 2 s that the batch
    has trouble.
    """
    with opsjobs.batch("import") as batch:
        jobs = [batch.enqueue(row_task, number).id for number in range(3)]
    db.session.commit()
    bench.connection.execute(
        "UPDATE opsjobs.batches SET cancel_requested_at = now(), cancel_requested_by = 'anna',"
        " cancel_reason = 'a test'"
    )
    pending = PendingBatches()
    pending.add([batch.id])
    tries = 0
    with (
        closing(connect_apart(host.engine)) as worker,
        closing(connect_apart(host.engine)) as holder,
        holder.transaction(),
    ):
        # Postgres names the time-out that is over first, also when both are seen late.
        worker.execute("SET statement_timeout = '1s'")
        holder.execute("SELECT 1 FROM opsjobs.jobs WHERE id = %s FOR UPDATE", [jobs[1]])
        while pending:
            wait_until(lambda: pending.due_in() == 0, what="the next try")
            assert pending.advance(worker) == []
            tries += 1
            trouble = bench.row("SELECT trouble FROM opsjobs.batches")["trouble"]
            assert (trouble is None) == bool(pending)
    assert "LockNotAvailable" in trouble
    assert 2 <= tries <= 4
    fold_all(bench.connection)
    row = batch_of(bench, batch.id)
    assert (row["state"], row["trouble"]) == ("canceled", None)
    assert row["ends"] == {"canceled canceled": 3}


# --- plans


# By one INSERT each: the real writers would take minutes. Only plans are asked of these rows. Batch 1 has
# half of the 50,000 members, whose oldest have ended. 5,000 batches have ended. The last 5,000 jobs are of
# no batch.
_MANY = """
INSERT INTO opsjobs.batches (name, state, created_at, closed_at)
SELECT 'import', 'running', now(), now() FROM generate_series(1, 50);
INSERT INTO opsjobs.batches (name, state, created_at, closed_at, ended_at)
SELECT 'old', 'finished', now(), now(), now() FROM generate_series(1, 5000);
INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, created_at, due_at, batch_id,
    ended_at, ended_by)
SELECT 'call', 'default', 'default', CASE WHEN n < 49000 THEN 'finished' ELSE 'available' END, '{}', 1, now(),
    now(), CASE WHEN n % 2 = 0 THEN 1 ELSE n % 50 + 1 END, CASE WHEN n < 49000 THEN now() END,
    CASE WHEN n < 49000 THEN 'returned' END
FROM generate_series(1, 50000) AS n;
INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, created_at, due_at, ended_at,
    ended_by)
SELECT 'call', 'default', 'default', 'failed', '{}', 1, now(), now(), now(), 'exhausted'
FROM generate_series(1, 5000);
INSERT INTO opsjobs.batch_end_events
SELECT n % 50 + 1, 'finished', 'returned', 1 FROM generate_series(1, 5000) AS n;
ANALYZE opsjobs.jobs, opsjobs.batches, opsjobs.batch_end_events
"""


@pytest.fixture(scope="module")
def many(databases: Databases) -> Iterator[Connection]:
    """A connection to a database with these batches."""
    with databases.connection() as connection:
        connection.execute(_MANY)
        yield connection


PLANS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "find_batches_without_open_members": ({"ids": [1, 2]}, {"jobs_open_of_batch"}),
    "fold_batch_end_events": (
        {"id": 1, "limit": 1000, "now": "2026-01-01T00:00Z"},
        {"batch_end_events_by_batch"},
    ),
    "list_batches_to_fold": (
        {"limit": 100, "after": 0, "looked_after": 0, "most": 1000},
        {"batch_end_events_by_batch", "jobs_open_of_batch"},
    ),
    "find_end_of_look_at_batches": ({"after": 10, "most": 20}, {"batches_by_state"}),
    "list_members_to_stop": ({"id": 1, "limit": 1000}, {"jobs_open_of_batch"}),
    "end_batch": ({"id": 2, "now": "2026-01-01T00:00Z"}, {"batch_ends_pkey", "jobs_open_of_batch"}),
    "list_members_to_retry": (
        {"id": 1, "states": ["failed"], "limit": 100, "now": "2026-01-01T00:00Z"},
        {"jobs_of_batch"},
    ),
    "list_workers_of_batches_to_stop": ({"ids": [1]}, set()),
    "check_batches": ({"ids": [2, 5_000]}, {"jobs_of_batch"}),
    "list_batches_to_examine": ({}, {"batches_pkey", "batch_end_events_by_batch"}),
}


@pytest.mark.parametrize("statement", PLANS)
def test_a_statement_of_batches_reads_by_its_index(many: Connection, statement: str) -> None:
    values, expected = PLANS[statement]
    nodes = explain(many, statement, values)
    assert expected <= {node.get("Index Name") for node in nodes}
    jobs = [node for node in nodes if node.get("Relation Name") == "jobs"]
    assert all("Seq Scan" not in node["Node Type"] for node in jobs)


def test_many_end_events_of_one_batch_are_not_read_to_find_it(many: Connection) -> None:
    values, _ = PLANS["list_batches_to_fold"]
    nodes = explain(many, "list_batches_to_fold", values)
    events = [node for node in nodes if node.get("Index Name") == "batch_end_events_by_batch"]
    assert sum(node["Actual Rows"] * node["Actual Loops"] for node in events) <= 51, "one per batch"


def test_the_end_of_a_look_reads_no_batch_behind_it(many: Connection) -> None:
    values, _ = PLANS["find_end_of_look_at_batches"]
    nodes = explain(many, "find_end_of_look_at_batches", values)
    (scan,) = [node for node in nodes if node.get("Index Name") == "batches_by_state"]
    assert (scan["Actual Rows"], scan.get("Rows Removed by Filter", 0)) == (20, 0)


def test_the_probe_reads_one_open_member(many: Connection) -> None:
    nodes = explain(many, "find_batches_without_open_members", {"ids": [1]})
    (probe,) = [node for node in nodes if node.get("Index Name") == "jobs_open_of_batch"]
    assert probe["Actual Rows"] == 1
    assert probe["Scan Direction"] == "Backward"

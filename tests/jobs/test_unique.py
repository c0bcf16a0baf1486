"""Two connections race for one unique call, each in a thread that starts at a barrier or waits for a lock."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from flask_sqlalchemy import SQLAlchemy
from pydantic import BaseModel
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session

from flask_opsjobs import InvalidArgs, OpsJobs, Unique
from flask_opsjobs.core import sql
from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.record import unique_locks
from flask_opsjobs.jobs.record.enqueue import Enqueued, enqueue_detached, find_same_call
from flask_opsjobs.jobs.record.task import Task
from flask_opsjobs.jobs.record.unique_locks import keys_of
from tests.support.waiting import wait_until

HOUR = timedelta(hours=1)


def make(host: Host, unique: Unique) -> Task:
    """A task of a process: it records with the secrets of the `host` that it is given."""

    def once(a: int, b: str = "x", day: date | None = None) -> None: ...

    return Task(once, host=lambda: host, unique=unique)


@pytest.fixture
def ended(host: Host) -> Task:
    return make(host, Unique(until="ended"))


@pytest.fixture
def engine(host: Host) -> Iterator[Engine]:
    engine = create_engine(host.engine.url)
    yield engine
    engine.dispose()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def scalars(engine: Engine, statement: str) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.scalars(text(statement)))


def count(engine: Engine, table: str = "jobs") -> int:
    return int(scalars(engine, f"SELECT count(*) FROM opsjobs.{table}")[0])


def end(host: Host, job: Enqueued) -> None:
    """End a job as `endings` does: its row, and its unique locks in the same transaction."""
    with connect_apart(host.engine) as connection, connection.transaction():
        connection.execute(
            "UPDATE opsjobs.jobs"
            " SET state = 'finished', ended_at = now(), ended_by = 'returned' WHERE id = %s",
            (job.id,),
        )
        unique_locks.release(connection, [job.id])


# --- the key


@pytest.mark.processes
def test_the_key_is_the_same_in_every_process(tmp_path: Any) -> None:
    """Also of a set, whose order differs with each process' hashes."""
    script = (
        "from datetime import date; from decimal import Decimal;"
        "from flask_opsjobs.jobs.record.unique_locks import keys_of;"
        "words = frozenset('abcdefghijk');"
        "chosen = {'b': {words, frozenset()}, 'a': [1.5, date(2026, 1, 2), Decimal('1.50'), b'x', None]};"
        "print(keys_of([b'secret'], 'task', chosen)[0].hex())"
    )
    said = set()
    for seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        said.add(run.stdout.strip())
    assert len(said) == 1
    assert len(said.pop()) == 64


def test_the_key_depends_on_worker_arguments_and_secret() -> None:
    found = [
        keys_of([b"secret"], "task", {"a": 1}),
        keys_of([b"secret"], "other", {"a": 1}),
        keys_of([b"secret"], "task", {"a": 2}),
        keys_of([b"secret"], "task", {"a": "1"}),
        keys_of([b"another"], "task", {"a": 1}),
    ]
    assert len({key for (key,) in found}) == 5
    assert keys_of([b"secret", b"another", b"secret"], "task", {"a": 1}) == found[0] + found[4]


def test_a_default_left_out_and_a_default_given_are_the_same_call(
    db: SQLAlchemy, ended: Task
) -> None:
    first = ended.enqueue(1)
    assert not first.conflict
    for again in (
        ended.enqueue(1, "x"),
        ended.enqueue(a="1", b="x", day=None),
        ended.enqueue(day=None, a=1),
    ):
        assert again == Enqueued(first.id, "available", conflict=True)
    assert not ended.enqueue(1, day="2026-01-02").conflict
    assert ended.enqueue(1, day=date(2026, 1, 2)).conflict


def test_by_names_the_arguments_that_count(db: SQLAlchemy, host: Host) -> None:
    task = make(host, Unique(by=["a"], until="ended"))
    assert not task.enqueue(1, "x").conflict
    assert task.enqueue(1, "y").conflict
    assert not task.enqueue(2, "x").conflict
    alone = task.options(unique=Unique(by=[], until="ended"))
    assert not alone.enqueue(5).conflict
    assert alone.enqueue(6).conflict


def test_key_computes_what_counts(db: SQLAlchemy, host: Host) -> None:
    seen: list[dict[str, Any]] = []

    def by_month(arguments: dict[str, Any]) -> Any:
        seen.append(arguments)
        return arguments["day"].strftime("%Y-%m")

    task = make(host, Unique(key=by_month, until="forever"))
    assert not task.enqueue(1, day="2026-01-02").conflict
    assert task.enqueue(2, day="2026-01-30").conflict
    assert not task.enqueue(2, day="2026-02-01").conflict
    assert seen[0] == {"a": 1, "b": "x", "day": date(2026, 1, 2)}
    opaque = task.options(unique=Unique(key=lambda _: object(), until="forever"))
    with pytest.raises(InvalidArgs, match="cannot be part of a unique key"):
        opaque.enqueue(1)


def test_rich_arguments_count_by_their_value(db: SQLAlchemy, opsjobs: OpsJobs) -> None:
    class Item(BaseModel):
        sku: str
        tags: set[str]

    def sell(item: Item, at: datetime) -> None: ...

    sell.__annotations__ = {"item": Item, "at": datetime}
    task = opsjobs.task(unique=Unique(until="ended"))(sell)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    first = task.enqueue({"sku": "a", "tags": ["x", "y"]}, at)
    assert task.enqueue(Item(sku="a", tags={"y", "x"}), at.isoformat()).id == first.id
    assert not task.enqueue(Item(sku="b", tags={"y", "x"}), at).conflict


def test_unique_can_be_switched_off_for_a_call(db: SQLAlchemy, ended: Task) -> None:
    ended.enqueue(1)
    assert not ended.options(unique=None).enqueue(1).conflict
    assert ended.enqueue(1).conflict


# --- lifetimes


def test_until_ended(db: SQLAlchemy, host: Host, ended: Task, engine: Engine) -> None:
    first = ended.enqueue(1)
    db.session.commit()
    end(host, first)
    second = ended.enqueue(1)
    db.session.commit()
    assert second.id != first.id
    assert not second.conflict
    assert scalars(engine, "SELECT job_id FROM opsjobs.unique_locks") == [second.id]


@pytest.mark.parametrize("unique", [Unique(until="forever"), Unique(within=HOUR)])
def test_longer_than_the_job(db: SQLAlchemy, host: Host, unique: Unique, engine: Engine) -> None:
    task = make(host, unique)
    first = task.enqueue(1)
    db.session.commit()
    end(host, first)
    assert task.enqueue(1) == Enqueued(first.id, "finished", conflict=True)
    db.session.execute(text("DELETE FROM opsjobs.jobs"))
    assert task.enqueue(1) == Enqueued(first.id, None, conflict=True)
    db.session.commit()
    assert count(engine) == 0


def test_within_counts_from_the_enqueue_and_expires(
    db: SQLAlchemy, host: Host, engine: Engine
) -> None:
    task = make(host, Unique(within=HOUR))
    first = task.options(delay=600).enqueue(1)
    db.session.commit()
    assert scalars(engine, "SELECT expires_at - created_at FROM opsjobs.unique_locks") == [HOUR]
    assert task.enqueue(1).conflict
    db.session.execute(text("UPDATE opsjobs.unique_locks SET expires_at = clock_timestamp()"))
    second = task.enqueue(1)
    assert not second.conflict
    assert task.enqueue(1).id == second.id
    db.session.commit()
    # The expired one was taken over; the first job's end cannot release the second's.
    end(host, first)
    assert scalars(engine, "SELECT job_id FROM opsjobs.unique_locks") == [second.id]


def test_release_leaves_other_lifetimes(db: SQLAlchemy, host: Host, engine: Engine) -> None:
    jobs = [
        make(host, unique).enqueue(number)
        for number, unique in enumerate(
            (Unique(until="ended"), Unique(until="forever"), Unique(within=HOUR))
        )
    ]
    db.session.commit()
    for job in jobs:
        end(host, job)
    assert sorted(scalars(engine, "SELECT until FROM opsjobs.unique_locks")) == [
        "forever",
        "within",
    ]


def test_the_row_bears_the_key_in_use(db: SQLAlchemy, host: Host, ended: Task) -> None:
    host.secrets = (b"new", b"old")
    ended.enqueue(1)
    (key,) = db.session.scalars(text("SELECT unique_key FROM opsjobs.jobs"))
    assert bytes(key) == keys_of([b"new"], "once", {"a": 1, "b": "x", "day": None})[0]


# --- savepoints and rollbacks of one session


def test_a_savepoint_that_is_rolled_back_releases_the_unique_lock(
    db: SQLAlchemy, ended: Task, engine: Engine
) -> None:
    nested = db.session.begin_nested()
    lost = ended.enqueue(1)
    nested.rollback()
    kept = ended.enqueue(1)
    assert not kept.conflict
    with db.session.begin_nested():
        assert ended.enqueue(1) == Enqueued(kept.id, "available", conflict=True)
    db.session.commit()
    assert scalars(engine, "SELECT id FROM opsjobs.jobs") == [kept.id] != [lost.id]


# --- races


def waits_for_lock(engine: Engine) -> bool:
    """Whether some connection to this database waits for another's transaction."""
    return bool(
        scalars(
            engine,
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
    )


def race(
    pool: ThreadPoolExecutor, engine: Engine, one: Task, other: Task, how_one_ends: str
) -> tuple[Enqueued, Enqueued]:
    """`one` records and does not commit, `other` meets it and waits, then `one` ends its transaction."""
    with Session(one.host().engine) as session:
        first = one.options(session=session).enqueue(1)
        second: Future[Enqueued] = pool.submit(record, other)
        wait_until(lambda: waits_for_lock(engine), what="the second to wait for the first")
        assert not second.done()
        getattr(session, how_one_ends)()
    return first, second.result(timeout=10)


def record(task: Task, number: int = 1) -> Enqueued:
    with Session(task.host().engine) as session:
        job = task.options(session=session).enqueue(number)
        session.commit()
        return job


UNIQUES = [Unique(until="ended"), Unique(until="forever"), Unique(within=HOUR)]


@pytest.mark.parametrize("unique", UNIQUES, ids=lambda unique: unique.lifetime)
def test_two_enqueues_of_one_key_the_first_commits(
    host: Host, engine: Engine, pool: ThreadPoolExecutor, unique: Unique
) -> None:
    task = make(host, unique)
    first, second = race(pool, engine, task, task, "commit")
    assert second == Enqueued(first.id, "available", conflict=True)
    assert count(engine) == 1


@pytest.mark.parametrize("unique", UNIQUES, ids=lambda unique: unique.lifetime)
def test_two_enqueues_of_one_key_the_first_rolls_back(
    host: Host, engine: Engine, pool: ThreadPoolExecutor, unique: Unique
) -> None:
    task = make(host, unique)
    first, second = race(pool, engine, task, task, "rollback")
    assert not second.conflict
    assert scalars(engine, "SELECT id FROM opsjobs.jobs") == [second.id] != [first.id]
    assert set(scalars(engine, "SELECT job_id FROM opsjobs.unique_locks")) == {second.id}


@pytest.mark.parametrize("how", ["commit", "rollback"])
@pytest.mark.parametrize("who", ["old first", "new first"])
def test_key_rotation_in_a_rolling_deploy(
    host: Host, engine: Engine, pool: ThreadPoolExecutor, who: str, how: str
) -> None:
    """A process that knows only the old secret meets one that has a new one and the old as a fallback."""
    unique = Unique(until="ended")
    old = make(replace(host, secrets=(b"old",)), unique)
    new = make(replace(host, secrets=(b"new", b"old")), unique)
    pair = (old, new) if who == "old first" else (new, old)
    first, second = race(pool, engine, *pair, how)
    if how == "commit":
        assert second == Enqueued(first.id, "available", conflict=True)
    else:
        assert not second.conflict
    jobs = scalars(engine, "SELECT id FROM opsjobs.jobs")
    assert jobs == ([first.id] if how == "commit" else [second.id])
    # Every unique lock stands for the one job, so that its end releases all.
    assert set(scalars(engine, "SELECT job_id FROM opsjobs.unique_locks")) == set(jobs)
    end(host, Enqueued(jobs[0], "available"))
    assert count(engine, "unique_locks") == 0
    assert not record(old).conflict


def test_after_the_rotation_the_new_key_alone_is_enough(host: Host, engine: Engine) -> None:
    task = make(host, Unique(until="forever"))
    host.secrets = (b"new", b"old")
    first = record(task)
    assert not first.conflict
    host.secrets = (b"newest", b"new")
    assert record(task) == Enqueued(first.id, "available", conflict=True)
    host.secrets = (b"newest",)
    # Met under a fallback, a call gets no unique lock of its own:
    # who drops a key forgets what only it proves.
    assert not record(task).conflict


def test_a_rotated_key_answers_with_the_first_job_whoever_asks(host: Host, engine: Engine) -> None:
    """Also a loop or an operator, who enqueue on a connection of ours; what is answered exists."""
    task = make(replace(host, secrets=(b"old",)), Unique(until="ended"))
    first = record(task)
    rotated = replace(host, secrets=(b"new", b"old"))
    with connect_apart(host.engine) as connection:
        stored = {"a": 1, "b": "x", "day": None}
        for _ in range(2):
            again, _lane = enqueue_detached(connection, rotated, task, stored)
            assert again == Enqueued(first.id, "available", conflict=True)
        assert find_same_call(connection, rotated, task, stored) == first.id
    assert scalars(engine, "SELECT id FROM opsjobs.jobs") == [first.id]
    assert scalars(engine, "SELECT job_id FROM opsjobs.unique_locks") == [first.id]


def test_a_bulk_call_after_a_rotation_leaves_the_unique_locks_of_the_first_jobs(
    host: Host, engine: Engine
) -> None:
    task = make(replace(host, secrets=(b"old",)), Unique(until="ended"))
    known = [record(task, number).id for number in (1, 2)]
    rotated = make(replace(host, secrets=(b"new", b"old")), Unique(until="ended"))
    with Session(host.engine) as session:
        made = rotated.options(session=session).enqueue_many({"a": one} for one in (1, 2, 3))
        session.commit()
    assert (made.count, made.conflicts) == (1, 2)
    (third,) = set(scalars(engine, "SELECT id FROM opsjobs.jobs")) - set(known)
    held = scalars(engine, "SELECT job_id FROM opsjobs.unique_locks ORDER BY job_id")
    assert held == [*known, third, third]
    assert [record(rotated, number).id for number in (1, 2, 3)] == [*known, third]


def test_expired_unique_locks_are_taken_over_once(
    host: Host, engine: Engine, pool: ThreadPoolExecutor
) -> None:
    task = make(host, Unique(within=HOUR))
    record(task)
    with engine.begin() as connection:
        connection.execute(text("UPDATE opsjobs.unique_locks SET expires_at = clock_timestamp()"))
    first, second = race(pool, engine, task, task, "commit")
    assert not first.conflict
    assert second == Enqueued(first.id, "available", conflict=True)
    with engine.begin() as connection:
        connection.execute(text("UPDATE opsjobs.unique_locks SET expires_at = clock_timestamp()"))
    first, second = race(pool, engine, task, task, "rollback")
    assert not second.conflict
    assert count(engine) == 3
    assert scalars(engine, "SELECT job_id FROM opsjobs.unique_locks") == [second.id]


@pytest.mark.parametrize("secrets", [(b"one",), (b"new", b"old")])
def test_many_processes_record_the_same_calls_in_any_order(
    host: Host, engine: Engine, pool: ThreadPoolExecutor, secrets: tuple[bytes, ...]
) -> None:
    """Eight calls, four connections at once,
    each call in a transaction of its own: eight jobs, no deadlock.
    """
    task = make(replace(host, secrets=secrets), Unique(until="ended"))
    start = threading.Barrier(4)

    def run(turn: int) -> list[Enqueued]:
        start.wait(timeout=10)
        return [record(task, (number * (2 * turn + 1)) % 8) for number in range(40)]

    found = [job for jobs in pool.map(run, range(4)) for job in jobs]
    assert count(engine) == 8
    assert sum(not job.conflict for job in found) == 8
    assert count(engine, "unique_locks") == 8 * len(secrets)


def test_bulk_calls_that_cross_do_not_deadlock(
    host: Host, engine: Engine, pool: ThreadPoolExecutor
) -> None:
    """Each records the same rows in another order; keys are taken in order all the same."""
    task = make(replace(host, secrets=(b"new", b"old")), Unique(until="ended"))
    start = threading.Barrier(3)

    def run(turn: int) -> int:
        numbers = list(range(3_000))
        numbers = [numbers, numbers[::-1], numbers[1_500:] + numbers[:1_500]][turn]
        start.wait(timeout=10)
        with Session(host.engine) as session:
            made = task.options(session=session).enqueue_many({"a": one} for one in numbers)
            session.commit()
            return made.count

    assert sum(pool.map(run, range(3))) == 3_000
    assert count(engine) == 3_000


def test_the_end_of_a_job_does_not_wait_for_a_duplicate(
    host: Host, engine: Engine, ended: Task
) -> None:
    """A host that enqueued a duplicate and keeps its transaction open must not hold a worker's flush."""
    first = record(ended)
    with Session(host.engine) as session:
        assert ended.options(session=session).enqueue(1).conflict
        assert ended.options(session=session).enqueue_many([{"a": 1}]).conflicts == 1
        with connect_apart(host.engine) as connection, connection.transaction():
            connection.execute("SET LOCAL lock_timeout = '2s'")
            unique_locks.release(connection, [first.id])
        session.commit()
    assert count(engine, "unique_locks") == 0


def test_a_job_that_ends_meanwhile_lets_the_next_be_enqueued(
    host: Host, engine: Engine, ended: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the insert that met a unique lock and the look at it, the unique lock may go."""
    first = record(ended)
    original = sql.load

    def ending_load(name: str, **variant: bool) -> str:
        if name == "find_unique_lock" and count(engine, "unique_locks"):
            end(host, first)
        return original(name, **variant)

    monkeypatch.setattr(sql, "load", ending_load)
    second = record(ended)
    assert second.id != first.id
    assert not second.conflict

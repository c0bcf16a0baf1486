from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Engine, create_engine, text

from flask_opsjobs import InvalidArgs, OpsJobs, Unique
from flask_opsjobs.errors import WrongSession
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.record.enqueue import EnqueuedMany
from flask_opsjobs.jobs.record.task import Task

SECRET = "s3cr3t-value"


@pytest.fixture
def add(opsjobs: OpsJobs) -> Task:
    @opsjobs.task(redact={"pin"})
    def add(a: int, b: Any = None, pin: str | None = None) -> None: ...

    return add


@pytest.fixture
def once(opsjobs: OpsJobs) -> Task:
    @opsjobs.task(unique=Unique(until="ended"))
    def once(a: int, b: Any = None) -> None: ...

    return once


@pytest.fixture
def other(host: Host) -> Iterator[Engine]:
    engine = create_engine(host.engine.url)
    yield engine
    engine.dispose()


def all_args(engine: Engine) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return list(connection.scalars(text("SELECT args FROM opsjobs.jobs ORDER BY id")))


def count(engine: Engine, table: str = "jobs") -> int:
    with engine.connect() as connection:
        found: int = connection.execute(text(f"SELECT count(*) FROM opsjobs.{table}")).scalar_one()
        return found


def test_many_jobs_are_rows_like_any_other(db: SQLAlchemy, opsjobs: OpsJobs, other: Engine) -> None:
    @opsjobs.task(
        queue="mail",
        priority=2,
        max_attempts=3,
        timeout=9,
        deadline=timedelta(hours=1),
        tags=['a"b', "c\\d", "e,f", " ", "NULL"],
        meta={"tab": "\t", "line": "\n", "back": "\\"},
    )
    def send(to: str) -> None: ...

    send.enqueue(to="x")
    assert send.enqueue_many({"to": "x"} for _ in range(2)) == EnqueuedMany(2)
    send.options(delay=60).enqueue_many([{"to": "x"}])
    db.session.commit()
    with other.connect() as connection:
        found = connection.execute(text("SELECT * FROM opsjobs.jobs ORDER BY id")).mappings()
        one, first, second, later = (dict(row) for row in found)
    times = ("id", "created_at", "due_at", "deadline_at")
    assert first["due_at"] == first["created_at"] == second["created_at"] > one["created_at"]
    assert first["deadline_at"] - first["due_at"] == timedelta(hours=1)
    assert later["due_at"] - later["created_at"] == timedelta(seconds=60)
    assert later["state"] == "scheduled"
    for row in (one, first, second):
        for name in times:
            row.pop(name)
    assert one == first == second


TEXTS = [
    "😀 ünï",
    "back\\slash",
    "\\n",
    "tab\tline\nreturn\r",
    '"',
    "\\.",
    "\\N",
    "",
    "\u2028",
    "\x7f",
]


def test_every_text_passes_through_copy(
    db: SQLAlchemy, add: Task, once: Task, other: Engine
) -> None:
    rows = [{"a": number, "b": {one: [one]}} for number, one in enumerate(TEXTS)]
    assert add.enqueue_many(rows) == EnqueuedMany(len(rows))
    assert once.enqueue_many(rows) == EnqueuedMany(len(rows))
    db.session.commit()
    assert all_args(other) == rows * 2


@pytest.mark.parametrize("name", ["add", "once"])
@pytest.mark.parametrize("at", [0, 3, 5_001])
def test_a_copy_broken_by_one_bad_row_leaves_the_hosts_transaction_usable(
    db: SQLAlchemy, add: Task, once: Task, other: Engine, name: str, at: int
) -> None:
    task = {"add": add, "once": once}[name]
    db.session.execute(text("CREATE TABLE mine (a int)"))
    task.enqueue(a=-1)
    rows: list[dict[str, Any]] = [{"a": number} for number in range(at)]
    rows += [{"a": SECRET, "c": 1}, {"a": 7}]
    with pytest.raises(InvalidArgs) as error:
        task.enqueue_many(rows)
    assert {one["loc"] for one in error.value.errors} == {f"[{at}].a", f"[{at}].c"}
    assert SECRET not in str(error.value)
    db.session.execute(text("INSERT INTO mine VALUES (1)"))
    task.enqueue(a=-2)
    assert task.enqueue_many([{"a": -3}]).count == 1
    db.session.commit()
    assert [row["a"] for row in all_args(other)] == [-1, -2, -3]


@pytest.mark.parametrize("name", ["add", "once"])
def test_an_iterable_that_raises_writes_nothing(
    db: SQLAlchemy, add: Task, once: Task, other: Engine, name: str
) -> None:
    task = {"add": add, "once": once}[name]

    def rows() -> Iterator[dict[str, Any]]:
        for number in range(6_000):
            yield {"a": number}
        raise LookupError("the file ends here")

    with pytest.raises(LookupError, match="the file ends here"):
        task.enqueue_many(rows())
    assert task.enqueue_many([{"a": 1}]).count == 1
    db.session.commit()
    assert all_args(other) == [{"a": 1}]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([(1, 2)], r"\[0\]\.arguments: Input should be a valid dictionary"),
        ([{"a": 1}, None], r"\[1\]\.arguments: Input should be a valid dictionary"),
        ([{"a": 1, "b": "\0"}], r"\[0\]\.b: has a NUL character"),
        ([{"a": 1, "b": "\ud800"}], r"\[0\]\.b: has one half of a surrogate pair"),
        ([{"a": 1, "b": "x" * 5_000_000}], r"\[0\]\.arguments: are 5000014 bytes"),
    ],
)
def test_a_bad_row_is_named(
    db: SQLAlchemy, add: Task, other: Engine, rows: list[Any], words: str
) -> None:
    with pytest.raises(InvalidArgs, match=words):
        add.enqueue_many(rows)
    db.session.commit()
    assert all_args(other) == []


@pytest.mark.parametrize("name", ["add", "once"])
def test_the_generator_may_use_the_same_session(
    db: SQLAlchemy, add: Task, once: Task, other: Engine, name: str
) -> None:
    """It reads, and even enqueues, while `enqueue_many` takes its rows."""
    task = {"add": add, "once": once}[name]

    def rows() -> Iterator[dict[str, Any]]:
        found = db.session.execute(
            text("SELECT generate_series(1, 12000)"), execution_options={"yield_per": 1000}
        )
        for (number,) in found:
            if number % 6_000 == 0:
                add.enqueue(a=-number)
                once.enqueue_many([{"a": -number}])
            yield {"a": number}

    assert task.enqueue_many(rows()).count == 12_000
    db.session.commit()
    assert count(other) == 12_004


@pytest.mark.slow
def test_memory_stays_constant(db: SQLAlchemy, add: Task, other: Engine) -> None:
    def peak(number: int) -> int:
        tracemalloc.start()
        try:
            add.enqueue_many({"a": one} for one in range(number))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1_000)
    small, large = peak(10_000), peak(30_000)
    assert large < small * 1.5
    db.session.rollback()


def test_large_rows_do_not_gather(db: SQLAlchemy, add: Task) -> None:
    tracemalloc.start()
    try:
        add.enqueue_many({"a": one, "b": "x" * 500_000} for one in range(60))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12_000_000  # of 30,000,000
    db.session.rollback()


def test_redacted_values_are_dropped(db: SQLAlchemy, add: Task, other: Engine) -> None:
    add.enqueue_many([{"a": 1, "pin": SECRET}])
    db.session.commit()
    assert all_args(other) == [{"a": 1}]


# --- unique ones


def test_the_first_of_equal_rows_wins(db: SQLAlchemy, once: Task, other: Engine) -> None:
    first = once.enqueue(a=3)
    rows = [{"a": number % 5, "b": None} for number in range(20)]
    assert once.enqueue_many(rows) == EnqueuedMany(4, conflicts=16)
    assert once.enqueue_many(rows) == EnqueuedMany(0, conflicts=20)
    db.session.commit()
    assert [row["a"] for row in all_args(other)] == [3, 0, 1, 2, 4]
    assert once.enqueue(a=3).id == first.id
    assert count(other, "unique_locks") == 5
    with other.connect() as connection:
        # Each job bears the key of its unique lock, and the unique lock the job's id.
        assert (
            connection.execute(
                text(
                    "SELECT count(*) FROM opsjobs.jobs j JOIN opsjobs.unique_locks r "
                    "ON r.job_id = j.id AND r.key = j.unique_key AND r.until = 'ended'"
                )
            ).scalar_one()
            == 5
        )


def test_expired_unique_locks_are_taken_over(db: SQLAlchemy, once: Task, other: Engine) -> None:
    call = once.options(unique=Unique(within=timedelta(hours=1)))
    rows = [{"a": number} for number in range(10)]
    assert call.enqueue_many(rows).count == 10
    db.session.execute(
        text(
            "UPDATE opsjobs.unique_locks SET expires_at = clock_timestamp() WHERE job_id IN "
            "(SELECT id FROM opsjobs.jobs WHERE (args->>'a')::int < 4)"
        )
    )
    assert call.enqueue_many(rows) == EnqueuedMany(4, conflicts=6)
    db.session.commit()
    assert count(other) == 14
    assert count(other, "unique_locks") == 10


def test_nothing_temporary_is_left(db: SQLAlchemy, once: Task) -> None:
    for _ in range(3):
        once.enqueue_many([{"a": 1}])
    left = db.session.execute(
        text("SELECT count(*) FROM pg_class WHERE relpersistence = 't' AND relname LIKE 'opsjobs%'")
    )
    assert left.scalar_one() == 0


def test_unique_rows_pass_a_rotation_of_the_secret_key(
    db: SQLAlchemy, once: Task, host: Host, other: Engine
) -> None:
    """Jobs of a process that knows only the old key, then one that knows both, then the old one again."""
    new, old = b"new", host.secrets[0]
    assert once.enqueue_many([{"a": 1}, {"a": 2}]).count == 2
    host.secrets = (new, old)
    rows = [{"a": number} for number in range(1, 5)] * 2
    assert once.enqueue_many(rows) == EnqueuedMany(2, conflicts=6)
    host.secrets = (old,)
    assert once.enqueue_many(rows) == EnqueuedMany(0, conflicts=8)
    host.secrets = (new,)
    assert once.enqueue_many([{"a": 3}, {"a": 4}]) == EnqueuedMany(0, conflicts=2)
    db.session.commit()
    # Of the calls met under the old key no unique lock under the new one is left behind.
    assert count(other, "unique_locks") == 2 + 2 * 2


@pytest.mark.parametrize("how", ["rollback", "commit"])
@pytest.mark.parametrize("rows", [2, 12_000])
def test_an_iterable_that_ends_the_transaction_is_refused(
    how: str, rows: int, db: SQLAlchemy, add: Task, other: Engine
) -> None:
    """Otherwise the rest would be copied over a connection
    that went back to the pool, and be lost in silence.
    """

    def calls() -> Iterator[dict[str, int]]:
        for number in range(rows):
            if number == rows - 1:
                getattr(db.session, how)()
            yield {"a": number}

    with pytest.raises(WrongSession, match="has ended the session's transaction"):
        add.enqueue_many(calls())
    db.session.rollback()
    copied = count(other)
    assert copied == (0 if how == "rollback" or rows == 2 else 10_000)
    # The session and its pool are as they were.
    assert add.enqueue_many([{"a": 1}]) == EnqueuedMany(1)
    db.session.commit()
    assert count(other) == copied + 1


def test_a_session_in_autocommit_is_refused(db: SQLAlchemy, add: Task, other: Engine) -> None:
    from sqlalchemy.orm import Session

    eager = db.engine.execution_options(isolation_level="AUTOCOMMIT")
    with Session(eager) as session, pytest.raises(WrongSession, match="is in AUTOCOMMIT"):
        add.options(session=session).enqueue(a=1)
    with Session(eager) as session, pytest.raises(WrongSession, match="is in AUTOCOMMIT"):
        add.options(session=session).enqueue_many([{"a": 1}])
    assert count(other) == 0


@pytest.mark.parametrize("rows", [None, {"text": "one dict"}, "text"])
def test_what_is_no_row_of_dicts_is_named(note: Task, db: SQLAlchemy, rows: Any) -> None:
    with pytest.raises(TypeError, match="enqueue_many of task note takes dicts of arguments"):
        note.enqueue_many(rows)

from __future__ import annotations

import traceback
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from sqlalchemy import Enum, create_engine, text
from sqlalchemy.exc import IntegrityError, PendingRollbackError, SQLAlchemyError, StatementError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from flask_opsjobs.jobs.perform.describe_error import (
    MOST_ERROR_CHARACTERS,
    MOST_TRACEBACK_BYTES,
    describe_error,
    one_line,
    traceback_of,
)

SECRET = "s3cr3t-value"


def caught(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as found:
        return found


def test_one_line_and_a_traceback() -> None:
    said, told = describe_error(caught(ValueError("no such\n  account")))
    assert said == "ValueError: no such account"
    assert told is not None
    assert told.startswith("Traceback (most recent call last):\n  File ")
    assert told.endswith("ValueError: no such\n  account\n")
    assert one_line(KeyError()) == "KeyError"


def test_it_reads_as_pythons_own_does() -> None:
    try:
        try:
            try:
                raise KeyError("a")
            except KeyError as error:
                raise ValueError("b") from error
        except ValueError:
            raise RuntimeError("c")  # noqa: B904
    except RuntimeError as error:
        error.add_note("a note")
        ours, pythons = traceback_of(error), "".join(traceback.format_exception(error))
        assert ours == pythons


def test_a_suppressed_context_is_left_out() -> None:
    def once() -> None:
        try:
            raise KeyError("a")
        except KeyError:
            raise ValueError("b") from None

    with pytest.raises(ValueError, match="b") as error:
        once()
    assert "KeyError" not in traceback_of(error.value)


def test_groups_are_told_with_their_members() -> None:
    inner = ExceptionGroup("inner", [caught(KeyError("deep"))])  # type: ignore[type-var]
    told = traceback_of(caught(ExceptionGroup("outer", [caught(ValueError("a")), inner])))  # type: ignore[type-var]
    for words in (
        "ExceptionGroup: outer",
        "1 of 2 in the group",
        "ValueError: a",
        "KeyError: 'deep'",
    ):
        assert words in told


def test_causes_in_a_circle_end() -> None:
    one, other = ValueError("a"), ValueError("b")
    one.__cause__, other.__cause__ = other, one
    assert traceback_of(one).count("ValueError: ") == 2


def test_long_texts_are_cut() -> None:
    error = caught(ValueError("x" * 5_000_000))
    said, told = describe_error(error)
    assert len(said) == MOST_ERROR_CHARACTERS
    assert said.endswith("…")
    assert told is not None
    assert len(told.encode()) <= MOST_TRACEBACK_BYTES
    assert "bytes left out" in told
    assert told.startswith("Traceback")


def test_a_bottomless_recursion_is_told() -> None:
    def fall(depth: int) -> int:
        return climb(depth + 1)

    def climb(depth: int) -> int:
        return fall(depth + 1)

    with pytest.raises(RecursionError) as error:
        fall(0)
    said, told = describe_error(error.value)
    assert said.startswith("RecursionError: maximum recursion depth exceeded")
    assert told is not None
    assert len(told.encode()) <= MOST_TRACEBACK_BYTES


@given(st.text(st.characters(codec=None)))
def test_any_text_can_be_stored(words: str) -> None:
    for told in describe_error(caught(ValueError(words))):
        assert told is not None
        told.encode()
        assert "\0" not in told


def test_an_error_whose_text_cannot_be_had() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise LookupError("no words")

    said, told = describe_error(caught(Mute()))
    assert said.endswith("Mute: <its message cannot be read: LookupError>")
    assert told is not None


class Account(BaseModel):
    number: int
    notes: dict[str, int]


def test_pydantics_errors_carry_no_input() -> None:
    given = {"number": SECRET, "notes": {f"key {SECRET}": SECRET}}
    try:
        Account.model_validate(given)
    except ValueError as error:
        try:
            raise RuntimeError("cannot book") from error
        except RuntimeError as outer:
            told = "".join(map(str, describe_error(outer))) + one_line(error)
    assert SECRET not in told
    assert "2 errors for Account: number int_parsing, notes int_parsing" in told


def test_sqlalchemys_errors_carry_no_parameters(database_url: str) -> None:
    engine = create_engine(database_url)
    told: list[Any] = []
    with engine.connect() as connection:
        connection.execute(text("CREATE TABLE mine (email text PRIMARY KEY CHECK (email <> 'no'))"))
        insert = text("INSERT INTO mine VALUES (:email)")
        connection.execute(insert, {"email": SECRET})
        connection.commit()
        for statement in (insert, text("SELECT nothing FROM mine WHERE email = :email")):
            with pytest.raises(SQLAlchemyError) as error:
                connection.execute(statement, {"email": SECRET})
            assert SECRET in str(error.value)  # so it is worth the trouble
            told.append("\n".join(map(str, describe_error(error.value))))
            if isinstance(error.value, IntegrityError):
                assert "(SQLSTATE 23505, table mine)" in told[0]
                assert "(UniqueViolation) duplicate key value" in told[0]
                assert "[SQL: INSERT INTO mine VALUES (%(email)s)]" in told[0]
                assert isinstance(error.value.orig, psycopg.Error)
                told.append("\n".join(map(str, describe_error(error.value.orig))))
            connection.rollback()
    engine.dispose()
    assert len(told) == 3
    assert SECRET not in "".join(told)


class Models(DeclarativeBase):
    pass


class Booking(Models):
    __tablename__ = "bookings"
    id: Mapped[int] = mapped_column(primary_key=True)
    mood: Mapped[str] = mapped_column(Enum("good", name="mood"))


def test_an_error_that_quotes_another_or_a_parameter_carries_no_values(database_url: str) -> None:
    """After a flush that failed, and where SQLAlchemy itself refuses a parameter."""
    engine = create_engine(database_url)
    told: list[Any] = []
    with Session(engine) as session:
        session.execute(text("CREATE TYPE mood AS ENUM ('good')"))
        session.execute(
            text("CREATE TABLE bookings (id int PRIMARY KEY, mood mood CHECK (id < 5))")
        )
        session.add(Booking(id=987654321, mood="good"))
        for _ in range(2):
            with pytest.raises((IntegrityError, PendingRollbackError)) as error:
                session.execute(text("SELECT 1")) if told else session.flush()
            assert "987654321" in str(error.value)
            told.append("\n".join(map(str, describe_error(error.value))))
        session.rollback()
        session.add(Booking(id=1, mood=SECRET))
        with pytest.raises(StatementError) as refused:
            session.flush()
        assert SECRET in str(refused.value)
        told.append("\n".join(map(str, describe_error(refused.value))))
    engine.dispose()
    for each in told:
        assert "987654321" not in each
        assert SECRET not in each
    assert "rolled back due to a previous exception during flush" in told[1]


def test_a_value_written_into_a_statement_is_hidden(database_url: str) -> None:
    engine = create_engine(database_url)
    with engine.connect() as connection, pytest.raises(SQLAlchemyError) as error:
        connection.execute(text(f"SELECT 1 FROM nothing WHERE a = 'it''s {SECRET}' AND b = 2"))
    told = one_line(error.value)
    engine.dispose()
    assert told.endswith("[SQL: SELECT 1 FROM nothing WHERE a = '[hidden]' AND b = 2]")

"""Which errors of Postgres mean that it is away, and what is said of them."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import errors
from psycopg.rows import dict_row
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import DBAPIError, TimeoutError

from flask_opsjobs.core import db
from flask_opsjobs.core.db import (
    connect_apart,
    forget_values,
    is_away,
    say_cause,
    say_without_values,
)

AWAY = [
    errors.ConnectionFailure,
    errors.ProtocolViolation,
    errors.FeatureNotSupported,
    errors.ReadOnlySqlTransaction,
    errors.IdleInTransactionSessionTimeout,
    errors.InvalidSqlStatementName,
    errors.InvalidPassword,
    errors.InvalidCatalogName,
    errors.InvalidSchemaName,
    errors.InsufficientPrivilege,
    errors.UndefinedColumn,
    errors.UndefinedTable,
    errors.DuplicatePreparedStatement,
    errors.TooManyConnections,
    errors.DiskFull,
    errors.OutOfMemory,
    errors.AdminShutdown,
    errors.CrashShutdown,
    errors.CannotConnectNow,
    errors.IdleSessionTimeout,
    errors.IoError,
    errors.InternalError_,
    errors.DataCorrupted,
]
ABOUT_ONE_STATEMENT = [
    errors.InvalidTextRepresentation,
    errors.UntranslatableCharacter,
    errors.UniqueViolation,
    errors.CheckViolation,
    errors.SerializationFailure,
    errors.DeadlockDetected,
    errors.LockNotAvailable,
    errors.QueryCanceled,
    errors.ProgramLimitExceeded,
    errors.RaiseException,
]
# Errors that the driver raises by itself, without an answer of Postgres.
OF_THE_DRIVER = [
    (psycopg.OperationalError, True),
    (errors.ConnectionTimeout, True),
    (psycopg.InterfaceError, True),
    (psycopg.InternalError, True),
    (psycopg.DataError, False),
    (psycopg.ProgrammingError, False),
    (psycopg.NotSupportedError, False),
]
TABLE = [
    *((kind, True) for kind in AWAY),
    *((kind, False) for kind in ABOUT_ONE_STATEMENT),
    *OF_THE_DRIVER,
]


@pytest.mark.parametrize(
    ("kind", "expected"), TABLE, ids=lambda value: getattr(value, "__name__", "")
)
def test_an_error_means_that_postgres_is_away_or_not(
    kind: type[psycopg.Error], expected: bool
) -> None:
    error = kind("said")
    assert is_away(error) is expected
    assert is_away(_wrapped(error)) is expected, "SQLAlchemy wraps it"


def test_a_connection_that_sqlalchemy_gave_up_is_away() -> None:
    error = _wrapped(psycopg.ProgrammingError("said"))
    error.connection_invalidated = True
    assert is_away(error)


@pytest.mark.parametrize("error", [ValueError("said"), TimeoutError("the pool is full"), OSError()])
def test_what_is_not_of_postgres_is_not_away(error: Exception) -> None:
    assert not is_away(error)


def _wrapped(error: psycopg.Error) -> DBAPIError:
    found = DBAPIError.instance("SELECT 1", None, error, psycopg.Error)
    assert isinstance(found, DBAPIError)
    return found


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidSqlStatementName('prepared statement "_pg3_2" does not exist'),
        errors.DuplicatePreparedStatement('prepared statement "_pg3_2" already exists'),
        errors.ProtocolViolation(
            'bind message supplies 2 parameters, but prepared statement "_pg3_1" requires 3'
        ),
    ],
)
def test_a_pooler_that_loses_prepared_statements_is_answered_with_the_setting(
    error: psycopg.Error,
) -> None:
    for each in (error, _wrapped(error)):
        assert '{"connect_args": {"prepare_threshold": None}}' in say_cause(each)
        assert "\n" not in say_cause(each)


def test_another_protocol_violation_is_said_as_it_is() -> None:
    said = say_cause(errors.ProtocolViolation("query_wait_timeout"))
    assert said == "ProtocolViolation: query_wait_timeout"


def test_a_cause_is_one_line_with_the_errors_name() -> None:
    error = psycopg.OperationalError("connection refused\n\tIs the server running?")
    assert say_cause(error) == "OperationalError: connection refused"
    assert say_cause(_wrapped(error)) == "OperationalError: connection refused"
    assert say_cause(RuntimeError("a token")) == "RuntimeError"


# --- what Postgres quotes

SECRET = "s3cr3t-value"
TABLES = """
CREATE TYPE mood AS ENUM ('good');
CREATE DOMAIN few AS int CHECK (VALUE < 9);
CREATE TABLE people (email text PRIMARY KEY, age int NOT NULL CHECK (age < 200), short varchar(3), mood mood);
CREATE TABLE pets (owner text REFERENCES people);
CREATE FUNCTION refuse(said text, code text) RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION '%', said USING ERRCODE = code; END $$;
INSERT INTO people VALUES ('s3cr3t-value', 1);
"""


@pytest.fixture
def engine(empty_database_url: str) -> Iterator[Engine]:
    engine = create_engine(empty_database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def connection(engine: Engine) -> Iterator[psycopg.Connection[Any]]:
    with closing(connect_apart(engine)) as found:
        found.execute(TABLES)
        yield found


def met(connection: psycopg.Connection[Any], statement: str, *values: Any) -> psycopg.Error:
    with pytest.raises(psycopg.Error) as error:
        connection.execute(statement, values)
    return error.value


@pytest.mark.parametrize(
    ("statement", "value", "said"),
    [
        (
            "SELECT %s::text::int",
            SECRET,
            'invalid input syntax for type integer: "[hidden]" (SQLSTATE 22P02)',
        ),
        (
            "SELECT %s::text::int",
            f'a"b {SECRET}" c',
            'invalid input syntax for type integer: "[hidden]" (SQLSTATE 22P02)',
        ),
        (
            "SELECT %s::text::mood",
            SECRET,
            'invalid input value for enum mood: "[hidden]" (SQLSTATE 22P02)',
        ),
        (
            "SELECT %s::text::date",
            f"2026-{SECRET}",
            'invalid input syntax for type date: "[hidden]" (SQLSTATE 22007)',
        ),
        (
            "SELECT %s::text::smallint",
            "987654321",
            'value "[hidden]" is out of range for type smallint (SQLSTATE 22003)',
        ),
        (
            "SELECT %s::text::jsonb",
            f'{{"a": {SECRET}',
            "invalid input syntax for type json (SQLSTATE 22P02)",
        ),
        (
            "INSERT INTO people (email, age, short) VALUES ('a', 1, %s)",
            SECRET,
            "value too long for type character varying(3) (SQLSTATE 22001)",
        ),
        (
            "INSERT INTO people (email, age) VALUES (%s, 1)",
            SECRET,
            'duplicate key value violates unique constraint "people_pkey" (SQLSTATE 23505, table people)',
        ),
        (
            "INSERT INTO people (email, age) VALUES (%s, 300)",
            SECRET + "2",
            'new row for relation "people" violates check constraint "people_age_check" (SQLSTATE 23514)',
        ),
        (
            "INSERT INTO people (email) VALUES (%s)",
            SECRET + "2",
            'null value in column "age" of relation "people" violates not-null constraint (SQLSTATE 23502)',
        ),
        (
            "INSERT INTO pets VALUES (%s)",
            SECRET + "2",
            'insert or update on table "pets" violates foreign key constraint "pets_owner_fkey"'
            " (SQLSTATE 23503)",
        ),
        (
            "SELECT %s::text, 9::few",
            SECRET,
            'value for domain few violates check constraint "few_check" (SQLSTATE 23514, type few)',
        ),
        (
            "SELECT nothing FROM people WHERE email = %s",
            SECRET,
            'column "nothing" does not exist (SQLSTATE 42703)',
        ),
        (
            "SELECT refuse(%s, '23505')",
            f"Key (email)=({SECRET}) already exists.",
            "raised by a function or trigger; its message may quote values and is not kept (SQLSTATE 23505)",
        ),
        (
            "SELECT refuse(%s, 'P0001')",
            SECRET,
            "raised by a function or trigger; its message may quote values and is not kept (SQLSTATE P0001)",
        ),
    ],
)
def test_a_database_error_is_said_without_the_value(
    connection: psycopg.Connection[Any], statement: str, value: str, said: str
) -> None:
    error = met(connection, statement, value)
    assert say_without_values(error) == said
    assert "s3cr3t" not in said
    forget_values(error)
    assert str(error) == said
    assert error.sqlstate in said


def test_a_statement_that_a_value_was_written_into_is_said_without_it(
    connection: psycopg.Connection[Any],
) -> None:
    error = met(connection, f"SELECT 1 WHERE 'a' = '{SECRET}")
    assert SECRET in str(error)
    assert (
        say_without_values(error)
        == 'unterminated quoted string at or near "[hidden]" (SQLSTATE 42601)'
    )


def test_the_drivers_own_error_is_said_without_the_value() -> None:
    said = say_without_values(psycopg.DataError(f"can't parse date '{SECRET}'"))
    assert SECRET not in said
    nul = psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
    assert say_without_values(nul) == "PostgreSQL text fields cannot contain NUL (0x00) bytes"


def test_an_error_and_what_caused_it_forget_their_values(
    connection: psycopg.Connection[Any],
) -> None:
    cause = met(connection, "INSERT INTO people (email, age) VALUES (%s, 300)", SECRET + "2")
    found = DBAPIError.instance("INSERT", {"email": SECRET}, cause, psycopg.Error)
    outer = RuntimeError("cannot book")
    outer.__cause__, found.__cause__ = found, cause
    assert SECRET in "".join(traceback.format_exception(outer))
    forget_values(outer)
    told = "".join(traceback.format_exception(outer))
    assert SECRET not in told
    assert "(psycopg.errors.CheckViolation) new row for relation" in told
    assert cause.diag.constraint_name == "people_age_check"


# --- transactions on our connections

LIMIT = "idle_in_transaction_session_timeout"


def limit_of(connection: psycopg.Connection[Any]) -> str:
    found: str = connection.execute(f"SHOW {LIMIT}").fetchone()[0]
    return found


def ages(connection: psycopg.Connection[Any]) -> list[int]:
    return [age for (age,) in connection.execute("SELECT age FROM people ORDER BY age")]


def add(connection: psycopg.Connection[Any], age: int) -> None:
    connection.execute("INSERT INTO people (email, age) VALUES (%s, %s)", [str(age), age])


def test_only_our_transactions_have_a_limit_on_standing_still(
    engine: Engine, connection: psycopg.Connection[Any]
) -> None:
    with connection.transaction():
        assert limit_of(connection) == "10s"
        with connection.transaction():
            assert limit_of(connection) == "10s"
        assert limit_of(connection) == "10s"
    assert limit_of(connection) == "0", "a pooler may lend the session to the host"
    with connection.pipeline(), connection.transaction():
        assert limit_of(connection) == "10s"
    assert limit_of(connection) == "0"
    with engine.begin() as of_host:
        assert of_host.exec_driver_sql(f"SHOW {LIMIT}").scalar() == "0"


def test_times_come_in_utc_whatever_zone_the_database_has(
    engine: Engine, connection: psycopg.Connection[Any]
) -> None:
    """Clocks in Berlin showed 02:30 twice in this night: Python takes the two for one time of its zone."""
    at_both = "SELECT timestamptz '2026-10-25 00:30Z', timestamptz '2026-10-25 01:30Z'"
    in_berlin = "SET TimeZone = 'Europe/Berlin'"
    with engine.connect() as of_host:
        of_host.exec_driver_sql(in_berlin)
        first, second = of_host.exec_driver_sql(at_both).one()
        assert second - first == timedelta(0)
    connection.execute(in_berlin)
    for is_prepared in (False, True):
        first, second = connection.execute(at_both, prepare=is_prepared).fetchone()
        assert (second - first, first.tzinfo) == (timedelta(hours=1), UTC)
    with connection.pipeline(), connection.cursor(row_factory=dict_row) as cursor:
        (found,) = cursor.execute("SELECT ARRAY[now(), NULL] AS at").fetchall()
    assert [each and each.tzinfo for each in found["at"]] == [UTC, None]


@pytest.mark.lane
@pytest.mark.sessions
def test_postgres_ends_a_transaction_that_stands_still(
    engine: Engine, connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "_END_IF_FROZEN", f"SET LOCAL {LIMIT} = '100ms'")

    def stand_still(standing: psycopg.Connection[Any]) -> None:
        with standing.transaction():
            standing.execute("UPDATE people SET age = 2")
            connection.execute("UPDATE people SET age = 3")  # waits for the row
            standing.execute("SELECT 1")

    with closing(connect_apart(engine)) as standing:
        with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout) as met:
            stand_still(standing)
        assert is_away(met.value)
        assert standing.closed
    assert ages(connection) == [3]


def test_a_transaction_commits_or_rolls_back(connection: psycopg.Connection[Any]) -> None:
    with connection.transaction():
        add(connection, 2)
    with suppress(ZeroDivisionError), connection.transaction():
        add(connection, 3)
        raise ZeroDivisionError
    with pytest.raises(errors.UniqueViolation), connection.transaction():
        add(connection, 2)
    with connection.transaction() as outer:
        add(connection, 4)
        with suppress(ZeroDivisionError), connection.transaction():
            add(connection, 5)
            raise ZeroDivisionError
        with connection.transaction() as inner:
            add(connection, 6)
            raise psycopg.Rollback(inner)
        add(connection, 7)
    assert ages(connection) == [1, 2, 4, 7]
    with connection.transaction(force_rollback=True):
        add(connection, 8)
    with connection.transaction():
        add(connection, 8)
        raise psycopg.Rollback
    with connection.transaction() as outer:
        add(connection, 8)
        with connection.transaction():
            raise psycopg.Rollback(outer)
    assert ages(connection) == [1, 2, 4, 7]
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def test_a_transaction_in_a_pipeline_commits_or_rolls_back(
    connection: psycopg.Connection[Any],
) -> None:
    with connection.pipeline(), connection.transaction():
        add(connection, 2)
    with suppress(ZeroDivisionError), connection.pipeline(), connection.transaction():
        add(connection, 3)
        raise ZeroDivisionError
    with pytest.raises(errors.UniqueViolation), connection.pipeline(), connection.transaction():
        add(connection, 2)
    assert ages(connection) == [1, 2]
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE

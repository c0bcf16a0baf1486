"""Which errors of Postgres mean that it is away, and what is said of them."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors
from sqlalchemy.exc import DBAPIError, TimeoutError

from flask_opsjobs.db import is_away, say_cause

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

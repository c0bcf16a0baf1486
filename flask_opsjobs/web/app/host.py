"""Finds the `Host` of the current app, and reads from its database in one read-only transaction a page."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from math import inf

import psycopg
from flask import Response, current_app, g
from sqlalchemy import exc

from ...core.db import connect_soon, forget_values, is_away, patience
from ...core.reading import PAGE_PLANS, Reading, read_snapshot
from ...errors import AuditUnwritable, EngineUnavailable, SchemaAhead, SchemaBehind, TooManyActions
from ...host import Host
from . import problems


def host() -> Host:
    """The extension's `Host` for the current app."""
    found: Host = current_app.extensions["opsjobs"]
    return found


@contextmanager
def reading(most_seconds: float = inf) -> Iterator[Reading]:
    """One read-only transaction on one snapshot, so that the numbers of a page agree.

    A statement may take `page_timeout_seconds`, at most `most_seconds`. Raises `Problem` as `asking` does.
    The first one of a request brings along what surrounds the page: see `bring`.
    """
    # Redis may be asked here, before the connection is taken.
    beside = g.pop("opsjobs_beside", lambda: None)() or nullcontext
    seconds = min(most_seconds, host().settings.page_timeout_seconds)
    with asking(), _transaction(seconds) as found, beside(found):
        yield found


def bring(beside: Callable[[], Callable[[Reading], AbstractContextManager[None]] | None]) -> None:
    """Let the request's first reading be read inside of what `beside` returns, unless that is None."""
    g.opsjobs_beside = beside


@contextmanager
def asking() -> Iterator[None]:
    """A block that queries Postgres. Turns its errors into `Problem`.

    Among them: the schema is behind or ahead, the database does not answer, a statement is too slow.
    """
    try:
        with host().postgres.asking(_is_silence, _still_away):
            host().require_schema(host().pages)
            yield
    except SchemaBehind as behind:
        raise problems.schema_behind(str(behind)) from behind
    except SchemaAhead as ahead:
        raise problems.schema_ahead(str(ahead)) from ahead
    except exc.TimeoutError as away:  # the pool's
        raise problems.no_connection_left(host().settings.page_connections) from away
    except TooManyActions as busy:
        raise problems.too_many_actions(str(busy)) from busy
    except (
        EngineUnavailable,
        AuditUnwritable,
    ) as error:  # raised by an action; the text says what it lacks
        raise problems.not_now(str(error)) from error
    except (exc.DBAPIError, psycopg.Error) as error:
        found = _problem_of(error)
        if found is None:
            forget_values(error)
            raise
        raise found from error


def _problem_of(error: exc.DBAPIError | psycopg.Error) -> problems.Problem | None:
    """The problem page for an error of Postgres; None for an error that is a bug of ours."""
    cause = error.orig if isinstance(error, exc.DBAPIError) else error
    if isinstance(cause, psycopg.errors.QueryCanceled | psycopg.errors.LockNotAvailable):
        return problems.too_slow(host().settings.page_timeout_seconds)
    if isinstance(cause, psycopg.errors.UndefinedTable):  # downgraded while we run
        return problems.schema_behind("the database's schema 'opsjobs' is gone")
    is_lost = isinstance(error, exc.DBAPIError) and error.connection_invalidated
    if is_lost or isinstance(cause, psycopg.OperationalError):
        return _still_away()
    return None


def _is_silence(error: BaseException) -> bool:
    """Whether the error means that Postgres does not answer. An error about a missing table is an answer."""
    cause = error.orig if isinstance(error, exc.DBAPIError) else error
    return is_away(error) and not isinstance(cause, psycopg.ProgrammingError)


def _still_away() -> problems.Problem:
    postgres = host().postgres
    return problems.database_away(postgres.unanswered_since, postgres.answered_at)


@contextmanager
def _transaction(seconds: float) -> Iterator[Reading]:
    with (
        read_snapshot(connect_soon(host().pages), seconds, PAGE_PLANS) as found,
        patience(found.session.connection(), seconds + 1),
    ):
        yield found


@contextmanager
def heavy(is_heavy: bool = True) -> Iterator[None]:
    """A block that takes one of the places. Raises the 503 `Problem` when all are taken."""
    if not is_heavy:
        yield
        return
    _take_a_place()
    try:
        yield
    finally:
        host().heavy.leave()


def stream(answer: Callable[[], Response]) -> Response:
    """The response of `answer`. It takes a place until its last line is sent or the client is gone."""
    _take_a_place()
    leave = host().heavy.leave
    try:
        response = answer()
    except BaseException:
        leave()
        raise
    # Runs once: when the server closes the response, or when a hook of the host's replaces it.
    response.call_on_close(weakref.finalize(response, leave))
    return response


def _take_a_place() -> None:
    if not host().heavy.enter():
        raise problems.heavy_busy(host().heavy.most)

"""Joins the transaction of a host's session, for any kind of SQLAlchemy session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import StatementError, UnboundExecutionError
from sqlalchemy.orm import Session, scoped_session

from ...core.db import forget_values
from ...errors import RefusedSession
from ..models import Job

if TYPE_CHECKING:
    from ...host import Host

AnySession = Session | scoped_session[Any]


def find_session(host: Host, given: AnySession | None) -> tuple[Session, Engine | Connection]:
    """The session to enqueue with, and its bind to the database of the jobs. Connects to nothing.

    `given` is the caller's choice, None for the host's own. Raises `RefusedSession` when it is bound to
    another database.
    """
    session = host.session() if given is None else given
    if isinstance(session, scoped_session):
        session = session()
    if not isinstance(session, Session):
        raise RefusedSession(f"session= takes a SQLAlchemy Session, got {type(session).__name__}")
    bind = _bind_of(session)
    if bind is not None and _is_same_database(bind.engine, host.engine):
        # The bind that the session itself would choose: it may be a connection, as in a host's tests.
        return session, bind
    # The host's own session has several binds when OPSJOBS_BIND names one of them.
    if given is None or session is host.session():
        return session, host.engine
    where = "no database" if bind is None else repr(bind.engine.url)
    raise RefusedSession(
        f"session= is bound to {where}, the jobs are in {host.engine.url!r}: "
        "a job is enqueued in the transaction of its own database"
    )


def join(session: Session, bind: Engine | Connection) -> Connection:
    """The session's connection in its transaction. Begins the transaction when there is none.

    Call it again inside `begin_nested()`: SQLAlchemy sets the savepoint when the connection is asked for.
    Raises `RefusedSession` when the connection is in AUTOCOMMIT.
    """
    connection = session.connection(bind_arguments={"bind": bind})
    driver = connection.connection.driver_connection
    if isinstance(driver, psycopg.Connection) and driver.autocommit:
        raise RefusedSession(
            "session= is in AUTOCOMMIT: there is no transaction that a job could join; use one without it"
        )
    return connection


@contextmanager
def without_values() -> Iterator[None]:
    """A block whose SQLAlchemy errors lose the values of the statement and of the row."""
    try:
        yield
    except StatementError as error:
        forget_values(error)
        raise


def _bind_of(session: Session) -> Engine | Connection | None:
    try:
        return session.get_bind(Job)
    except UnboundExecutionError:
        return None


def _is_same_database(one: Engine, other: Engine) -> bool:
    # `execution_options()` makes an engine on the same pool.
    return one is other or one.pool is other.pool or one.url == other.url

"""Enqueues one job: one row, and a unique lock when it is unique.

`enqueue` joins the transaction of the host's session, of any kind of SQLAlchemy session. `enqueue_detached`
is for a loop or an operator, on a connection of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import StatementError, UnboundExecutionError
from sqlalchemy.orm import Session, scoped_session

from ... import signals
from ...core import db, sql
from ...core.after_commit import after_commit
from ...core.db import forget_values
from ...errors import InvalidArgs, WrongSession
from ...host import CommitNote, DueLane, Host, QueuedAtInsert, TraceColumns
from ...limits.limit import JobLimit
from ...policy import describe_failure
from ..models import Job
from . import unique_locks
from .arguments import Arguments
from .declaration import TaskDeclaration
from .job_limit import RejectWhenFull, columns_of, job_limit_of
from .options import Options, Unique, interval_of

_log = logging.getLogger("flask_opsjobs")


@dataclass(frozen=True, slots=True)
class Enqueued:
    """An enqueued job. With `conflict` nothing was written: `id` is the existing job of the same unique call.

    `state` is then the state of that job, None when it was deleted already.
    """

    id: int
    state: str | None
    conflict: bool = False


@dataclass(frozen=True, slots=True)
class EnqueuedMany:
    """How many jobs were enqueued, and how many rows conflicted with another job or an earlier row."""

    count: int
    conflicts: int = 0


def enqueue(
    host: Host,
    task: TaskDeclaration,
    options: Options,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> Enqueued:
    """Enqueue one call in the host's transaction; the host commits. Redis is not touched before the commit.

    Raises `InvalidArgs` when the arguments are invalid, and `LimitReached` when a full limiter rejects the
    call; then no job was written.
    """
    with host.telemetry.sending(task.name, options.queue) as sent:
        values = task.arguments.validate(args, kwargs)
        enqueued = _enqueue(host, task, options, values, sent.columns)
        sent.job_id = enqueued.id
    return enqueued


def _enqueue(
    host: Host,
    task: TaskDeclaration,
    options: Options,
    values: dict[str, Any],
    trace: TraceColumns,
) -> Enqueued:
    row = parameters(task, options, host) | trace
    job_limit = None
    if options.limit is not None:
        job_limit = job_limit_of(task, options.limit, host, values)
        row |= columns_of(options.queue, job_limit)
    row["args"] = task.arguments.dump(values, host.settings.max_args_bytes).decode()
    if callable(options.tags):
        row["tags"] = task.tags_of(options, values)
    session, bind = find_session(host, options.session)
    with without_values():
        connection = join(host, session, bind)
        if options.unique is not None:
            row |= unique_lock(options.unique)
            row["keys"] = keys(task, options.unique, host, values)
        if job_limit is not None:
            reject = RejectWhenFull(task, options, host, session)
            _require_room(connection, reject, job_limit, row.get("keys"))
        if options.unique is None:
            enqueued = insert(connection, row, options, _first_number(options, host))
        else:
            enqueued = Enqueued(*unique_locks.find_or_take(partial(run_sql, connection), row))
    if not enqueued.conflict:
        note = _note_of(task, options, enqueued, row["lane"])
        if note is not None and host.dispatcher is not None:
            after_commit(session, host.dispatcher.push, note)
        if signals.job_enqueued.receivers:
            within = partial(in_savepoint, session, connection)
            signals.send(signals.job_enqueued, task, within=within, enqueued=enqueued)
    return enqueued


@contextmanager
def in_savepoint(session: Session, connection: Connection) -> Iterator[None]:
    """A block of a receiver: a statement of it that fails is undone, and does not end the host's transaction.

    Raises `RuntimeError` when the receiver has passed over the error of its statement.
    """
    with session.begin_nested():
        yield
        raw: Any = connection.connection.driver_connection
        if raw.info.transaction_status == psycopg.pq.TransactionStatus.INERROR:
            raise RuntimeError("a statement failed, and the receiver went on")


def _require_room(
    connection: Connection, reject: RejectWhenFull, job_limit: JobLimit, keys: list[bytes] | None
) -> None:
    """Return when the limiter takes the call; raise `LimitReached` when it is full and declared to reject."""
    rejection = reject.find_rejection(connection, job_limit)
    if rejection is None:
        return
    # A call that was enqueued before is still a conflict, not a rejection.
    if keys is None or unique_locks.find(partial(run_sql, connection), keys) is None:
        raise reject.make_error(rejection)


def insert(
    connection: Connection, row: Mapping[str, Any], options: Options, dispatch_no: int = 0
) -> Enqueued:
    """Insert a job that is not unique.

    With a `dispatch_no` a job that is due and has no limit becomes `queued`, and the caller pushes it.
    """
    is_plain = options.is_due_now and options.limit is None
    statement = load_for("enqueue_due_job" if is_plain else "enqueue_job", row)
    found = connection.exec_driver_sql(statement, {**row, "dispatch_no": dispatch_no}).one()
    return Enqueued(found[0], found[1])


def load_for(statement: str, values: Mapping[str, Any]) -> str:
    """The text of a statement for jobs with these values: with or without a trace context."""
    return sql.load(statement, traced="traceparent" in values)


def run_sql(connection: Connection, statement: str, values: Mapping[str, Any]) -> Sequence[Any]:
    """Run a statement of a folder `sql` in the host's transaction; returns its rows, with columns by name."""
    answer = connection.exec_driver_sql(load_for(statement, values), dict(values))
    return answer.all() if answer.returns_rows else ()


def _first_number(options: Options, host: Host) -> int:
    """1 when the job may be inserted as `queued`: it is due, and its queue has estimated room. Else 0."""
    # Never for a limited job: the dispatcher must look at its bucket first.
    if host.dispatcher is None or options.limit is not None:
        return 0
    return 1 if options.is_due_now and host.dispatcher.has_room(options.queue) else 0


def _note_of(
    task: TaskDeclaration, options: Options, enqueued: Enqueued, lane: str
) -> CommitNote | None:
    """The lane to dispatch, or the job to push, after the commit; None when the job is due later."""
    if enqueued.state == "available":
        return DueLane(lane, options.queue)
    if enqueued.state == "queued":
        return QueuedAtInsert(
            enqueued.id, 1, options.queue, task.name, options.priority, options.timeout
        )
    return None


def parameters(task: TaskDeclaration, options: Options, host: Host) -> dict[str, Any]:
    """The parameters that the enqueue statements take, except arguments, limit and unique lock.

    Raises `InvalidArgs` when `meta` is too large.
    """
    columns = options.enqueue_parameters
    if len(columns["meta"]) > host.settings.max_args_bytes:
        limit = host.settings.max_args_bytes
        message = f"is larger than OPSJOBS_MAX_ARGS_BYTES = {limit}"
        raise InvalidArgs(task.name, [{"loc": "meta", "msg": message, "type": "too_large"}])
    cron = {"cron_entry": None, "is_deferred": False}
    return {"task": task.name, **cron, **columns}


def unique_lock(unique: Unique) -> dict[str, Any]:
    """The parameters of a unique lock, without its keys."""
    return {"until": unique.lifetime, "within": interval_of(unique.within)}


def keys(
    task: TaskDeclaration,
    unique: Unique,
    host: Host,
    values: Mapping[str, Any],
    known: Arguments | None = None,
) -> list[bytes]:
    """The keys of a call, that of the current secret first.

    `known` are the arguments of the task that have a value already: all of them, unless the call is a step
    that takes results of other steps.
    Raises `InvalidArgs` when the values that make the call unique cannot be written as JSON.
    """
    known = known or task.arguments
    arguments = known.with_defaults(values)
    if unique.key is not None:
        chosen = unique.key(arguments)
    else:
        plain = known.flatten(arguments)
        chosen = plain if unique.by is None else {name: plain[name] for name in unique.by}
    try:
        return unique_locks.keys_of(host.secrets, task.name, chosen)
    except (TypeError, ValueError):
        pass
    message = "cannot be part of a unique key: choose others with by=[…], or compute one with key=…"
    raise InvalidArgs(task.name, [{"loc": "arguments", "msg": message, "type": "not_json"}])


def enqueue_detached(
    connection: db.Connection,
    host: Host,
    task: TaskDeclaration,
    stored: Mapping[str, Any],
    *,
    cron_entry: str | None = None,
    is_deferred: bool = False,
) -> tuple[Enqueued, str]:
    """Enqueue a call with stored arguments and the task's declared options. Returns the job and its lane.

    Runs in the caller's transaction. The caller commits, and then asks the dispatcher to dispatch the lane.
    A limit with `when_full="reject"` holds this job instead, because no caller could receive the error.
    `is_deferred`: the job waits until the other jobs of its cron entry have ended.
    Raises `InvalidArgs` when the arguments no longer fit the task; then nothing was written.
    """
    with host.telemetry.sending(task.name, task.declared.queue) as sent:
        row = parameters(task, task.declared, host) | sent.columns
        row |= {"cron_entry": cron_entry, "is_deferred": is_deferred}
        enqueued = _enqueue_stored(connection, host, task, stored, row)
        sent.job_id = enqueued.id
    return enqueued, row["lane"]


def _enqueue_stored(
    connection: db.Connection,
    host: Host,
    task: TaskDeclaration,
    stored: Mapping[str, Any],
    row: dict[str, Any],
) -> Enqueued:
    """Complete the row of a call with stored arguments, and insert it."""
    values = task.arguments.load(stored)
    if (limit := task.declared.limit) is not None:
        row |= columns_of(task.declared.queue, job_limit_of(task, limit, host, values))
    row["args"] = task.arguments.dump(values, host.settings.max_args_bytes).decode()
    if callable(task.declared.tags):
        row["tags"] = task.tags_of(task.declared, values)
    run = partial(run_detached, connection)
    unique = task.declared.unique
    if unique is None:
        (found,) = run("enqueue_job", row)
        return Enqueued(found.id, found.state)
    row |= unique_lock(unique)
    row["keys"] = keys(task, unique, host, values)
    return Enqueued(*unique_locks.find_or_take(run, row))


def find_same_call(
    connection: db.Connection, host: Host, task: TaskDeclaration, stored: Mapping[str, Any]
) -> int | None:
    """The id of the job that holds the unique lock of this call; None without one, or without uniqueness.

    Locks nothing. Raises `InvalidArgs`, and whatever the host's `key` function raises.
    """
    values, unique = task.arguments.load(stored), task.declared.unique
    if unique is None:
        return None
    found = unique_locks.find(partial(run_detached, connection), keys(task, unique, host, values))
    return None if found is None else found[0]


def say_call_fault(subject: str, error: Exception) -> str:
    """The sentence why this error kept a job of `subject` from being enqueued. Call it where it is caught."""
    if isinstance(error, InvalidArgs):
        return f"its arguments do not fit: {error}"
    # The host's code raised, such as the function of a unique key. Name only the class: the text may quote a
    # value.
    _log.error("%s: its job could not be enqueued (%s)", subject, describe_failure(error))
    return f"enqueuing its job raised {type(error).__name__}"


def say_same_call(job_id: int) -> str:
    """The sentence why no job is enqueued: this one is of the same unique call."""
    return f"job {job_id} holds the unique lock of this call"


def run_detached(
    connection: db.Connection, statement: str, values: Mapping[str, Any]
) -> Sequence[Any]:
    """The same as `run_sql`, on a connection of our own."""
    with connection.cursor(row_factory=namedtuple_row) as cursor:
        cursor.execute(load_for(statement, values), values)
        return cursor.fetchall() if cursor.description else ()


AnySession = Session | scoped_session[Any]


def find_session(host: Host, given: AnySession | None) -> tuple[Session, Engine | Connection]:
    """The session to enqueue with, and its bind to the database of the jobs. Connects to nothing.

    `given` is the caller's choice, None for the host's own. Raises `WrongSession` when it is bound to
    another database.
    """
    session = host.session() if given is None else given
    if isinstance(session, scoped_session):
        session = session()
    if not isinstance(session, Session):
        raise WrongSession(f"session= takes a SQLAlchemy Session, got {type(session).__name__}")
    bind = _bind_of(session)
    if bind is not None and _is_same_database(bind.engine, host.engine):
        # The bind that the session itself would choose: it may be a connection, as in a host's tests.
        return session, bind
    # The host's own session has several binds when OPSJOBS_BIND names one of them.
    if given is None or session is host.session():
        return session, host.engine
    where = "no database" if bind is None else repr(bind.engine.url)
    raise WrongSession(
        f"session= is bound to {where}, the jobs are in {host.engine.url!r}: "
        "a job is enqueued in the transaction of its own database"
    )


def join(host: Host, session: Session, bind: Engine | Connection) -> Connection:
    """The session's connection in its transaction. Begins the transaction when there is none.

    Call it again inside `begin_nested()`: SQLAlchemy sets the savepoint when the connection is asked for.
    Raises `WrongSession` when the connection is in AUTOCOMMIT, and `SchemaBehind`.
    """
    connection = session.connection(bind_arguments={"bind": bind})
    driver = connection.connection.driver_connection
    if isinstance(driver, psycopg.Connection) and driver.autocommit:
        raise WrongSession(
            "session= is in AUTOCOMMIT: there is no transaction that a job could join; use one without it"
        )
    # On the same connection: the host's pool may have no other one.
    host.require_schema(connection, or_newer=True)
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

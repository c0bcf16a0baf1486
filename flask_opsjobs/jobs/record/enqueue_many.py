"""Enqueues many jobs by COPY in constant memory, inside a savepoint of the host's session."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import psycopg
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import SessionTransaction

from ... import signals
from ...core import copy_text, sql
from ...core.after_commit import after_commit
from ...core.db import forget_values
from ...errors import InvalidArgs, WrongSession
from ...host import DueLane, Host
from . import unique_locks
from .declaration import TaskDeclaration
from .enqueue import (
    EnqueuedMany,
    enqueue,
    find_session,
    in_savepoint,
    join,
    keys,
    load_for,
    parameters,
    run_sql,
    unique_lock,
    without_values,
)
from .job_limit import RejectWhenFull, columns_of, job_limit_of
from .options import Options, Unique

Row = Mapping[str, Any]
NumberedRows = Iterable[tuple[int, Row]]
Line = Callable[[Row], bytes]

# Rows are copied in chunks: between two COPYs the host's generator may read from the same session.
_CHUNK_ROWS = 5_000
_CHUNK_BYTES = 1 << 20
_PIECE_BYTES = 1 << 16
# This many lanes are dispatched right after the commit; the dispatch loop dispatches the others.
MOST_LANES = 20
_numbers = itertools.count(1)


def enqueue_many(
    host: Host,
    task: TaskDeclaration,
    options: Options,
    rows: Iterable[Row],
    first_number: int = 0,
) -> EnqueuedMany:
    """Enqueue a job per dict of arguments.

    An error about a row names its number, counted from `first_number`. After an error nothing is written, and
    the transaction stays usable.
    """
    require_rows(task, rows)
    if options.unique is not None and callable(options.tags):
        return _enqueue_each(host, task, options, enumerate(rows, first_number))
    with host.telemetry.sending(task.name, options.queue) as sent:
        common = parameters(task, options, host) | sent.columns
        result = _enqueue_many(host, task, options, enumerate(rows, first_number), common)
        sent.count = result.count
    return result


def _enqueue_each(
    host: Host, task: TaskDeclaration, options: Options, rows: NumberedRows
) -> EnqueuedMany:
    """Enqueue unique jobs with tags of their own one by one: the statement for many has the same for all."""
    session, bind = find_session(host, options.session)
    with without_values():
        join(host, session, bind)
    counts = [0, 0]
    with session.begin_nested() as savepoint:
        for number, row in _guarded(rows, savepoint):
            try:
                counts[enqueue(host, task, options, (), row).conflict] += 1
            except InvalidArgs as error:
                refused = _at_row(task, number, error)
            else:
                continue
            raise refused
    return EnqueuedMany(*counts)


def _enqueue_many(
    host: Host,
    task: TaskDeclaration,
    options: Options,
    rows: NumberedRows,
    common: dict[str, Any],
) -> EnqueuedMany:
    session, bind = find_session(host, options.session)
    with without_values():
        join(host, session, bind)  # before the savepoint, which a session in AUTOCOMMIT cannot have
    with session.begin_nested() as savepoint, without_values():
        rows = _guarded(rows, savepoint)
        connection = join(host, session, bind)
        common |= connection.exec_driver_sql(sql.load("moment_of_many"), common).mappings().one()
        limits = _LimitColumns(
            task, options, host, RejectWhenFull(task, options, host, session), connection
        )
        if options.unique is None:
            line = _plain_line(limits, options, common)
            result = EnqueuedMany(_copy(limits, load_for("copy_jobs", common), line, rows))
            if result.count:
                counted = {**common, "enqueued": result.count}
                connection.exec_driver_sql(load_for("count_enqueued", counted), counted)
        else:
            result = _insert_unique(limits, options.unique, common, rows)
    if result.count:
        if common["state"] == "available" and host.dispatcher is not None:
            for touched in limits.lanes:
                after_commit(session, host.dispatcher.push, DueLane(touched, options.queue))
        if signals.job_enqueued.receivers:
            within = partial(in_savepoint, session, connection)
            signals.send(signals.job_enqueued, task, within=within, enqueued=result)
    return result


def require_rows(task: TaskDeclaration, rows: object) -> None:
    """Raise `TypeError` unless this can be a series of dicts."""
    if not isinstance(rows, Iterable) or isinstance(rows, Mapping | str | bytes):
        raise TypeError(
            f"enqueue_many of task {task.name} takes dicts of arguments, in a list or from a generator; "
            f"got {type(rows).__name__}"
        )


def _guarded(rows: NumberedRows, savepoint: SessionTransaction) -> Iterator[tuple[int, Row]]:
    """The rows.

    Raises `WrongSession` when the savepoint is gone: the next COPY would run in another transaction.
    """
    for row in rows:
        _require_standing(savepoint)
        yield row
    _require_standing(savepoint)


def _require_standing(savepoint: SessionTransaction) -> None:
    if not savepoint.is_active:
        raise WrongSession(
            "the iterable given to enqueue_many has ended the session's transaction by a commit or rollback "
            "of its own: give a list, or read with another session. What it committed stays, nothing else "
            "was enqueued"
        )


def _insert_unique(
    limits: _LimitColumns, unique: Unique, common: Mapping[str, Any], rows: NumberedRows
) -> EnqueuedMany:
    """Enqueue unique jobs through a temporary table."""
    calls = f"pg_temp.opsjobs_calls_{next(_numbers)}"
    key_count = len(set(limits.host.secrets))

    def run(name: str, **values: Any) -> Any:
        statement = load_for(name, values).replace("{calls}", calls)
        return limits.connection.exec_driver_sql(statement, values or None)

    run("create_calls")
    copy = sql.load("copy_calls").replace("{calls}", calls)
    gathered = _copy(limits, copy, _unique_line(limits, unique), rows)
    run("analyze_calls")
    run("delete_expired_locks_of_calls")
    count = run(
        "insert_unique_jobs", **common, **unique_lock(unique), key_count=key_count
    ).scalar_one()
    if key_count > 1:
        run("release_unused_locks_of_calls")
    run("drop_calls")
    return EnqueuedMany(count, gathered - count)


class _LimitColumns:
    """Computes the limit columns of each row for COPY, and collects the first lanes for the dispatcher."""

    def __init__(
        self,
        task: TaskDeclaration,
        options: Options,
        host: Host,
        reject: RejectWhenFull,
        connection: Connection,
    ) -> None:
        self.task = task
        self._options = options
        self.host = host
        self._reject = reject
        self.connection = connection
        self._run_sql = partial(run_sql, connection)
        # The keys of unique calls that got room: the room of the limiter bounds their number.
        self._keys_with_room: set[bytes] = set()
        self._unlimited = _as_copied(options.enqueue_parameters)
        self.lanes: dict[str, None] = {options.queue: None} if options.limit is None else {}

    def columns_of(self, values: Mapping[str, Any], keys: Sequence[bytes] = ()) -> bytes:
        """The limit columns of a call. Raises `LimitReached`, but not for a conflict with a unique lock."""
        limit = self._options.limit
        if limit is None:
            return self._unlimited
        job_limit = job_limit_of(self.task, limit, self.host, values)
        if not (self._reject.is_open or self._is_conflict(keys)):
            if rejection := self._reject.find_rejection(self.connection, job_limit):
                raise self._reject.make_error(rejection)
            self._keys_with_room.update(keys)
        columns = columns_of(self._options.queue, job_limit)
        if len(self.lanes) < MOST_LANES:
            self.lanes[columns["lane"]] = None
        return _as_copied(columns)

    def _is_conflict(self, keys: Sequence[bytes]) -> bool:
        """Whether a job or an earlier row holds the call's unique lock: then the call takes no room."""
        if not keys:
            return False
        return keys[0] in self._keys_with_room or unique_locks.find(self._run_sql, keys) is not None


def _plain_line(limits: _LimitColumns, options: Options, common: Mapping[str, Any]) -> Line:
    shared = None if callable(options.tags) else _head(common)
    validate, dump = limits.task.arguments.validate, limits.task.arguments.dump
    most_bytes = limits.host.settings.max_args_bytes

    def line(row: Row) -> bytes:
        # JSON has no raw control characters: only the backslash must be escaped for COPY.
        values = validate((), row)
        columns = limits.columns_of(values)
        raw = dump(values, most_bytes).replace(b"\\", b"\\\\")
        tags = [] if shared else limits.task.tags_of(options, values)
        return (shared or _head({**common, "tags": tags})) + columns + raw + b"\n"

    return line


def _unique_line(limits: _LimitColumns, unique: Unique) -> Line:
    task, host = limits.task, limits.host
    most_bytes = host.settings.max_args_bytes

    def line(row: Row) -> bytes:
        values = task.arguments.validate((), row)
        raw = task.arguments.dump(values, most_bytes).replace(b"\\", b"\\\\")
        taken = keys(task, unique, host, values)
        hexed = ",".join(key.hex() for key in taken)
        return b"{%b}\t%b%b\n" % (hexed.encode(), limits.columns_of(values, taken), raw)

    return line


def _copy(limits: _LimitColumns, statement: str, line: Line, rows: NumberedRows) -> int:
    """Copy a line for each row; returns the number of lines."""
    done = 0
    for lines in _chunks(limits.task, line, rows):
        copy_lines(limits.connection, statement, lines)
        done += len(lines)
    return done


def copy_lines(connection: Connection, statement: str, lines: Iterable[bytes]) -> None:
    """Copy these lines in the host's transaction. Postgres writes the first while the next are being made."""
    raw = connection.connection.driver_connection
    assert isinstance(raw, psycopg.Connection)
    try:
        with raw.cursor() as cursor, cursor.copy(statement) as copy:
            for some in _in_pieces(lines):
                copy.write(some)
        return
    except psycopg.Error as error:
        forget_values(error)
        failed = error
    raise DBAPIError.instance(statement, None, failed, psycopg.Error, hide_parameters=True)


def _in_pieces(lines: Iterable[bytes]) -> Iterator[bytes]:
    some: list[bytes] = []
    size = 0
    for line in lines:
        some.append(line)
        size += len(line)
        if size >= _PIECE_BYTES:
            yield b"".join(some)
            some, size = [], 0
    yield b"".join(some)


def _chunks(task: TaskDeclaration, line: Line, rows: NumberedRows) -> Iterator[list[bytes]]:
    """The lines in chunks, bounded in number and in bytes, so that memory is bounded for any rows."""
    chunk: list[bytes] = []
    size = 0
    for number, row in rows:
        try:
            chunk.append(line(row))
        except InvalidArgs as error:
            refused = _at_row(task, number, error)
        else:
            size += len(chunk[-1])
            if len(chunk) == _CHUNK_ROWS or size >= _CHUNK_BYTES:
                yield chunk
                chunk, size = [], 0
            continue
        raise refused
    if chunk:
        yield chunk


def _at_row(task: TaskDeclaration, number: int, error: InvalidArgs) -> InvalidArgs:
    errors = [{**one, "loc": f"[{number}].{one['loc']}"} for one in error.errors]
    return InvalidArgs(task.name, errors)


def _head(common: Mapping[str, Any]) -> bytes:
    """The columns that all rows share, in COPY's format. The limit and the arguments of each row follow."""
    columns = (
        *(common[name] for name in ("task", "queue", "state", "priority", "meta")),
        copy_text.array(common["tags"]),
        *(common[name] for name in ("max_attempts", "timeout_seconds", "deadline_at")),
        common["created_at"],
        common["due_at"],
        common["batch_id"],
        *(common[name] for name in ("traceparent", "tracestate") if name in common),
    )
    return "".join(copy_text.column(column) + "\t" for column in columns).encode()


def _as_copied(columns: Mapping[str, Any]) -> bytes:
    """The columns of a row's limit in COPY's format, between the shared columns and the arguments."""
    names = ("lane", "limiter", "partition", "weight")
    return "".join(copy_text.column(columns[name]) + "\t" for name in names).encode()

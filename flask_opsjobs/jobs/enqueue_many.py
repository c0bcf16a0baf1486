"""Recording many jobs: COPY on the connection of the host's session, inside a savepoint, in constant memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import SessionTransaction

from .. import signals, sql
from ..errors import InvalidArgs, RefusedSession
from ..session import touch
from .enqueue import EnqueuedMany, keys, parameters, receipt
from .joining import find_session, join, without_values
from .touched import Line as TouchedLine

if TYPE_CHECKING:
    from ..host import Host
    from .options import Options
    from .unique import Unique
    from .worker import Worker

Row = Mapping[str, Any]
Line = Callable[[Row], bytes]

# Between two COPYs the connection is free for the host's generator, which may read from the same session.
_CHUNK_ROWS = 5_000
_CHUNK_BYTES = 1 << 20
_numbers = itertools.count(1)


def enqueue_many(worker: Worker, options: Options, rows: Iterable[Row]) -> EnqueuedMany:
    """Record a job per dict of arguments. Whatever goes wrong, nothing is written and the transaction is usable."""
    if not isinstance(rows, Iterable) or isinstance(rows, Mapping | str | bytes):
        raise TypeError(
            f"enqueue_many of worker {worker.name} takes dicts of arguments, in a list or from a generator; "
            f"got {type(rows).__name__}"
        )
    host = worker.host()
    host.require_schema()
    common = parameters(worker, options, host)
    session, bind = find_session(host, options.session)
    with session.begin_nested() as savepoint, without_values():
        rows = _guarded(rows, savepoint)
        connection = join(session, bind)
        common |= connection.exec_driver_sql(sql.load("moment_of_many"), common).mappings().one()
        if options.unique is None:
            head = _head(common)
            line = _plain_line(worker, host, head)
            result = EnqueuedMany(_copy(connection, sql.load("copy_jobs"), worker, line, rows))
            if result.count:
                born = {**common, "born": result.count}
                connection.exec_driver_sql(sql.load("count_births"), born)
        else:
            result = _bear(connection, worker, options.unique, host, common, rows)
    if result.count:
        if common["state"] == "available" and host.hand_out is not None:
            touch(session, host.hand_out, TouchedLine(options.line, options.queue))
        if signals.job_enqueued.receivers:
            signals.send(signals.job_enqueued, worker, enqueued=result)
    return result


def _guarded(rows: Iterable[Row], savepoint: SessionTransaction) -> Iterator[Row]:
    """The rows, as long as our savepoint stands: without it the next COPY would go to somebody else's transaction."""
    for row in rows:
        _require_standing(savepoint)
        yield row
    _require_standing(savepoint)


def _require_standing(savepoint: SessionTransaction) -> None:
    if not savepoint.is_active:
        raise RefusedSession(
            "the iterable given to enqueue_many has ended the session's transaction by a commit or rollback of its "
            "own: give a list, or read with another session. What it committed stays, nothing else was recorded"
        )


def _bear(
    connection: Connection,
    worker: Worker,
    unique: Unique,
    host: Host,
    common: Mapping[str, Any],
    rows: Iterable[Row],
) -> EnqueuedMany:
    """The unique ones, through a temporary table."""
    births = f"pg_temp.opsjobs_births_{next(_numbers)}"
    key_count = len(set(host.secrets))

    def run(name: str, **values: Any) -> Any:
        statement = sql.load(name).replace("{births}", births)
        return connection.exec_driver_sql(statement, values or None)

    run("create_births")
    copy = sql.load("copy_births").replace("{births}", births)
    gathered = _copy(connection, copy, worker, _unique_line(worker, unique, host), rows)
    run("analyze_births")
    run("forget_expired_births")
    count = run("bear_unique_jobs", **common, **receipt(unique), key_count=key_count).scalar_one()
    if key_count > 1:
        run("give_back_births")
    run("drop_births")
    return EnqueuedMany(count, gathered - count)


def _plain_line(worker: Worker, host: Host, head: bytes) -> Line:
    validate, dump = worker.arguments.validate, worker.arguments.dump
    limit = host.settings.max_args_bytes

    def line(row: Row) -> bytes:
        # JSON has no raw control characters: the backslash is all that COPY would misread.
        return head + dump(validate((), row), limit).replace(b"\\", b"\\\\") + b"\n"

    return line


def _unique_line(worker: Worker, unique: Unique, host: Host) -> Line:
    limit = host.settings.max_args_bytes

    def line(row: Row) -> bytes:
        values = worker.arguments.validate((), row)
        raw = worker.arguments.dump(values, limit).replace(b"\\", b"\\\\")
        hexed = ",".join(key.hex() for key in keys(worker, unique, host, values))
        return b"{%b}\t%b\n" % (hexed.encode(), raw)

    return line


def _copy(
    connection: Connection, statement: str, worker: Worker, line: Line, rows: Iterable[Row]
) -> int:
    """Copy a line for each row; how many."""
    raw = connection.connection.driver_connection
    assert isinstance(raw, psycopg.Connection)
    done = 0
    for lines in _chunks(worker, line, rows):
        try:
            with raw.cursor() as cursor, cursor.copy(statement) as copy:
                copy.write(b"".join(lines))
        except psycopg.Error as error:
            failed = _without_row(error)
        else:
            done += len(lines)
            continue
        raise DBAPIError.instance(statement, None, failed, psycopg.Error, hide_parameters=True)
    return done


def _chunks(worker: Worker, line: Line, rows: Iterable[Row]) -> Iterator[list[bytes]]:
    """The lines in chunks, bounded in number and in bytes: whatever the rows are, no more than that is in memory."""
    chunk: list[bytes] = []
    size = 0
    for number, row in enumerate(rows):
        try:
            chunk.append(line(row))
        except InvalidArgs as error:
            refused = _at_row(worker, number, error)
        else:
            size += len(chunk[-1])
            if len(chunk) == _CHUNK_ROWS or size >= _CHUNK_BYTES:
                yield chunk
                chunk, size = [], 0
            continue
        raise refused
    if chunk:
        yield chunk


def _at_row(worker: Worker, number: int, error: InvalidArgs) -> InvalidArgs:
    told = [{**one, "loc": f"[{number}].{one['loc']}"} for one in error.errors]
    return InvalidArgs(worker.name, told)


def _without_row(error: psycopg.Error) -> psycopg.Error:
    """The error without its DETAIL and CONTEXT, in which Postgres quotes the line."""
    return type(error)(error.diag.message_primary or "the connection broke")


def _head(common: Mapping[str, Any]) -> bytes:
    """The columns that all rows share, as COPY reads them, up to the arguments."""
    tags = ",".join('"' + _escape_item(tag) + '"' for tag in common["tags"])
    columns = (
        *(common[name] for name in ("worker", "queue", "line", "state", "priority", "meta")),
        "{" + tags + "}",
        *(common[name] for name in ("max_attempts", "timeout_seconds", "deadline_at")),
        common["created_at"],
        common["due_at"],
    )
    return "".join(_escape(column) + "\t" for column in columns).encode()


def _escape_item(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _escape(value: object) -> str:
    if value is None:
        return "\\N"
    text = str(value).replace("\\", "\\\\")
    return text.replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")

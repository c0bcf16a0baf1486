"""Enqueues a job for a loop or an operator, on a connection of its own instead of the host's session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from psycopg.rows import namedtuple_row

from ...core import db, sql
from . import unique_locks
from .enqueue import Enqueued, keys, parameters, unique_lock
from .placing import columns_of, place_of

if TYPE_CHECKING:
    from ...host import Host
    from .task import Task


def enqueue_detached(
    connection: db.Connection,
    host: Host,
    task: Task,
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
    values = task.arguments.load(stored)
    place = place_of(task, task.declared, host, values)
    row = parameters(task, task.declared, host) | columns_of(task.declared, place)
    row |= {"cron_entry": cron_entry, "is_deferred": is_deferred, "dispatch_no": 0}
    row["args"] = task.arguments.dump(values, host.settings.max_args_bytes).decode()
    run = partial(_run_sql, connection)
    unique = task.declared.unique
    if unique is None:
        (found,) = run("enqueue_job", row)
        return Enqueued(found.id, found.state), row["lane"]
    row |= unique_lock(unique)
    row["keys"] = keys(task, unique, host, values)
    return Enqueued(*unique_locks.find_or_take(run, row)), row["lane"]


def find_same_call(
    connection: db.Connection, host: Host, task: Task, stored: Mapping[str, Any]
) -> int | None:
    """The id of the job that holds the unique lock of this call; None without one, or without uniqueness.

    Locks nothing. Raises `InvalidArgs`, and whatever the host's `key` function raises.
    """
    values, unique = task.arguments.load(stored), task.declared.unique
    if unique is None:
        return None
    found = unique_locks.find(partial(_run_sql, connection), keys(task, unique, host, values))
    return None if found is None else found[0]


def _run_sql(connection: db.Connection, statement: str, values: Mapping[str, Any]) -> Sequence[Any]:
    with connection.cursor(row_factory=namedtuple_row) as cursor:
        cursor.execute(sql.load(statement), values)
        return cursor.fetchall() if cursor.description else ()

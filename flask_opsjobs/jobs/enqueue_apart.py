"""Recording a job for a loop or an operator: the statements of `enqueue`, on a connection of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from psycopg.rows import namedtuple_row

from .. import db, sql
from . import receipts
from .enqueue import Enqueued, keys, parameters, receipt

if TYPE_CHECKING:
    from ..host import Host
    from .worker import Worker


def enqueue_apart(
    connection: db.Connection,
    host: Host,
    worker: Worker,
    stored: Mapping[str, Any],
    *,
    cron_entry: str | None = None,
    is_deferred: bool = False,
) -> Enqueued:
    """Record a call of stored arguments, as the worker is declared, in the caller's transaction.

    `is_deferred`: it waits until the other jobs of its entry have ended. Raises `InvalidArgs` when the arguments no
    longer fit the worker; then nothing was written. The caller has its line dispatched once it has committed.
    """
    values = worker.arguments.load(stored)
    row = parameters(worker, worker.declared, host)
    row |= {"cron_entry": cron_entry, "is_deferred": is_deferred, "dispatch_no": 0}
    row["args"] = worker.arguments.dump(values, host.settings.max_args_bytes).decode()
    ask = partial(_ask, connection)
    unique = worker.declared.unique
    if unique is None:
        (found,) = ask("enqueue_job", row)
        return Enqueued(found.id, found.state)
    row |= receipt(unique)
    row["keys"] = keys(worker, unique, host, values)
    return Enqueued(*receipts.find_or_take(ask, row))


def _ask(connection: db.Connection, statement: str, values: Mapping[str, Any]) -> Sequence[Any]:
    with connection.cursor(row_factory=namedtuple_row) as cursor:
        cursor.execute(sql.load(statement), values)
        return cursor.fetchall() if cursor.description else ()

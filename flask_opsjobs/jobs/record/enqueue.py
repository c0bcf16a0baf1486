"""Enqueues one job: one row, and a unique lock when it is unique, in the transaction of the host's session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from ... import signals
from ...core import sql
from ...core.after_commit import after_commit
from ...errors import InvalidArgs
from ..commit_notes import DueLane, QueuedAtInsert
from . import unique_locks
from .joining import find_session, join, without_values
from .placing import RejectWhenFull, columns_of, place_of
from .unique import Unique, keys_of

if TYPE_CHECKING:
    from ...host import Host
    from .options import Options
    from .task import Task


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
    task: Task, options: Options, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Enqueued:
    """Enqueue one call in the host's transaction; the host commits. Redis is not touched before the commit.

    Raises `InvalidArgs` when the arguments are invalid, and `LimitReached` when a full limiter rejects the
    call; then no job was written.
    """
    host = task.host()
    host.require_schema(or_newer=True)
    values = task.arguments.validate(args, kwargs)
    place = place_of(task, options, host, values)
    row = parameters(task, options, host) | columns_of(options, place)
    row["args"] = task.arguments.dump(values, host.settings.max_args_bytes).decode()
    session, bind = find_session(host, options.session)
    with without_values():
        connection = join(session, bind)
        reject = RejectWhenFull(task, options, host, session)
        rejection = reject.find_rejection(connection, place)
        if options.unique is None:
            if rejection is not None:
                raise reject.refuse(rejection)
            enqueued = insert(connection, row, _first_number(options, host))
        else:
            row |= unique_lock(options.unique)
            row["keys"] = keys(task, options.unique, host, values)
            # When the limiter is full, a call that was enqueued before is still a conflict, not a rejection.
            if (
                rejection is not None
                and unique_locks.find(partial(run_sql, connection), row["keys"]) is None
            ):
                raise reject.refuse(rejection)
            enqueued = Enqueued(*unique_locks.find_or_take(partial(run_sql, connection), row))
    if not enqueued.conflict:
        _tell_hook(session, host, task, options, enqueued, row["lane"])
        if signals.job_enqueued.receivers:
            signals.send(signals.job_enqueued, task, enqueued=enqueued)
    return enqueued


def insert(connection: Connection, row: Mapping[str, Any], dispatch_no: int = 0) -> Enqueued:
    """Insert a job that is not unique.

    With a `dispatch_no` a due job becomes `queued`, and the caller pushes it.
    """
    found = connection.exec_driver_sql(
        sql.load("enqueue_job"), {**row, "dispatch_no": dispatch_no}
    ).one()
    return Enqueued(found[0], found[1])


def run_sql(connection: Connection, statement: str, values: Mapping[str, Any]) -> Sequence[Any]:
    """Run a statement of a folder `sql` in the host's transaction; returns its rows, with columns by name."""
    answer = connection.exec_driver_sql(sql.load(statement), dict(values))
    return answer.all() if answer.returns_rows else ()


def _first_number(options: Options, host: Host) -> int:
    """1 when the job may be inserted as `queued`: it is due, and its queue has estimated room. Else 0."""
    # Never for a limited job: the dispatcher must look at its bucket first.
    if host.dispatcher is None or options.limit is not None:
        return 0
    return 1 if options.is_due_now and host.dispatcher.has_room(options.queue) else 0


def _tell_hook(
    session: Session, host: Host, task: Task, options: Options, enqueued: Enqueued, lane: str
) -> None:
    if host.dispatcher is None:
        return
    if enqueued.state == "available":
        after_commit(session, host.dispatcher.push, DueLane(lane, options.queue))
    elif enqueued.state == "queued":
        queued = QueuedAtInsert(
            enqueued.id, 1, options.queue, task.name, options.priority, options.timeout
        )
        after_commit(session, host.dispatcher.push, queued)


def parameters(task: Task, options: Options, host: Host) -> dict[str, Any]:
    """The parameters that the enqueue statements take, except arguments, limit and unique lock.

    Raises `InvalidArgs` when `meta` is too large.
    """
    columns = options.columns
    if len(columns["meta"]) > host.settings.max_args_bytes:
        limit = host.settings.max_args_bytes
        message = f"is larger than OPSJOBS_MAX_ARGS_BYTES = {limit}"
        raise InvalidArgs(task.name, [{"loc": "meta", "msg": message, "type": "too_large"}])
    cron = {"cron_entry": None, "is_deferred": False}
    return {"task": task.name, **cron, **columns, **columns_of(options, None)}


def unique_lock(unique: Unique) -> dict[str, Any]:
    """The parameters of a unique lock, without its keys."""
    return {"until": unique.lifetime, "within": unique.within}


def keys(task: Task, unique: Unique, host: Host, values: Mapping[str, Any]) -> list[bytes]:
    """The keys of a call, that of the current secret first.

    Raises `InvalidArgs` when the values that make the call unique cannot be written as JSON.
    """
    arguments = task.arguments.with_defaults(values)
    if unique.key is not None:
        chosen = unique.key(arguments)
    else:
        plain = task.arguments.flatten(arguments)
        chosen = plain if unique.by is None else {name: plain[name] for name in unique.by}
    try:
        return keys_of(host.secrets, task.name, chosen)
    except (TypeError, ValueError):
        pass
    message = "cannot be part of a unique key: choose others with by=[…], or compute one with key=…"
    raise InvalidArgs(task.name, [{"loc": "arguments", "msg": message, "type": "not_json"}])

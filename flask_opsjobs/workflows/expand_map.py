"""Expands maps: the job of a map reads its list and adds one step per element, once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from sqlalchemy import Connection

from ..core import copy_text, sql
from ..core.after_commit import after_commit
from ..errors import InvalidArgs
from ..host import DueLane, Host, TraceColumns
from ..jobs.perform.current import current_delivery
from ..jobs.perform.outcomes import EndedBy
from ..jobs.record.declaration import TaskDeclaration
from ..jobs.record.enqueue import find_session, join, load_for, run_sql
from ..jobs.record.enqueue_many import MOST_LANES, copy_lines
from ..jobs.record.job_limit import columns_of, job_limit_of
from ..jobs.record.unique_locks import RunSql
from .declaration import MAP_TASK

MOST_ELEMENTS = 10_000
MOST_JOBS = 50_000
# How many errors of elements the end of a map shows.
_SHOWN = 10
_LIMIT_COLUMNS = ("lane", "limiter", "partition", "weight")


def make_map_task(host: Host) -> TaskDeclaration:
    """The built-in task whose jobs expand maps."""

    def expand(
        over: Any, task: str, as_: str, options: dict[str, Any], args: dict[str, Any]
    ) -> int:
        """Add a step per element of `over`; returns their number."""
        return _expand(host, over, _Call(task, as_, options, args))

    return TaskDeclaration(expand, name=MAP_TASK, record_output=True)


@dataclass(frozen=True)
class _Call:
    """The call that each element gets: its task, the parameter of the element, options, other arguments."""

    task: str
    as_: str
    options: Mapping[str, Any]
    args: Mapping[str, Any]


@dataclass(frozen=True)
class _Member:
    """One element's call, valid for its task: its arguments as JSON, and the columns of its limit."""

    args: bytes
    limit: Mapping[str, Any]


def _expand(host: Host, over: Any, call: _Call) -> int:
    members = _read_members(host, over, call)
    session, bind = find_session(host, None)
    connection = join(host, session, bind)
    found = _lock(partial(run_sql, connection))
    if found is None:
        session.rollback()
        return len(members)
    if found.steps + len(members) > MOST_JOBS:
        session.rollback()
        raise EndedBy(
            "too_large",
            f"its list has {len(members):,} elements, and with them the run would have more than "
            f"{MOST_JOBS:,} jobs: enqueue a batch instead",
        )
    with host.telemetry.sending(call.task, call.options["queue"]) as sent:
        _write(connection, found, call, members, sent.columns)
        sent.count = len(members)
    if host.dispatcher is not None:
        lanes = dict.fromkeys(DueLane(one.limit["lane"], call.options["queue"]) for one in members)
        for lane in list(lanes)[:MOST_LANES]:
            after_commit(session, host.dispatcher.push, lane)
    session.commit()
    return len(members)


def _lock(run: RunSql) -> Any | None:
    """The map and its run, which is locked; None when there is nothing to do.

    That is so in a second attempt, when the first one had expanded the map before its worker died; when the
    run was canceled; and when this attempt was given up, since another one does it then.
    """
    job_id, dispatch_no = current_delivery()
    run("lock_run_of_map", {"id": job_id})
    found = next(iter(run("read_map", {"id": job_id, "dispatch_no": dispatch_no})), None)
    if found is None or not found.is_current:
        return None
    is_done = found.expanded_at is not None or found.settled is not None
    return None if is_done or found.state != "running" else found


def _write(
    connection: Connection,
    found: Any,
    call: _Call,
    members: Sequence[_Member],
    trace: TraceColumns,
) -> None:
    """Write the jobs and steps of the members, and let the steps behind the map wait for them."""
    run = partial(run_sql, connection)
    (reserved,) = run("reserve_job_ids", {"number": len(members)})
    jobs = _lines_of_jobs(found, call, zip(reserved.ids, members, strict=True), trace)
    copy_lines(connection, load_for("copy_jobs_of_steps", trace), jobs)
    copy_lines(connection, sql.load("copy_members"), _lines_of_members(found, reserved.ids))
    if members:
        counted = {
            "queues": [call.options["queue"]],
            "tasks": [call.task],
            "numbers": [len(members)],
            "now": found.now,
        }
        run("count_jobs_of_steps", counted)
    added = {"id": found.id, "run": found.run, "members": list(reserved.ids), "now": found.now}
    run("add_members", added)


def _read_members(host: Host, over: Any, call: _Call) -> list[_Member]:
    """The call of each element. Raises `EndedBy` when the list or an element cannot be used."""
    task = host.tasks.get(call.task)
    if task is None:
        raise EndedBy("unknown_task", f"no task {call.task!r} is declared here")
    if not isinstance(over, list):
        raise EndedBy(
            "invalid_args",
            f"over must be a list, it is a {type(over).__name__}: skip this step with the list of its "
            "results, or let the step before it return a list",
        )
    if len(over) > MOST_ELEMENTS:
        raise EndedBy(
            "too_large",
            f"its list has {len(over):,} elements, a map takes {MOST_ELEMENTS:,}: enqueue a batch instead",
        )
    members, faults = [], []
    for number, element in enumerate(over):
        try:
            members.append(_read_member(host, task, call, element))
        except InvalidArgs as error:
            faults += [f"[{number}].{one['loc']}: {one['msg']}" for one in error.errors]
    if faults:
        more = f"; and {len(faults) - _SHOWN:,} more errors" if len(faults) > _SHOWN else ""
        raise EndedBy("invalid_args", "; ".join(faults[:_SHOWN]) + more)
    return members


def _read_member(host: Host, task: TaskDeclaration, call: _Call, element: Any) -> _Member:
    values = task.arguments.load({**call.args, call.as_: element})
    limit = task.declared.limit
    if limit is None:
        columns = {name: call.options[name] for name in _LIMIT_COLUMNS}
    else:
        columns = columns_of(call.options["queue"], job_limit_of(task, limit, host, values))
    return _Member(task.arguments.dump(values, host.settings.max_args_bytes), columns)


def _lines_of_jobs(
    found: Any,
    call: _Call,
    rows: Iterable[tuple[int, _Member]],
    trace: TraceColumns,
) -> Iterator[bytes]:
    now, options = found.now.isoformat(), call.options
    seconds = options["deadline_seconds"]
    deadline = None if seconds is None else (found.now + timedelta(seconds=seconds)).isoformat()
    shared = (
        call.task,
        options["queue"],
        options["priority"],
        json.dumps(options["meta"]),
        copy_text.array(options["tags"]),
        options["max_attempts"],
        options["timeout_seconds"],
    )
    for id, member in rows:
        own = (id, "available", now, deadline, None, None)
        limit = (member.limit[name] for name in _LIMIT_COLUMNS)
        columns = (*own, *shared, *limit, now, found.run, *trace.values())
        head = "".join(copy_text.column(one) + "\t" for one in columns)
        yield head.encode() + member.args.replace(b"\\", b"\\\\") + b"\n"


def _lines_of_members(found: Any, ids: Sequence[int]) -> Iterator[bytes]:
    now = found.now.isoformat()
    for element, id in enumerate(ids):
        name = f"{found.name}[{element}]"
        own = (id, found.run, name, element, "member", found.id, element, 0, now, found.may_fail)
        yield ("\t".join(map(copy_text.column, own)) + "\n").encode()

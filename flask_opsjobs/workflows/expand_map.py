"""Expands maps: the job of a map reads its list and adds one step per element, once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from ..core import copy_text, sql
from ..core.after_commit import after_commit
from ..errors import InvalidArgs
from ..host import DueLane, Host
from ..jobs.perform.current import current_job
from ..jobs.perform.outcomes import EndedBy
from ..jobs.record.declaration import TaskDeclaration
from ..jobs.record.enqueue import find_session, join, run_sql
from ..jobs.record.enqueue_many import MOST_LANES, copy_lines
from ..jobs.record.job_limit import columns_of, job_limit_of
from .declaration import MAP_TASK

MOST_ELEMENTS = 10_000
MOST_JOBS = 50_000
# How many errors of elements the end of a map shows.
_SHOWN = 10


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
    """One element's call, valid for its task: its arguments as JSON, and the columns of its place."""

    args: bytes
    place: Mapping[str, Any]


def _expand(host: Host, over: Any, call: _Call) -> int:
    members = _read_members(host, over, call)
    job = current_job()
    session, bind = find_session(host, None)
    connection = join(session, bind)
    run = partial(run_sql, connection)
    (found,) = run("lock_run_of_map", {"id": job.id}) or (None,)
    (current,) = run("is_attempt_current", {"id": job.id, "attempt": job.attempt}) or (None,)
    # A later attempt comes here when the first one had expanded the map, and its worker died then.
    if (
        found is None
        or current is None
        or not current.is_current
        or found.expanded_at is not None
        or found.settled is not None
        or found.state != "running"
    ):
        session.rollback()
        return len(members)
    if found.steps + len(members) > MOST_JOBS:
        session.rollback()
        raise EndedBy(
            "too_large",
            f"its list has {len(members):,} elements, and with them the run would have more than "
            f"{MOST_JOBS:,} jobs",
        )
    (reserved,) = run("reserve_job_ids", {"number": len(members)})
    rows = list(zip(reserved.ids, members, strict=True))
    deadline = _deadline(found.now, call.options)
    copy_lines(
        connection, sql.load("copy_jobs_of_steps"), _lines_of_jobs(found, call, rows, deadline)
    )
    copy_lines(connection, sql.load("copy_members"), _lines_of_members(found, job.id, reserved.ids))
    counts = Counter({call.options["queue"]: len(members)} if members else {})
    counted = {"queues": list(counts), "numbers": list(counts.values()), "now": found.now}
    run("count_jobs_of_steps", counted)
    added = {"id": job.id, "run": found.run, "members": list(reserved.ids), "now": found.now}
    run("add_members", added)
    if host.dispatcher is not None:
        lanes = dict.fromkeys(DueLane(one.place["lane"], call.options["queue"]) for one in members)
        for lane in list(lanes)[:MOST_LANES]:
            after_commit(session, host.dispatcher.push, lane)
    session.commit()
    return len(members)


def _read_members(host: Host, over: Any, call: _Call) -> list[_Member]:
    """The call of each element. Raises `EndedBy` when the list or an element cannot be used."""
    task = host.tasks.get(call.task)
    if task is None:
        raise EndedBy("unknown_task", f"no task {call.task!r} is declared here")
    if not isinstance(over, list):
        raise EndedBy("invalid_args", f"over must be a list, it is a {type(over).__name__}")
    if len(over) > MOST_ELEMENTS:
        raise EndedBy(
            "too_large", f"its list has {len(over):,} elements, a map takes {MOST_ELEMENTS:,}"
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
        place = {name: call.options[name] for name in ("lane", "limiter", "partition", "weight")}
    else:
        place = columns_of(call.options["queue"], job_limit_of(task, limit, host, values))
    return _Member(task.arguments.dump(values, host.settings.max_args_bytes), place)


def _deadline(now: datetime, options: Mapping[str, Any]) -> str | None:
    seconds = options["deadline_seconds"]
    return None if seconds is None else (now + timedelta(seconds=seconds)).isoformat()


def _lines_of_jobs(
    found: Any, call: _Call, rows: Sequence[tuple[int, _Member]], deadline: str | None
) -> Iterator[bytes]:
    now, options = found.now.isoformat(), call.options
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
        place = (member.place[name] for name in ("lane", "limiter", "partition", "weight"))
        head = "".join(
            copy_text.column(one) + "\t" for one in (*own, *shared, *place, now, found.run)
        )
        yield head.encode() + member.args.replace(b"\\", b"\\\\") + b"\n"


def _lines_of_members(found: Any, map_id: int, ids: Sequence[int]) -> Iterator[bytes]:
    now = found.now.isoformat()
    for element, id in enumerate(ids):
        columns = (
            id,
            found.run,
            f"{found.name}[{element}]",
            element,
            "member",
            map_id,
            element,
            0,
            now,
            found.may_fail,
        )
        yield ("\t".join(map(copy_text.column, columns)) + "\n").encode()

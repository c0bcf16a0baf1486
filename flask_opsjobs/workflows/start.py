"""Starts a run: writes its rows by COPY inside a savepoint of the host's session."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.orm import Session, scoped_session

from .. import signals
from ..core import copy_text, sql
from ..core.after_commit import after_commit
from ..errors import InvalidWorkflow, OpsJobsError
from ..host import DueLane, Host, TraceColumns
from ..jobs.record.enqueue import Enqueued, find_session, join, load_for, run_sql, without_values
from ..jobs.record.enqueue_many import MOST_LANES, copy_lines
from ..jobs.record.options import interval_of, seconds_of
from ..jobs.record.unique_locks import RunSql
from .declaration import Duration, Step, Wait, WorkflowDeclaration
from .faults import show_name
from .prepare import Prepared, edges_of, prepare
from .prepare_step import PreparedStep

# Each repetition means that another transaction ended or began a run with the same key, or released or took
# the same unique lock, at the same moment.
_MOST_ROUNDS = 100
# As COPY writes it.
_NULL = copy_text.column(None)


@dataclass(frozen=True, slots=True)
class Started:
    """A started run and the number of its steps. With `conflict` nothing was written: it is the open run."""

    id: int
    steps: int
    conflict: bool = False


def start(
    host: Host,
    flow: WorkflowDeclaration,
    *,
    unique: str | None = None,
    session: Session | scoped_session[Any] | None = None,
    deadline: Duration | None = None,
) -> Started:
    """Start a run in the host's transaction; the host commits.

    Raises `InvalidWorkflow` with every error. After an error nothing is written, and the transaction can be
    used further.
    """
    prepared = prepare(host, flow, unique, deadline)
    queues = {step.head.queue for step in prepared.steps}
    with host.telemetry.sending(None, queues.pop() if len(queues) == 1 else None) as sent:
        started = _start(host, flow, prepared, unique, session, deadline, sent.columns)
        sent.count = 0 if started.conflict else started.steps
    return started


def _start(
    host: Host,
    flow: WorkflowDeclaration,
    prepared: Prepared,
    unique: str | None,
    session: Session | scoped_session[Any] | None,
    deadline: Duration | None,
    trace: TraceColumns,
) -> Started:
    session, bind = find_session(host, session)
    with without_values():
        join(host, session, bind)  # before the savepoint, which a session in AUTOCOMMIT cannot have
    with session.begin_nested(), without_values():
        connection = join(host, session, bind)
        run = _begin(connection, flow, prepared, unique, deadline, trace)
        if isinstance(run, Started):
            return run
        rows = run.rows_of(prepared.steps)
        _write(connection, run, prepared, rows)
    _tell(host, session, rows)
    return Started(run.id, len(rows))


@dataclass(frozen=True)
class _Run:
    """A run that was begun: its id, its time, and the ids of its jobs in the order of the graph.

    `trace` are the columns of the trace context of all its jobs, or none.
    """

    name: str
    id: int
    now: datetime
    ids: list[int]
    trace: TraceColumns

    def rows_of(self, steps: Sequence[PreparedStep]) -> list[_Row]:
        return [_Row(id, step, self.now) for id, step in zip(self.ids, steps, strict=True)]


class _Row:
    """A step with the id of its job, and how the job begins."""

    __slots__ = ("due_at", "first_state", "id", "is_released", "step")

    def __init__(self, id: int, step: PreparedStep, now: datetime) -> None:
        self.id = id
        self.step = step
        self.is_released = not step.pending and not isinstance(step.node, Wait)
        self.first_state, self.due_at = "deferred", now
        if self.is_released:
            delay = step.head.delay_seconds
            self.first_state = "scheduled" if delay else "available"
            self.due_at = now + timedelta(seconds=delay)


def _begin(
    connection: Connection,
    flow: WorkflowDeclaration,
    prepared: Prepared,
    unique: str | None,
    deadline: Duration | None,
    trace: TraceColumns,
) -> _Run | Started:
    """Insert the run, or find the open run with the same unique key."""
    run = partial(run_sql, connection)
    values = {
        "name": flow.name,
        "context": prepared.context.decode(),
        "shape": prepared.shape,
        "steps": len(prepared.steps),
        "deadline_seconds": None if deadline is None else seconds_of(deadline),
        "on_end": None if prepared.on_end is None else json.dumps({**prepared.on_end, **trace}),
        "unique_key": unique,
    }
    for _ in range(_MOST_ROUNDS):
        if found := run("insert_workflow", values):
            (reserved,) = run("reserve_job_ids", {"number": len(prepared.steps)})
            # It comes in the zone of the database, in which an hour may be missing before a step is due.
            now = found[0].created_at.astimezone(UTC)
            return _Run(flow.name, found[0].id, now, reserved.ids, trace)
        if other := run("find_open_workflow", {"name": flow.name, "unique_key": unique}):
            return Started(other[0].id, other[0].steps, conflict=True)
    raise OpsJobsError(
        f"workflow {flow.name}: cannot start it with unique=…: others start and end it all the time"
    )


def _write(connection: Connection, run: _Run, prepared: Prepared, rows: Sequence[_Row]) -> None:
    run_statement = partial(run_sql, connection)
    _take_locks(run_statement, run, rows)
    copy_lines(connection, load_for("copy_jobs_of_steps", run.trace), _lines_of_jobs(run, rows))
    copy_lines(connection, sql.load("copy_steps"), _lines_of_steps(run, prepared, rows))
    copy_lines(connection, sql.load("copy_edges"), _lines_of_edges(prepared, rows))
    counts = Counter((row.step.head.queue, row.step.head.task) for row in rows)
    counted = {
        "queues": [queue for queue, _ in counts],
        "tasks": [task for _, task in counts],
        "numbers": list(counts.values()),
        "now": run.now,
    }
    run_statement("count_jobs_of_steps", counted)


def _take_locks(run_statement: RunSql, run: _Run, rows: Sequence[_Row]) -> None:
    """Take the unique locks of all steps. Raises `InvalidWorkflow` with every lock that another job holds."""
    locks = [(key, row) for row in rows for key in row.step.keys]
    if not locks:
        return
    uniques = [row.step.head.unique for _, row in locks]
    wanted: dict[str, Any] = {
        "keys": [key for key, _ in locks],
        "ids": [row.id for _, row in locks],
        "untils": [unique and unique.lifetime for unique in uniques],
        "withins": [unique and interval_of(unique.within) for unique in uniques],
        "now": run.now,
    }
    expired = {"keys": wanted["keys"], "id": None}
    for _ in range(_MOST_ROUNDS):
        run_statement("release_unused_unique_locks", expired)
        run_statement("take_locks_of_steps", wanted)
        missing = run_statement("list_steps_without_lock", wanted)
        if not missing:
            return
        if all(lock.job_id is not None for lock in missing):
            names = {row.id: row.step.node.name for row in rows}
            faults = {lock.id: _fault_of_lock(lock, names) for lock in missing}
            raise InvalidWorkflow(run.name, list(faults.values()))
    raise OpsJobsError(
        f"workflow {run.name}: cannot take the unique locks of its steps: others take and release them all "
        "the time"
    )


def _fault_of_lock(lock: Any, names: dict[int, str]) -> dict[str, str]:
    if lock.job_id in names:
        sentence = f"it has the same unique lock as step {show_name(names[lock.job_id])}"
    else:
        state = "which was deleted" if lock.state is None else f"which is {lock.state}"
        sentence = f"job {lock.job_id}, {state}, holds its unique lock"
    return {"step": show_name(names[lock.id]), "loc": "", "msg": sentence, "type": "unique"}


def _lines_of_jobs(run: _Run, rows: Sequence[_Row]) -> Iterator[bytes]:
    columns = (run.now.isoformat(), run.id, *run.trace.values())
    shared = "".join(copy_text.column(one) + "\t" for one in columns).encode()
    for row in rows:
        step, head = row.step, row.step.head
        deadline = key = until = _NULL
        if head.deadline is not None and row.is_released:
            deadline = (row.due_at + head.deadline).isoformat()
        if step.keys and head.unique is not None:
            # A backslash is escaped for COPY.
            key, until = f"\\\\x{step.keys[0].hex()}", head.unique.lifetime
        own = f"{row.id}\t{row.first_state}\t{row.due_at.isoformat()}\t{deadline}\t{key}\t{until}\t"
        args = step.args.replace(b"\\", b"\\\\")
        yield b"".join((own.encode(), head.columns, step.place, shared, args, b"\n"))


def _lines_of_steps(run: _Run, prepared: Prepared, rows: Sequence[_Row]) -> Iterator[bytes]:
    ids = {id(row.step.node): row.id for row in rows}
    now = run.now.isoformat()
    for row, position in zip(rows, prepared.positions, strict=True):
        step, node, head = row.step, row.step.node, row.step.head
        released_at = now if row.is_released else _NULL
        takes = copy_text.column(_dump_takes(step, ids)) if step.takes else _NULL
        deadline = _NULL if head.deadline is None else head.deadline.total_seconds()
        signals = timeout = _NULL
        key = ""
        if isinstance(node, Wait):
            signals = copy_text.column(copy_text.array(node.signals))
            key = copy_text.column(node.key)
            timeout = copy_text.column(node.timeout and seconds_of(node.timeout))
        yield (
            f"{row.id}\t{run.id}\t{copy_text.column(node.name)}\t{position}\t{node.kind}\t{step.pending}\t"
            f"{released_at}\t{node.may_fail}\t{takes}\t{deadline}\t{head.delay_seconds or _NULL}\t"
            f"{signals}\t{key}\t{timeout}\n"
        ).encode()


def _dump_takes(step: PreparedStep, ids: dict[int, int]) -> str:
    """The results that a step takes, as JSON."""
    takes: dict[str, dict[str, Any]] = {}
    for parameter, reference in step.takes.items():
        takes[parameter] = {"step": ids[id(reference.node)], "path": list(reference.path)}
        if reference.is_list:
            takes[parameter]["all"] = True
    return json.dumps(takes)


def _lines_of_edges(prepared: Prepared, rows: Sequence[_Row]) -> Iterator[bytes]:
    ids = [str(row.id).encode() for row in rows]
    for source, target, on_failure in edges_of(prepared):
        yield b"%b\t%b\t%b\n" % (ids[source], ids[target], on_failure)


def _tell(host: Host, session: Session, rows: Sequence[_Row]) -> None:
    """Dispatch what is due after the commit, and tell the host's receivers of each job."""
    due = (row.step for row in rows if row.first_state == "available")
    lanes = dict.fromkeys(DueLane(step.lane, step.head.queue) for step in due)
    if host.dispatcher is not None:
        for lane in list(lanes)[:MOST_LANES]:
            after_commit(session, host.dispatcher.push, lane)
    if signals.job_enqueued.receivers:
        for row in rows:
            if type(row.step.node) is Step:
                task = host.tasks[row.step.head.task]
                signals.send(signals.job_enqueued, task, enqueued=Enqueued(row.id, row.first_state))

"""Writes an operator's actions on jobs, except ends: retry, reschedule, edit, run again, delete and others.

`endings` also uses it, to delete the attempts that handed a job back.

Every function runs in the caller's transaction. Call `lock`, then `read`: the writes rely on the rows
that `read` returned.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import class_row

from ..core import sql
from ..core.db import Connection
from ..host import Sending
from ..workers.lost_worker import LostWorker
from .edit.call import Edited, JobCall
from .lifecycle import sources_of


@dataclass(frozen=True)
class JobForDecision:
    """The columns of a job that a decision needs. `unique_lock_of` is the job that holds its unique lock.

    The last columns are None for a job that is no step of a workflow. A retry knows also why the step cannot
    be reopened, as (code, why), and how many steps were canceled because of it: `obstacle` and `doomed`. An
    edit knows what the job calls, and what it shall be: `call` and `edited`.
    """

    id: int
    origin: str
    task: str
    queue: str
    lane: str
    priority: int
    state: str
    dispatch_no: int
    attempt: int
    max_attempts: int
    due_at: datetime
    deadline_at: datetime | None
    ended_at: datetime | None
    ended_by: str | None
    cancel_requested_at: datetime | None
    cancel_requested_by: str | None
    unique_key: bytes | None
    unique_until: str | None
    cron_entry: str | None
    batch_id: int | None
    batch_state: str | None
    is_batch_canceled: bool
    worker_id: int | None
    worker: str | None
    worker_kind: str | None
    worker_state: str | None
    worker_heartbeat_at: datetime | None
    worker_ended_at: datetime | None
    # The worker has taken the queued job and not begun it: only the worker moves the row.
    is_reserved: bool
    started_at: datetime | None
    dispatched_at: datetime | None
    unique_lock_of: int | None
    workflow_id: int | None = None
    workflow_state: str | None = None
    step: str | None = None
    step_kind: str | None = None
    is_step_released: bool = False
    obstacle: tuple[str, str] | None = None
    doomed: int = 0
    call: JobCall | None = None
    edited: Edited | None = None
    # Of an adopted job.
    rq_place: str | None = None
    rq_id: str | None = None
    rq_created_at: datetime | None = None

    @property
    def target(self) -> str:
        """The job as the target of an action."""
        return f"job/{self.id}"

    @property
    def label(self) -> str:
        """The job for people: its task."""
        return self.task

    @property
    def is_with_worker(self) -> bool:
        """Whether a worker runs it or has taken it: then the worker is asked to end it."""
        return self.state == "started" or self.is_reserved

    @property
    def lost_worker(self) -> LostWorker | None:
        """The worker that has the job, when it has ended or is unknown; None otherwise."""
        if not self.is_with_worker or self.worker_id is None:
            return None
        worker = LostWorker(
            self.worker_id,
            self.worker,
            self.worker_kind,
            self.worker_state,
            self.worker_heartbeat_at,
            self.worker_ended_at,
        )
        return worker if worker.is_lost else None


def lock(connection: Connection, ids: Iterable[int], *, with_batches: bool = False) -> None:
    """Lock these jobs, in id order; before them the runs that they are steps of.

    Those who retry jobs lock their batches too, which a retry may reopen.
    """
    connection.execute(sql.load("lock_jobs"), {"ids": list(ids), "with_batches": with_batches})


def read(connection: Connection, ids: Iterable[int], now: datetime) -> dict[int, JobForDecision]:
    """Those of these jobs that exist, by id and in id order. Locks nothing."""
    with connection.cursor(row_factory=class_row(JobForDecision)) as cursor:
        cursor.execute(sql.load("read_jobs"), {"ids": list(ids), "now": now})
        return {job.id: job for job in cursor}


def retry(connection: Connection, ids: Collection[int], now: datetime) -> None:
    """Make jobs due now and allow at least one more attempt. Reopens batches that have ended.

    The caller takes the unique locks of the jobs first.
    """
    _act(connection, "retry_jobs", "retry", ids, now)


def reschedule(
    connection: Connection, ids: Collection[int], due_at: datetime, now: datetime
) -> None:
    """Give waiting jobs another due time; `now` makes them available at once."""
    parameters = {
        "ids": list(ids),
        "sources": list(sources_of("reschedule")),
        "due_at": due_at,
        "now": now,
    }
    connection.execute(sql.load("reschedule_jobs"), parameters)


def read_calls(connection: Connection, ids: Iterable[int]) -> dict[int, JobCall]:
    """What these jobs call, by id. Locks nothing."""
    with connection.cursor(row_factory=class_row(JobCall)) as cursor:
        cursor.execute(sql.load("read_calls"), {"ids": list(ids)})
        return {call.id: call for call in cursor}


def edit(connection: Connection, jobs: Iterable[JobForDecision], now: datetime) -> None:
    """Write what an edit makes of waiting jobs, except their unique locks."""
    rows = [_row_of(job, job.edited) for job in jobs if job.edited is not None]
    parameters = {"rows": json.dumps(rows), "sources": list(sources_of("edit")), "now": now}
    connection.execute(sql.load("edit_jobs"), parameters)


def _row_of(job: JobForDecision, edited: Edited) -> dict[str, Any]:
    call = edited.call
    key = call.new_keys[0] if call.new_keys else job.unique_key
    return {
        "id": job.id,
        "queue": edited.queue,
        "priority": edited.priority,
        "lane": edited.lane,
        "limiter": call.limiter,
        "partition": call.partition,
        "weight": call.weight,
        "args": edited.args,
        "tags": list(call.tags),
        "unique_key": None if key is None else key.hex(),
    }


def request_cancel(
    connection: Connection, ids: Collection[int], actor: str, reason: str, now: datetime
) -> None:
    """Ask the workers of started jobs to stop them."""
    parameters = {"ids": list(ids), "actor": actor, "reason": reason, "now": now}
    connection.execute(sql.load("request_cancel"), parameters)


def note_cancel_of_rq(
    connection: Connection, ids: Collection[int], actor: str, reason: str, now: datetime
) -> None:
    """Note on adopted jobs that RQ is asked to cancel them. A later request replaces an earlier one."""
    parameters = {"ids": list(ids), "actor": actor, "reason": reason, "now": now}
    connection.execute(sql.load("note_cancel_of_rq"), parameters)


def forget_cancel_of_rq(connection: Connection, ids: Collection[int]) -> None:
    """Forget that RQ was asked to cancel these adopted jobs: something else is asked now."""
    connection.execute(sql.load("forget_cancel_of_rq"), {"ids": list(ids)})


_UNTRACED = {"traceparent": None, "tracestate": None}


def run_again(
    connection: Connection,
    ids: Collection[int],
    guarded: Collection[int],
    now: datetime,
    sent: Sending,
) -> dict[int, int]:
    """Insert a new job for each final one; returns the new ids by the old ids.

    The caller takes a unique lock for each new job of an id in `guarded`. Notes in `sent` in which trace
    contexts the old jobs were enqueued.
    """
    parameters: dict[str, Any] = {
        "ids": list(ids),
        "guarded": list(guarded),
        "sources": list(sources_of("run_again")),
        "now": now,
        **_UNTRACED,
        **sent.columns,
    }
    rows = connection.execute(sql.load("run_jobs_again"), parameters).fetchall()
    sent.because_of += [(trace[0], trace[1]) for _, _, *trace in rows if any(trace)]
    return {old: new for new, old, *_ in rows}


def delete(connection: Connection, ids: Collection[int], now: datetime) -> None:
    """Delete final jobs, with their attempts and outputs."""
    _act(connection, "delete_jobs", "delete", ids, now)


def trim_hand_backs(connection: Connection, deliveries: Collection[tuple[int, int]]) -> None:
    """For each delivery (id, dispatch_no) that is handed back: delete the job's earlier hand-backs.

    Keeps the hand-back of this delivery, and all attempts from before the first of the row of hand-backs.
    """
    ids, numbers = [id for id, _ in deliveries], [number for _, number in deliveries]
    connection.execute(sql.load("trim_hand_backs"), {"job_ids": ids, "dispatch_nos": numbers})


def _act(
    connection: Connection, statement: str, arrow: str, ids: Collection[int], now: datetime
) -> None:
    parameters = {"ids": list(ids), "sources": list(sources_of(arrow)), "now": now}
    connection.execute(sql.load(statement), parameters)

"""Ends attempts and jobs.

Each end is one SQL statement. The functions in `AFTER_END` run after it, in the same transaction.
`retry_or_end_jobs.sql` decides whether a job is tried again after an outcome, `rescue_jobs.sql` after its
worker is lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from psycopg.rows import dict_row

from .. import signals
from ..core import sql
from ..core.db import Connection
from ..core.steady_clock import steady_seconds
from ..jobs import transitions as job_transitions
from ..jobs.lifecycle import WAITING, sources_of
from ..jobs.perform.backoff import HAND_BACK_FOR
from ..workers.lost_worker import LostWorker
from .after_end import AFTER_END, EndedAttempt, MovedJob
from .events import send_ends, send_recalls, send_step_end

# A job fails after RQ workers that lack the host's code failed this many of its deliveries.
MOST_FAILED_DELIVERIES = 3
# Why jobs are rescued although their worker did not vanish, and the cause of death that it means.
WORKER_STOPPED = "its worker stopped"
NOT_RUN_BY_WORKER = "its worker is alive but does not run it"
_DEATHS = {WORKER_STOPPED: "stopped", NOT_RUN_BY_WORKER: "unknown"}


def write_outcomes(
    connection: Connection,
    endings: Sequence[EndedAttempt],
    now: datetime,
    hand_back_for: timedelta = HAND_BACK_FOR,
    *,
    steady_now: float | None = None,
) -> list[MovedJob]:
    """Write outcomes in one transaction; return the jobs whose state changed.

    Commits unless the caller has a transaction. An outcome that comes too late is rejected by the fence and
    left out. A job whose task or arguments the worker cannot run is handed back, until `hand_back_for` after
    the first time. `steady_now` is what `steady_seconds` said at `now`. Locks the jobs in id order. Raises
    what Postgres raises; then nothing was written.
    """
    moment = steady_seconds() if steady_now is None else steady_now
    rows = json.dumps([_row(ending, moment) for ending in endings])
    return _end(
        connection,
        "retry_or_end_jobs",
        {"outcomes": rows, "now": now, "hand_back_for": hand_back_for},
        endings,
    )


def finish(
    connection: Connection,
    ended: Sequence[EndedAttempt],
    now: datetime,
    *,
    steady_now: float | None = None,
) -> list[MovedJob]:
    """Write plain outcomes of one worker in one transaction; return the jobs whose state changed.

    The same as `write_outcomes`, and faster. Commits unless the caller has a transaction.
    """
    if not ended:
        return []
    moment = steady_seconds() if steady_now is None else steady_now
    return _end(
        connection,
        "finish_jobs",
        {
            "ids": sql.array_of(each.id for each in ended),
            "dispatch_nos": sql.array_of(each.dispatch_no for each in ended),
            "pids": sql.array_of(each.pid for each in ended),
            "began_ago": sql.array_of(moment - (each.began or moment) for each in ended),
            "ended_ago": sql.array_of(moment - (each.ended or moment) for each in ended),
            "worker_id": ended[0].worker_id,
            "worker": ended[0].worker,
            "now": now,
        },
        ended,
    )


def give_back(
    connection: Connection, reserved: Iterable[tuple[int, int]], worker_id: int, now: datetime
) -> list[MovedJob]:
    """Give jobs (id, dispatch_no) back that this worker has reserved and not begun; return them.

    They become available without an attempt. Those that somebody asked to cancel end, and those whose
    deadline has passed. Commits unless the caller has a transaction. Locks the jobs in id order.
    """
    keys = list(reserved)
    parameters = {
        "ids": [id for id, _ in keys],
        "dispatch_nos": [number for _, number in keys],
        "worker_id": worker_id,
        "now": now,
    }
    return _recall(connection, "give_back_jobs", parameters)


def expire(
    connection: Connection, now: datetime, *, limit: int = 1000, ids: Sequence[int] | None = None
) -> list[MovedJob]:
    """End at most `limit` waiting jobs whose deadline has passed; only jobs in `ids`, if given.

    Returns the ended jobs. Commits unless the caller has a transaction.
    """
    return _end(
        connection,
        "expire_jobs",
        {"now": now, "limit": limit, "ids": None if ids is None else list(ids)},
    )


def rescue(
    connection: Connection,
    worker_ids: Sequence[int],
    now: datetime,
    cause: str,
    *,
    exclude: Iterable[str] = (),
    claimed_before: datetime | None = None,
    limit: int = 1000,
) -> list[MovedJob]:
    """Rescue at most `limit` `started` jobs of these workers, except those in `exclude`; return them.

    Commits unless the caller has a transaction. `exclude` holds deliveries as "id-dispatch_no". Only jobs
    claimed before `claimed_before` (by default `now`) are rescued: the worker may still run a job
    that it claimed later. Jobs without attempts left fail. `cause` says in words why the attempts are lost.
    Locks the jobs in id order.
    """
    return _end(
        connection,
        "rescue_jobs",
        {
            "worker_ids": list(worker_ids),
            "ids": None,
            "now": now,
            "cause": cause,
            "death": _DEATHS.get(cause, "vanished"),
            "exclude": list(exclude),
            "claimed_before": claimed_before or now,
            "limit": limit,
        },
    )


def rescue_lost(
    connection: Connection,
    worker: LostWorker,
    ids: Sequence[int],
    claimed_before: datetime,
    now: datetime,
) -> list[MovedJob]:
    """Rescue those of these jobs that a lost worker had begun or reserved before `claimed_before`.

    Returns them. The caller has locked the jobs, and commits.
    """
    began = _end(
        connection,
        "rescue_jobs",
        {
            "worker_ids": [worker.worker_id],
            "ids": list(ids),
            "now": now,
            "cause": worker.cause,
            "death": _DEATHS.get(worker.cause, "vanished"),
            "exclude": [],
            "claimed_before": claimed_before,
            "limit": len(ids),
        },
    )
    reserved = _recall(
        connection,
        "rescue_reserved_jobs",
        {
            "worker_ids": [worker.worker_id],
            "ids": list(ids),
            "now": now,
            "reserved_before": claimed_before,
            "limit": len(ids),
        },
    )
    return began + reserved


def rescue_reserved(
    connection: Connection,
    worker_ids: Sequence[int],
    now: datetime,
    reserved_before: datetime,
    *,
    limit: int = 1000,
) -> list[MovedJob]:
    """Take back at most `limit` jobs that these workers reserved before this time; return them.

    They cost no attempt. Commits unless the caller has a transaction. Locks the jobs in id order.
    """
    parameters = {
        "worker_ids": list(worker_ids),
        "ids": None,
        "now": now,
        "reserved_before": reserved_before,
        "limit": limit,
    }
    return _recall(connection, "rescue_reserved_jobs", parameters)


def count_failed_deliveries(
    connection: Connection, deliveries: Sequence[tuple[int, int]], now: datetime
) -> list[MovedJob]:
    """Count a failed delivery for each (id, dispatch_no) that RQ marked as failed without running our code.

    Commits unless the caller has a transaction. Returns their jobs: available again, or failed at the third
    failed delivery.
    """
    ids, numbers = [id for id, _ in deliveries], [number for _, number in deliveries]
    return _end(
        connection,
        "count_failed_deliveries",
        {"ids": ids, "dispatch_nos": numbers, "now": now, "limit": MOST_FAILED_DELIVERIES},
    )


def cancel(
    connection: Connection, ids: Sequence[int], now: datetime, reason: str | None
) -> list[MovedJob]:
    """Cancel those of these jobs that wait; return them. Commits unless the caller has a transaction."""
    return _end_waiting(connection, ids, now, reason, state="canceled", ended_by="canceled")


def discard(
    connection: Connection, ids: Sequence[int], now: datetime, reason: str | None
) -> list[MovedJob]:
    """Fail those of these jobs that wait; return them. Commits unless the caller has a transaction."""
    return _end_waiting(connection, ids, now, reason, state="failed", ended_by="discarded")


def cancel_dependents(connection: Connection, ids: Sequence[int], now: datetime) -> list[MovedJob]:
    """Cancel those of these steps that are deferred, because a step before them did not finish.

    Returns them. Commits unless the caller has a transaction.
    """
    parameters = {
        "ids": list(ids),
        "now": now,
        "reason": "a step before it did not finish",
        "sources": ["deferred"],
        "state": "canceled",
        "ended_by": "dependency",
    }
    return _end(connection, "end_waiting_jobs", parameters)


def fail_waiting(
    connection: Connection, ids: Sequence[int], now: datetime, ended_by: str, reason: str
) -> list[MovedJob]:
    """Fail those of these jobs that wait; return them. Commits unless the caller has a transaction."""
    return _end_waiting(connection, ids, now, reason, state="failed", ended_by=ended_by)


def receive(
    connection: Connection,
    wait: int,
    signal: int,
    now: datetime,
    outcomes: Sequence[str] = ("early",),
) -> bool:
    """End an open wait with a signal that has one of these outcomes; return whether it did.

    The caller holds the run's lock and commits. False when the wait has ended, or another process has locked
    it or the signal.
    """
    parameters = {"wait": wait, "signal": signal, "now": now, "outcomes": list(outcomes)}
    with connection.cursor(row_factory=dict_row) as cursor:
        taken = cursor.execute(sql.load("take_signal"), parameters).fetchone()
    if taken is not None:
        send_step_end(**taken)
    return taken is not None


def skip(
    connection: Connection, ids: Sequence[int], now: datetime, result: str, reason: str | None
) -> list[MovedJob]:
    """End those of these steps that wait or did not finish, as finished with `result`, a JSON text.

    The caller holds the run's lock, has reopened the steps that had settled, and commits. Returns the steps.
    """
    parameters = {
        "ids": list(ids),
        "sources": list(sources_of("skip")),
        "now": now,
        "result": result,
        "reason": reason,
    }
    return _end(connection, "skip_steps", parameters)


def stop(
    connection: Connection, jobs: Mapping[int, str], actor: str, reason: str, now: datetime
) -> None:
    """Cancel those of these jobs that wait, and ask the workers of the others to stop them.

    `jobs` holds their states by id. The caller has locked the jobs, and commits.
    """
    cancel(connection, [id for id, state in jobs.items() if state in WAITING], now, reason)
    # A queued job may be reserved by a worker: then it was left alone.
    job_transitions.request_cancel(connection, list(jobs), actor, reason, now)


def _end_waiting(
    connection: Connection, ids: Sequence[int], now: datetime, reason: str | None, **end: str
) -> list[MovedJob]:
    parameters = {"ids": list(ids), "now": now, "reason": reason, "sources": list(WAITING), **end}
    return _end(connection, "end_waiting_jobs", parameters)


def _recall(
    connection: Connection, statement: str, parameters: Mapping[str, Any]
) -> list[MovedJob]:
    """Run a statement that takes back jobs which had not begun; some may end instead."""
    with signals.once_committed():
        moved = _end(connection, statement, parameters)
        send_recalls((job.id, job.queue) for job in moved if not job.is_final)
    return moved


def _end(
    connection: Connection,
    statement: str,
    parameters: Mapping[str, Any],
    attempts: Sequence[EndedAttempt] = (),
) -> list[MovedJob]:
    """Run the statement and all that follows an end; `attempts` are those whose outcomes it writes."""
    with (
        signals.once_committed(),
        connection.transaction(),
        connection.cursor(row_factory=dict_row) as cursor,
    ):
        cursor.execute(sql.load(statement), parameters)
        ended = [MovedJob(**row) for row in cursor.fetchall()]
        send_ends(ended, attempts)
        for tell in AFTER_END:
            tell(connection, ended, parameters["now"])
    return ended


def _row(ending: EndedAttempt, moment: float) -> dict[str, Any]:
    outcome = ending.outcome
    done, total, note = outcome.progress or (None, None, None)
    has_output = outcome.output is not None
    return {
        "id": ending.id,
        "dispatch_no": ending.dispatch_no,
        "worker_id": ending.worker_id,
        "worker": ending.worker,
        "kind": outcome.kind,
        "error": outcome.error,
        "traceback": outcome.traceback,
        "reason": outcome.reason,
        "delay_seconds": outcome.delay_seconds,
        "ended_by": outcome.ended_by,
        "output": json.loads(outcome.output) if outcome.output is not None else None,
        "keep_output": has_output or outcome.output_omitted is not None,
        "output_bytes": outcome.output_bytes,
        "output_omitted": outcome.output_omitted,
        "log_tail": outcome.log_tail,
        "cause_of_death": outcome.cause_of_death,
        "death": outcome.death,
        "death_facts": outcome.death_facts,
        "failure_key": outcome.failure_key,
        "max_rss_kb": outcome.max_rss_kb,
        "done": done,
        "total": total,
        "note": note,
        "pid": ending.pid,
        "began_ago": None if ending.began is None else moment - ending.began,
        "ended_ago": None if ending.ended is None else moment - ending.ended,
    }

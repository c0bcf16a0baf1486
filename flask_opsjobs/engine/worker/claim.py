"""Claims a delivery for a worker before it forks, on a connection that the worker keeps."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import dict_row

from ... import endings
from ...core import sql
from ...core.db import Connection
from ...jobs.perform.claimed import Claimed
from .claim_limited import claim_limited

# CLOCK_BOOTTIME also counts the time in which the machine is suspended. CLOCK_MONOTONIC does not on Linux, but the rest
# of the world goes on meanwhile, and rescues. Where there is no CLOCK_BOOTTIME, CLOCK_MONOTONIC counts that time.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def steady_seconds() -> float:
    """Seconds by a clock that no freeze of this process or machine stops, and that nobody steps."""
    return time.clock_gettime(_CLOCK)


@dataclass(frozen=True)
class NotClaimed:
    """Why a delivery was not claimed: a word, counted in the worker's heartbeat."""

    reason: str


def claim(
    connection: Connection,
    delivery: tuple[int, int],
    worker_id: int,
    worker: str,
    *,
    is_retry: bool = False,
    ignore_limits: bool = False,
    now: datetime | None = None,
) -> Claimed | NotClaimed:
    """Take the delivery (id, dispatch_no), or say why not. One statement, committed asynchronously.

    A limited job takes token and place in a transaction of its own, or goes back as `limited`; with `ignore_limits` its
    limit does not count. `now` stands for the clock that its bucket is asked by.
    `is_retry` says that this worker asked before: it got no answer, though its claim may have been committed, or so
    long ago that it asks whether the job is still its own. Then the attempt goes on, whatever the deadline is.
    Raises what Postgres raises; then the delivery is still to be claimed. An overdue job is ended here.
    """
    job_id, dispatch_no = delivery
    asked_at = steady_seconds()
    parameters = {
        "id": job_id,
        "dispatch_no": dispatch_no,
        "worker_id": worker_id,
        "worker": worker,
        "is_retry": is_retry,
        "ignore_limits": ignore_limits,
    }
    cursor = connection.cursor(row_factory=dict_row)
    row = cursor.execute(sql.load("claim_job"), parameters).fetchone()
    if row is None:
        return NotClaimed("no_row")
    if row["taken_id"] is not None:
        return _claimed(row, job_id, dispatch_no, asked_at)
    if (why := _why_not(row, dispatch_no)) is None:
        key = row["limiter"], row["partition"]
        why, job = claim_limited(connection, delivery, key, worker_id, worker, now)
        if why is None:
            return _claimed(job, job_id, dispatch_no, asked_at)
    if why == "deadline":
        endings.expire(connection, row["now"], ids=[job_id])
    return NotClaimed(why)


def _claimed(row: dict[str, Any], job_id: int, dispatch_no: int, asked_at: float) -> Claimed:
    return Claimed(
        id=job_id,
        dispatch_no=dispatch_no,
        task=row["task"],
        queue=row["queue"],
        args=row["args"],
        meta=row["meta"],
        tags=row["tags"],
        attempt=row["attempt"],
        max_attempts=row["max_attempts"],
        timeout_seconds=row["timeout_seconds"],
        deadline_at=row["deadline_at"],
        created_at=row["created_at"],
        claimed_at=row["now"],
        wait_seconds=row.get("wait_seconds", 0.0),
        asked_at=asked_at,
    )


def _why_not(row: dict[str, Any], dispatch_no: int) -> str | None:
    """Why a delivery was not taken; None when it is that of a limited job, whose bucket is to be asked."""
    if row["was_dispatch_no"] != dispatch_no:
        return "dispatched_again"
    if row["was_state"] != "queued":
        return "not_queued"
    return None if row["is_limited"] else "deadline"

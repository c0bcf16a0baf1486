"""Claims a delivery for a worker before the fork, on a connection that the worker keeps open."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import dict_row

from ... import endings
from ...core import sql
from ...core.db import Connection
from ...jobs.perform.current import Claimed
from .claim_limited import claim_limited

# CLOCK_BOOTTIME also counts the time in which the machine is suspended, while other machines may rescue its
# jobs. On Linux CLOCK_MONOTONIC does not count that time. Other systems have only CLOCK_MONOTONIC, which
# does.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def steady_seconds() -> float:
    """Return seconds of a clock that is never stepped, and that runs on while the machine is frozen."""
    return time.clock_gettime(_CLOCK)


@dataclass(frozen=True)
class NotClaimed:
    """A delivery that was not claimed. `reason` is one word, counted in the worker's heartbeat."""

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
    """Claim the delivery (id, dispatch_no), or return why not. One statement, committed asynchronously.

    A limited job is claimed in a transaction of its own that also takes its token and lease; when its bucket
    has no room, the job is returned and the reason is `limited`. `ignore_limits` claims it like an unlimited
    job. `now` replaces the clock for its bucket.

    `is_retry`: this worker claimed the job before and got no answer, so the claim may be committed; or it
    claimed so long ago that it checks whether the job is still its own. In both cases the attempt goes on,
    whatever its deadline.

    Ends a job whose deadline has passed (reason `deadline`). Raises what Postgres raises; then claim again.
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
    """Return why a delivery was not claimed; None for a limited job, whose bucket has to be checked."""
    if row["was_dispatch_no"] != dispatch_no:
        return "dispatched_again"
    if row["was_state"] != "queued":
        return "not_queued"
    return None if row["is_limited"] else "deadline"

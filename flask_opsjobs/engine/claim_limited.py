"""The claim of a limited job: token and place are taken in the transaction that starts it, or it goes back."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from psycopg.rows import dict_row

from .. import sql
from ..db import Connection
from ..limits import bucket
from ..limits import queries as limit_queries
from ..limits.bucket import Verdict


def claim_limited(
    connection: Connection,
    delivery: tuple[int, int],
    executor_id: int,
    executor: str,
    now: datetime | None = None,
) -> tuple[str | None, dict[str, Any]]:
    """Take the delivery, or put its job back: (None, the job), or (why not, nothing).

    The job's `wait_seconds` pass before it starts: its token comes then. One transaction, committed synchronously;
    locks the job, then its bucket, and reads the clock under both locks, unless `now` is given.
    """
    job_id, dispatch_no = delivery
    asked: dict[str, Any] = {"id": job_id, "dispatch_no": dispatch_no}
    with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        job = cursor.execute(sql.load("lock_job_to_claim"), asked).fetchone()
        if job is None or job["state"] != "queued" or job["dispatch_no"] != dispatch_no:
            return "not_queued", {}
        if job["is_overdue"]:
            return "deadline", {}
        verdict, moment = _ask(connection, job, now)
        asked |= {"now": moment, "wait": verdict.wait_seconds, "tokens": verdict.tokens}
        if not verdict.is_admitted:
            cursor.execute(sql.load("put_back_job"), asked)
            return "limited", {}
        asked |= {"executor_id": executor_id, "executor": executor}
        row = cursor.execute(sql.load("claim_limited_job"), asked).fetchone()
    assert row is not None, "the row is locked and was judged under the lock"
    return None, {**row, "wait_seconds": verdict.wait_seconds}


def _ask(
    connection: Connection, job: dict[str, Any], now: datetime | None
) -> tuple[Verdict, datetime]:
    """What the job's bucket says, locked until the caller commits, and when it was asked."""
    key = {"limiter": job["limiter"], "partition": job["partition"]}
    while connection.execute(sql.load("lock_bucket"), key).fetchone() is None:
        connection.execute(sql.load("make_bucket"), key)
    # A statement of its own, so that it sees what was committed while we waited for the lock.
    (seen,) = limit_queries.list_buckets(connection, [(job["limiter"], job["partition"])])
    moment = now or seen.now
    if seen.shape is None:
        return Verdict((bucket.Block(bucket.UNKNOWN),)), moment
    return bucket.admit(seen.shape, seen.standing, job["weight"], moment), moment

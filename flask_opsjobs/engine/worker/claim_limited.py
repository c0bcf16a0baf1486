"""Claims a limited job: takes tokens and a lease in the transaction that starts it, or returns the job."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from psycopg.rows import dict_row

from ...core import sql
from ...core.db import Connection
from ...limits import bucket, stored_buckets
from ...limits.bucket import Admission
from ...limits.stored_buckets import BucketSeen, Key


def claim_limited(
    connection: Connection,
    delivery: tuple[int, int],
    key: Key,
    worker_id: int,
    worker: str,
    now: datetime | None = None,
) -> tuple[str | None, dict[str, Any]]:
    """Claim the delivery, or return its job: (None, the job), or (why not, {}). `key` is the job's bucket.

    The caller waits `wait_seconds` of the job before it starts it: its token comes then. One transaction,
    committed synchronously. Locks the job, then its bucket, and reads the clock under both locks unless `now`
    is given. Takes two round trips, because other claims of this bucket wait meanwhile.
    """
    job_id, dispatch_no = delivery
    parameters: dict[str, Any] = {"id": job_id, "dispatch_no": dispatch_no}
    with connection.pipeline(), connection.transaction():
        job, seen = _lock_and_look(connection, parameters, key)
        if job is None or job["state"] != "queued" or job["dispatch_no"] != dispatch_no:
            return "not_queued", {}
        if job["is_overdue"]:
            return "deadline", {}
        moment = now or seen.now
        verdict = _judge(seen, job["weight"], moment)
        parameters |= {"now": moment, "wait": verdict.wait_seconds, "tokens": verdict.tokens}
        if not verdict.is_admitted:
            connection.execute(sql.load("return_limited_job"), parameters)
            return "limited", {}
        parameters |= {"worker_id": worker_id, "worker": worker}
        cursor = connection.cursor(row_factory=dict_row)
        cursor.execute(sql.load("claim_limited_job"), parameters)
    taken = cursor.fetchone()
    assert taken is not None, "the row is locked and was judged under the lock"
    return None, {**taken, "wait_seconds": verdict.wait_seconds}


def _lock_and_look(
    connection: Connection, parameters: dict[str, Any], key: Key
) -> tuple[dict[str, Any] | None, BucketSeen]:
    """Lock and return the job and its bucket.

    Each statement sees what was committed while the last one waited.
    """
    cursor = connection.cursor(row_factory=dict_row)
    job = cursor.execute(sql.load("lock_job_to_claim"), parameters)
    while True:
        bucket_row = stored_buckets.lock_bucket(connection, key)
        looked = stored_buckets.ask_bucket(connection, key)
        if bucket_row.fetchone() is not None:
            return job.fetchone(), stored_buckets.read_bucket(looked)
        stored_buckets.make_bucket(connection, key)


def _judge(seen: BucketSeen, weight: int, moment: datetime) -> Admission:
    if seen.shape is None:
        return Admission((bucket.BucketBlock(bucket.UNKNOWN),))
    return bucket.admit(seen.shape, seen.standing, weight, moment)

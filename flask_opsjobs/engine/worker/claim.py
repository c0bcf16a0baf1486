"""Claims a delivery: for a plain worker, for `drain`, and for a child of ours that gets a limited job.

A limited job is claimed in a transaction that also takes tokens and a lease. Where a place of its limiter has
become free, a worker of ours claims the next one without a delivery. The process of a plain worker
may be frozen after the claim. So `Confirm` checks an old claim again, right before the function is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

from psycopg import Cursor, Pipeline
from psycopg.rows import dict_row

from ... import endings
from ...core import sql
from ...core.db import Connection, connect_apart
from ...core.steady_clock import steady_seconds
from ...host import Host
from ...jobs.perform.current import Claimed
from ...jobs.perform.outcomes import Outcome
from ...limits import bucket, stored_buckets
from ...limits.bucket import Admission, BucketLevel, Shape
from ...limits.limit import bucket_of
from ...limits.stored_buckets import BucketSeen, Key


@dataclass(frozen=True)
class NotClaimed:
    """A delivery that was not claimed. `reason` is one word; the worker's heartbeat counts each word."""

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
    has no room, the job is recalled and the reason is `limited`. `ignore_limits` claims it like an unlimited
    job. `now` replaces the clock for its bucket.

    `is_retry` is for a worker that has claimed this job before. Either it got no answer, so the claim may be
    committed; or the claim is old, so the job may have been rescued. If the job is still its own, the attempt
    goes on, even after the deadline.

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


def claim_limited(
    connection: Connection,
    delivery: tuple[int, int],
    key: Key,
    worker_id: int,
    worker: str,
    now: datetime | None = None,
) -> tuple[str | None, dict[str, Any]]:
    """Claim the delivery, or recall its job: (None, the job), or (why not, {}). `key` is the job's bucket.

    The job's token may come only after `wait_seconds`; the caller waits that long before it starts the job.
    One transaction, committed synchronously. Locks the job, then its bucket, and reads the clock under both
    locks unless `now` is given. Other claims of this bucket wait meanwhile, so it makes only two round trips.
    """
    job_id, dispatch_no = delivery
    parameters: dict[str, Any] = {"id": job_id, "dispatch_no": dispatch_no}
    with connection.pipeline() as pipeline, connection.transaction():
        lock = sql.load("lock_job_to_claim")
        jobs, seen = _lock_and_read(connection, pipeline, lock, parameters, key)
        job = jobs[0] if jobs else None
        if job is None or job["state"] != "queued" or job["dispatch_no"] != dispatch_no:
            return "not_queued", {}
        if job["is_overdue"]:
            return "deadline", {}
        moment = now or seen.now
        verdict = _judge(seen.shape, seen.level, job["weight"], moment)
        if not verdict.is_admitted:
            connection.execute(sql.load("recall_limited_job"), {**parameters, "now": moment})
            return "limited", {}
        cursor = _start(connection, {job_id: verdict}, moment, worker_id, worker)
    taken = cursor.fetchone()
    assert taken is not None, "the row is locked and was judged under the lock"
    return None, {**taken, "wait_seconds": verdict.wait_seconds}


class LimitedLane(NamedTuple):
    """A lane whose jobs have a limiter, and the queue of its jobs."""

    lane: str
    queue: str


@dataclass(frozen=True)
class ClaimedNext:
    """The jobs that were claimed, in their order, and whether more of the lane may be dispatched now."""

    jobs: Sequence[Claimed] = ()
    has_more: bool = False


def claim_next(
    connection: Connection,
    lane: LimitedLane,
    number: int,
    worker_id: int,
    worker: str,
    now: datetime | None = None,
) -> ClaimedNext:
    """Claim the first due jobs of a limited lane, at most `number`, past Redis.

    Admits what a dispatch would, so it leaves the room of deliveries to these. Jobs whose deadline has passed
    end, and count in `number`. Locks and commits as `claim_limited` does, whatever the number.
    """
    key = bucket_of(lane.lane)
    assert key is not None, "the lane has a limiter"
    asked_at = steady_seconds()
    parameters = {**lane._asdict(), "limiter": key[0], "number": number}
    with connection.pipeline() as pipeline, connection.transaction():
        lock = sql.load("pick_limited_jobs")
        picked, seen = _lock_and_read(connection, pipeline, lock, parameters, key, lane.queue)
        moment = now or seen.now
        due = [job for job in picked if not job["is_overdue"]]
        admitted, is_full = _admit_in_order(due, seen, moment)
        if admitted:
            cursor = _start(connection, admitted, moment, worker_id, worker)
    rows = {row["id"]: row for row in (cursor.fetchall() if admitted else ())}
    if overdue := [job["id"] for job in picked if job["is_overdue"]]:
        endings.expire(connection, moment, ids=overdue)
    jobs = [
        _claimed(
            {**rows[job_id], "wait_seconds": verdict.wait_seconds},
            job_id,
            rows[job_id]["dispatch_no"],
            asked_at,
        )
        for job_id, verdict in admitted.items()
    ]
    return ClaimedNext(jobs, has_more=len(picked) == number and not is_full)


def _admit_in_order(
    jobs: Sequence[dict[str, Any]], seen: BucketSeen, moment: datetime
) -> tuple[dict[int, Admission], bool]:
    """Return those of these jobs that may start now, by id, and whether the bucket is full then.

    None passes another one, and each counts for those behind it.
    """
    admitted: dict[int, Admission] = {}
    if seen.shape is None:
        return admitted, True
    level, room = seen.level, bucket.room(seen.shape, seen.level, moment)
    for job in jobs:
        verdict = _judge(seen.shape, level, job["weight"], moment)
        if not verdict.is_admitted or (room is not None and room < job["weight"]):
            return admitted, True
        admitted[job["id"]] = verdict
        room = None if room is None else room - job["weight"]
        level = replace(
            level,
            tokens=verdict.tokens,
            refilled_at=None if verdict.tokens is None else moment,
            in_use=level.in_use + job["weight"],
        )
    return admitted, room == 0


def _start(
    connection: Connection,
    admitted: Mapping[int, Admission],
    now: datetime,
    worker_id: int,
    worker: str,
) -> Cursor[dict[str, Any]]:
    """Claim jobs of one bucket, in the order in which they were admitted."""
    parameters = {
        "ids": list(admitted),
        "waits": [verdict.wait_seconds for verdict in admitted.values()],
        "tokens": list(admitted.values())[-1].tokens,
        "now": now,
        "worker_id": worker_id,
        "worker": worker,
    }
    cursor = connection.cursor(row_factory=dict_row)
    return cursor.execute(sql.load("claim_limited_jobs"), parameters)


def _lock_and_read(
    connection: Connection,
    pipeline: Pipeline,
    lock: str,
    parameters: Mapping[str, Any],
    key: Key,
    queue: str | None = None,
) -> tuple[list[dict[str, Any]], BucketSeen]:
    """Lock and return jobs and their bucket, which is read as dispatch on `queue` sees it, if given.

    Each statement sees what was committed while the statement before it waited.
    """
    cursor = connection.cursor(row_factory=dict_row)
    jobs = cursor.execute(lock, parameters)
    while True:
        bucket_row = stored_buckets.lock_bucket(connection, key)
        sent = stored_buckets.ask_bucket(connection, key, queue)
        # To fetch would ask for the answers too. But Postgres counts how long a transaction stands still only
        # from a sync on.
        pipeline.sync()
        if bucket_row.fetchone() is not None:
            return jobs.fetchall(), stored_buckets.read_bucket(sent)
        stored_buckets.make_bucket(connection, key)


def _judge(shape: Shape | None, level: BucketLevel, weight: int, moment: datetime) -> Admission:
    if shape is None:
        return Admission((bucket.BucketBlock(bucket.UNKNOWN),))
    return bucket.admit(shape, level, weight, moment)


class Confirm:
    """Called right before the function.

    Returns the claim when it still holds, else the outcome of the attempt.

    A claim younger than half of `OPSJOBS_LATE_SECONDS` holds, because a job is rescued only after its worker
    went missing. An older claim is made again. This needs a new connection, because a child must not use its
    parent's. When Postgres does not answer, the job is snoozed: it is due again at once, and the attempt does
    not count.
    """

    def __init__(
        self,
        host: Host,
        claimed: Claimed,
        worker_id: int,
        worker: str,
        *,
        seconds: Callable[[], float] = steady_seconds,
    ) -> None:
        self._host = host
        self._claimed = claimed
        self._worker = worker_id, worker
        self._seconds = seconds

    def __call__(self) -> Claimed | Outcome:
        age = self._seconds() - self._claimed.asked_at
        if age <= self._host.settings.late_seconds / 2:
            return self._claimed
        late = f"the function was not called: {age:.0f} s passed after the claim"
        try:
            again = self._claim_again()
        except Exception as error:
            why = f"{late}, and Postgres could not be asked again ({type(error).__name__})"
            return Outcome(kind="snoozed", error=why, reason=why)
        if not isinstance(again, Claimed):
            return Outcome(kind="lost", error=f"{late}, and the job was rescued meanwhile")
        self._claimed = again
        return again

    def _claim_again(self) -> Claimed | object:
        delivery = self._claimed.id, self._claimed.dispatch_no
        with closing(connect_apart(self._host.engine)) as connection:
            return claim(connection, delivery, *self._worker, is_retry=True)

"""Computes the keys of unique calls; takes their locks, one row per key, and releases them when jobs end."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from pydantic_core import to_jsonable_python

from ...core import db, sql
from ...core.signing import sign
from ...errors import OpsJobsError

# Each repetition means that another transaction took or released the unique lock at the same moment.
_MOST_ROUNDS = 100


# Runs a statement of a folder `sql` with its parameters, in the caller's transaction; returns rows, columns
# by name.
RunSql = Callable[[str, Mapping[str, Any]], Sequence[Any]]


def find_or_take(run_sql: RunSql, parameters: Mapping[str, Any]) -> tuple[int, str | None, bool]:
    """Insert a unique job with its unique locks, or find the job that holds them.

    Returns (id, state, whether it was found). `parameters` are those of `enqueue_unique_job.sql`. Waits for
    another transaction that is enqueuing the same call; if that one rolls back, this one enqueues the job.
    The caller commits. The state is None when the found job was deleted. Raises `OpsJobsError` after 100
    rounds in which others took and released the lock.
    """
    for _ in range(_MOST_ROUNDS):
        (row,) = run_sql("enqueue_unique_job", parameters)
        if row.state is not None:
            return row.id, row.state, False
        keys = {"keys": parameters["keys"], "id": row.id}
        found = next(iter(run_sql("find_unique_lock", keys)), None)
        if found is None or len(parameters["keys"]) > 1:
            # Delete expired locks, and those that we took under one key before we met another job's lock
            # under its other key.
            run_sql("release_unused_unique_locks", keys)
        if found is not None:
            return found.job_id, found.state, True
    raise OpsJobsError(
        f"task {parameters['task']}: cannot take the unique lock of this call: others take and release it "
        "all the time"
    )


def find(run_sql: RunSql, keys: Sequence[bytes]) -> tuple[int, str | None] | None:
    """The job (id, state) that holds the unique lock of a call, or None. Locks nothing and does not wait."""
    found = next(iter(run_sql("find_unique_lock", {"keys": list(keys), "id": None})), None)
    return None if found is None else (found.job_id, found.state)


def release(connection: db.Connection, job_ids: Sequence[int]) -> None:
    """Release the locks of jobs that are unique until they end, in the caller's transaction."""
    connection.execute(sql.load("release_unique_locks"), {"job_ids": list(job_ids)})


def take(
    connection: db.Connection, lifetimes: Mapping[int, timedelta | None], now: datetime
) -> list[int]:
    """Take the unique locks of jobs in the caller's transaction; return the ids whose lock another job holds.

    `lifetimes` are those of the locks by id, None for no expiry. Waits for another transaction that
    is enqueuing the same call.
    """
    ids = list(lifetimes)
    jobs = {"ids": ids, "now": now}
    connection.execute(sql.load("delete_expired_unique_locks"), jobs)
    connection.execute(
        sql.load("take_unique_locks"), {**jobs, "lifetimes": list(lifetimes.values())}
    )
    return [id for (id,) in connection.execute(sql.load("list_jobs_without_unique_lock"), jobs)]


def keys_of(secrets: Sequence[bytes], task: str, chosen: Any) -> list[bytes]:
    """The keys of one call, one per secret: first the current secret, then each older one.

    Uses HMAC-SHA256, so that a reader of the table cannot guess arguments. Raises `TypeError` or `ValueError`
    when the chosen value cannot be written as JSON.
    """
    plain = to_jsonable_python(_in_order(chosen), bytes_mode="base64", inf_nan_mode="constants")
    text = json.dumps([task, plain], sort_keys=True, separators=(",", ":"))
    return [sign(secret, "unique", text.encode()) for secret in dict.fromkeys(secrets)]


def _in_order(value: Any) -> Any:
    """The value with every set sorted: the order of a set differs from process to process."""
    if isinstance(value, Mapping):
        return {key: _in_order(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_in_order(one) for one in value]
    if isinstance(value, set | frozenset):
        items = [to_jsonable_python(_in_order(one), bytes_mode="base64") for one in value]
        return sorted(items, key=lambda one: json.dumps(one, sort_keys=True))
    return value

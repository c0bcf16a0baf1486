"""Takes the unique locks of jobs, one row per keyed hash, and releases them when the jobs end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from ...core import db, sql
from ...errors import OpsJobsError
from .unique import Unique

__all__ = ["Unique", "find_or_take", "release", "take"]

# Each repetition means that another transaction took or released the unique lock at the same moment.
_MOST_ROUNDS = 100


# Runs a statement of a folder `sql` with its parameters, in the caller's transaction; returns rows, columns
# by name.
RunSql = Callable[[str, Mapping[str, Any]], Sequence[Any]]


def find_or_take(run_sql: RunSql, parameters: Mapping[str, Any]) -> tuple[int, str | None, bool]:
    """Insert a unique job with its unique locks, or find the job that holds them: (id, state, whether it was found).

    `parameters` are those of `enqueue_unique_job.sql`. Waits for another transaction that is enqueuing the
    same call;
    if that one rolls back, this one enqueues the job. The caller commits. The state is None when the found
    job was deleted. Raises `OpsJobsError` after 100 rounds in which others took and released the lock.
    """
    for _ in range(_MOST_ROUNDS):
        (row,) = run_sql("enqueue_unique_job", parameters)
        if row.state is not None:
            return row.id, row.state, False
        keys = {"keys": parameters["keys"], "id": row.id}
        found = next(iter(run_sql("find_unique_lock", keys)), None)
        if found is None or len(parameters["keys"]) > 1:
            # Delete expired locks, and those that we took under one key before we met another job's lock under its
            # other key.
            run_sql("release_unused_unique_locks", keys)
        if found is not None:
            return found.job_id, found.state, True
    raise OpsJobsError(
        f"task {parameters['task']}: cannot take the unique lock of this call: others take and release it all the time"
    )


def find(run_sql: RunSql, keys: Sequence[bytes]) -> tuple[int, str | None] | None:
    """The job (id, state) that holds the unique lock of a call, or None. Locks nothing and does not wait."""
    found = next(iter(run_sql("find_unique_lock", {"keys": list(keys), "id": None})), None)
    return None if found is None else (found.job_id, found.state)


def release(connection: db.Connection, job_ids: Sequence[int]) -> None:
    """Release the locks of jobs that are unique until they end, in the caller's transaction."""
    connection.execute(sql.load("release_unique_locks"), {"job_ids": list(job_ids)})


def take(
    connection: db.Connection, withins: Mapping[int, timedelta | None], now: datetime
) -> list[int]:
    """Take the unique locks of jobs in the caller's transaction; return the ids whose lock another job holds.

    `withins` maps each id to the lifetime of its lock, None for no expiry. Waits for another transaction that
    is enqueuing the same call.
    """
    ids = list(withins)
    jobs = {"ids": ids, "now": now}
    connection.execute(sql.load("delete_expired_unique_locks"), jobs)
    connection.execute(sql.load("take_unique_locks"), {**jobs, "withins": list(withins.values())})
    return [id for (id,) in connection.execute(sql.load("list_jobs_without_unique_lock"), jobs)]

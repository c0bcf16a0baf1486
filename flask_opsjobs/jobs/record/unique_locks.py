"""Computes the keys of unique calls; takes their locks, one row per key, and releases them when jobs end."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from pydantic_core import to_jsonable_python

from ...core import db, sql
from ...core.signing import sign
from ...core.words import agree, counted
from ...errors import OpsJobsError
from .options import interval_of

# Each repetition means that another transaction took or released the unique lock at the same moment.
_MOST_ROUNDS = 100
_SHOWN = 5


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
    intervals = [interval_of(lifetime) for lifetime in lifetimes.values()]
    connection.execute(sql.load("take_unique_locks"), {**jobs, "lifetimes": intervals})
    return [id for (id,) in connection.execute(sql.load("list_jobs_without_unique_lock"), jobs)]


def move(connection: db.Connection, job_id: int, keys: Sequence[bytes]) -> bool:
    """Move the unique lock of a job to these keys, in the caller's transaction; return whether it could.

    When it could not, another job has the lock of that call, and the caller rolls back. Waits for another
    transaction that is enqueuing the same call.
    """
    parameters = {"keys": list(keys), "id": job_id}
    connection.execute(sql.load("release_unused_unique_locks"), {**parameters, "id": None})
    (taken,) = connection.execute(sql.load("move_unique_lock"), parameters).fetchone() or (0,)
    return bool(taken == len(keys))


class Takers:
    """Who takes each free unique lock in one action on several jobs: the first job that needs it.

    Plans and executions ask in the same order, so that they agree. `branch` is for a part of the action that
    may be left out.
    """

    def __init__(self, first: Mapping[Hashable, int] = MappingProxyType({})) -> None:
        self._first = dict(first)

    def find_rival(self, job: int, key: Hashable, holder: int | None = None) -> int | None:
        """The other job that holds this lock, or takes it first; None when `job` takes it, or has it."""
        if holder is None or holder == job:
            holder = self._first.setdefault(key, job)
        return None if holder == job else holder

    def branch(self) -> Takers:
        """A copy, whose answers change nothing here."""
        return Takers(self._first)

    def take_over(self, other: Takers) -> None:
        """Take the answers of a branch as one's own."""
        self._first |= other._first


def say_left_out(noun: str, pairs: Sequence[tuple[str, int]]) -> str:
    """The note on those that an action leaves as they are, each with the job that has its unique lock."""
    shown = [f"{name} (lock of job {holder})" for name, holder in pairs[:_SHOWN]]
    more = [f"{len(pairs) - _SHOWN:,} more"] if len(pairs) > _SHOWN else []
    left = agree(len(pairs), "stays as it is", "stay as they are")
    return (
        f"{counted(len(pairs), noun)} {left}, because another job has the unique lock of the same call: "
        + ", ".join(shown + more)
    )


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

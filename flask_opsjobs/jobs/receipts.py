"""Receipts: the rows that prove that a unique job exists. Taken with the job, released when it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from .. import db, sql
from ..errors import OpsJobsError
from .unique import Unique

__all__ = ["Unique", "find_or_take", "release", "take"]

# Each round but the last meets a receipt that another transaction takes or gives up in that very moment.
_MOST_ROUNDS = 100


# Runs a statement of the folder `sql` with its parameters, in the caller's transaction; its rows, by name.
Ask = Callable[[str, Mapping[str, Any]], Sequence[Any]]


def find_or_take(ask: Ask, parameters: Mapping[str, Any]) -> tuple[int, str | None, bool]:
    """Record a unique job with its receipts, or find the job that has them: (id, state, whether it was found).

    `parameters` are those of `enqueue_unique_job.sql`. Waits for a transaction that is recording the same call; when
    that rolls back, this one records. The caller commits. The state is None when the found job's row is gone.
    """
    for _ in range(_MOST_ROUNDS):
        (row,) = ask("enqueue_unique_job", parameters)
        if row.state is not None:
            return row.id, row.state, False
        keys = {"keys": parameters["keys"], "id": row.id}
        found = next(iter(ask("find_receipt", keys)), None)
        if found is None or len(parameters["keys"]) > 1:
            # What has expired, and what we took under one key before we met another.
            ask("give_back_receipts", keys)
        if found is not None:
            return found.job_id, found.state, True
    raise OpsJobsError(
        f"task {parameters['task']}: the receipt of this call is taken and given up without end"
    )


def find(ask: Ask, keys: Sequence[bytes]) -> tuple[int, str | None] | None:
    """The job (id, state) that has the receipt of a call; None when nobody has. Locks nothing and waits for nobody."""
    found = next(iter(ask("find_receipt", {"keys": list(keys), "id": None})), None)
    return None if found is None else (found.job_id, found.state)


def release(connection: db.Connection, job_ids: Sequence[int]) -> None:
    """Let the next call of jobs unique until they end be recorded. Part of the caller's transaction."""
    connection.execute(sql.load("release_receipts"), {"job_ids": list(job_ids)})


def take(
    connection: db.Connection, withins: Mapping[int, timedelta | None], now: datetime
) -> list[int]:
    """Take the receipts of recorded jobs, given by id with their spans; the ids that another job's receipt was in the
    way of. Waits for a transaction that is recording the same call. Part of the caller's transaction.
    """
    ids = list(withins)
    jobs = {"ids": ids, "now": now}
    connection.execute(sql.load("forget_expired_receipts"), jobs)
    connection.execute(sql.load("take_receipts"), {**jobs, "withins": list(withins.values())})
    return [id for (id,) in connection.execute(sql.load("list_jobs_without_receipt"), jobs)]

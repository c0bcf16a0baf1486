"""The claim: an executor's parent takes a delivery before it forks, on a connection that it keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg.rows import dict_row

from .. import endings, sql
from ..db import Connection
from ..jobs.claimed import Claimed


@dataclass(frozen=True)
class Refused:
    """Why a delivery was not claimed: a word, counted in the executor's beat."""

    reason: str


def claim(
    connection: Connection,
    delivery: tuple[int, int],
    executor_id: int,
    executor: str,
    *,
    is_retry: bool = False,
) -> Claimed | Refused:
    """Take the delivery (id, dispatch_no), or say why not. One statement, committed asynchronously.

    `is_retry` says that this executor asked before and got no answer; its first claim may have been committed.

    Raises what Postgres raises; then the delivery is still to be claimed. An overdue job is ended here.
    """
    job_id, dispatch_no = delivery
    parameters = {
        "id": job_id,
        "dispatch_no": dispatch_no,
        "executor_id": executor_id,
        "executor": executor,
        "is_retry": is_retry,
    }
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(sql.load("claim_job"), parameters).fetchone()
    if row is None:
        return Refused("no_row")
    if row["taken_id"] is None:
        return _why_not(connection, row, dispatch_no, job_id)
    return _claimed(row, job_id, dispatch_no)


def _claimed(row: dict[str, Any], job_id: int, dispatch_no: int) -> Claimed:
    return Claimed(
        id=job_id,
        dispatch_no=dispatch_no,
        worker=row["worker"],
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
    )


def _why_not(connection: Connection, row: dict[str, Any], dispatch_no: int, job_id: int) -> Refused:
    if row["was_dispatch_no"] != dispatch_no:
        return Refused("handed_out_again")
    if row["was_state"] != "queued":
        return Refused("not_queued")
    # Queued under our number and yet not taken: its deadline has passed.
    endings.expire(connection, row["now"], ids=[job_id])
    return Refused("deadline")

"""Rescues `started` jobs that their worker does not list in its own heartbeats."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from .. import endings
from ..core import sql
from ..core.db import Connection
from ..workers.transitions import DeliveryKey


def rescue_disowned(
    connection: Connection,
    worker_id: int,
    reserved: Sequence[str],
    suspects: Collection[DeliveryKey],
    now: datetime,
) -> set[DeliveryKey]:
    """Rescue the worker's `started` jobs that two heartbeats in a row did not list. Commits.

    `reserved` is the list of the heartbeat at `now`, including jobs whose outcome is not yet written.
    `suspects` is the result of the previous call: jobs that were started and not reserved then. Returns the
    suspects for the next call. One heartbeat is not enough: the worker may claim a job after it built
    `reserved` and before the rows are read. The two heartbeats are not compared by time.
    """
    named = set(reserved)
    started = list_started(connection, worker_id)
    unreserved = {key for key in started if f"{key[0]}-{key[1]}" not in named}
    confirmed = unreserved & set(suspects)
    if not confirmed:
        return unreserved
    fresh = unreserved - confirmed
    endings.rescue(
        connection,
        [worker_id],
        now,
        endings.NOT_RUN_BY_WORKER,
        exclude=[*reserved, *(f"{job_id}-{number}" for job_id, number in fresh)],
    )
    return fresh


def list_started(connection: Connection, worker_id: int) -> list[DeliveryKey]:
    """Return the deliveries (id, dispatch_no) of the worker's `started` jobs."""
    return connection.execute(sql.load("list_started_jobs"), {"id": worker_id}).fetchall()

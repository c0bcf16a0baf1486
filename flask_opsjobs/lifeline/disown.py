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
    rows = connection.execute(sql.load("list_started_jobs"), {"id": worker_id}).fetchall()
    named = set(reserved)
    unreserved = {(job_id, number) for job_id, number in rows if f"{job_id}-{number}" not in named}
    confirmed = unreserved & set(suspects)
    if not confirmed:
        return unreserved
    fresh = unreserved - confirmed
    endings.rescue(
        connection,
        [worker_id],
        now,
        "its worker is alive but does not run it",
        exclude=[*reserved, *(f"{job_id}-{number}" for job_id, number in fresh)],
    )
    return fresh

"""Rescues the jobs that a worker, by its own heartbeats, does not run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from .. import endings
from ..core import sql
from ..core.db import Connection
from ..workers.transitions import DeliveryKey


def disown(
    connection: Connection,
    worker_id: int,
    reserved: Sequence[str],
    suspects: Collection[DeliveryKey],
    now: datetime,
) -> set[DeliveryKey]:
    """Rescue the worker's `started` jobs that it does not run, if its previous heartbeat lacked them too. Commits.

    `reserved` is what the heartbeat of `now` said, outcomes not yet written included. `suspects` is what the previous
    call returned: what was started and not reserved then. Two looks and no clock: a job that was claimed between the
    look at `reserved` and the look at the rows is reserved at the next heartbeat. Returns the suspects for the next
    call.
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
        "its worker lives and does not run it",
        keep=[*reserved, *(f"{job_id}-{number}" for job_id, number in fresh)],
    )
    return fresh

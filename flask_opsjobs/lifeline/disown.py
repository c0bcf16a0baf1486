"""Rescues `started` jobs that their worker does not list in its own heartbeats."""

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
    """Rescue the worker's `started` jobs that it does not run, if its previous heartbeat lacked them too.

    Commits.

    `reserved` is the list of the heartbeat at `now`, including jobs whose outcome is not yet written.
    `suspects` is the result of the previous call: jobs that were started and not reserved then. Returns the
    suspects for the next call. A job must be missing from two heartbeats, because a job claimed between
    building `reserved` and reading the rows is reserved only in the next one. This needs no clock.
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
        keep=[*reserved, *(f"{job_id}-{number}" for job_id, number in fresh)],
    )
    return fresh

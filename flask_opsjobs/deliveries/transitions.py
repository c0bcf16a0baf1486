"""Reads what Postgres knows of deliveries for an operator's decision: their jobs, and who reserved them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from psycopg.rows import class_row

from ..core import sql
from ..core.db import Connection

# A delivery: its job, and its dispatch number.
Key = tuple[int, int]


@dataclass(frozen=True)
class DeliveryNeed:
    """A delivery, and who needs it. `job_state` and `job_dispatch_no` are None when the job was deleted."""

    job_id: int
    dispatch_no: int
    job_state: str | None
    job_dispatch_no: int | None
    is_reserved: bool

    @property
    def is_of_job(self) -> bool:
        """Whether its job is queued or started under its dispatch number."""
        is_live = self.job_state in ("queued", "started")
        return is_live and self.job_dispatch_no == self.dispatch_no


def read(connection: Connection, deliveries: Collection[Key]) -> list[DeliveryNeed]:
    """Who needs these deliveries. Locks nothing."""
    parameters = {
        "job_ids": [job_id for job_id, _ in deliveries],
        "dispatch_nos": [dispatch_no for _, dispatch_no in deliveries],
    }
    with connection.cursor(row_factory=class_row(DeliveryNeed)) as cursor:
        return cursor.execute(sql.load("read_deliveries"), parameters).fetchall()

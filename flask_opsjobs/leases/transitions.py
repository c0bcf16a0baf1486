"""Locks and reads leases for an operator's decision. Their end is a write of `limits`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import class_row

from ..core import sql
from ..core.db import Connection
from .lifecycle import state_of

# An attempt: its job, and its dispatch number.
Attempt = tuple[int, int]


@dataclass(frozen=True)
class LeaseForDecision:
    """A lease, and what its job is now; `job_state` is None when the job was deleted."""

    job_id: int
    dispatch_no: int
    limiter: str
    partition: str
    weight: int
    taken_at: datetime
    job_state: str | None
    job_dispatch_no: int | None
    is_leaked: bool

    @property
    def target(self) -> str:
        """The lease as the target of an action."""
        return f"lease/{self.job_id}-{self.dispatch_no}"

    @property
    def label(self) -> str:
        """The lease for people: its limiter."""
        return self.limiter

    @property
    def attempt(self) -> Attempt:
        """The attempt that took it: job and dispatch number."""
        return self.job_id, self.dispatch_no

    @property
    def state(self) -> str:
        """`held` or `leaked`."""
        return state_of(self.is_leaked)


def lock(connection: Connection, attempts: Collection[Attempt]) -> None:
    """Lock the leases of these attempts, in their order. Lock their jobs before."""
    connection.execute(sql.load("lock_leases"), _columns(attempts))


def read(
    connection: Connection, attempts: Collection[Attempt], now: datetime
) -> dict[str, LeaseForDecision]:
    """Those of these leases that exist, by target. Locks nothing."""
    with connection.cursor(row_factory=class_row(LeaseForDecision)) as cursor:
        cursor.execute(sql.load("read_leases"), {**_columns(attempts), "now": now})
        return {found.target: found for found in cursor}


def _columns(attempts: Collection[Attempt]) -> dict[str, Any]:
    return {
        "job_ids": [job_id for job_id, _ in attempts],
        "dispatch_nos": [dispatch_no for _, dispatch_no in attempts],
    }

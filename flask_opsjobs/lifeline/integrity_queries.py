"""Reads the integrity check for pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from .models import IntegrityCheck

_MOST_QUEUES = 500


@dataclass(frozen=True)
class IntegrityRow:
    """One queue's integrity check, counted at `counted_at`, compared with Redis and the heartbeats at `compared_at`."""

    queue: str
    counted_at: datetime
    enqueued: int
    deleted: int
    stored: int
    waiting: int
    queued: int
    started: int
    compared_at: datetime | None
    queued_nowhere: int
    started_unreserved: int
    deliveries_without_row: int

    @property
    def difference(self) -> int:
        """Jobs that were enqueued, not deleted, and have no row.

        Below 0: rows were inserted outside `enqueue`.
        """
        return self.enqueued - self.deleted - self.stored

    @property
    def final(self) -> int:
        """Stored jobs that have ended."""
        return self.stored - self.waiting - self.queued - self.started

    @property
    def is_balanced(self) -> bool:
        """Whether no differences were found."""
        return not (
            self.difference
            or self.queued_nowhere
            or self.started_unreserved
            or self.deliveries_without_row
        )


def list_integrity_checks(session: Session) -> Sequence[IntegrityRow]:
    """Return the integrity check of at most 500 queues; none before the first count.

    Leaves out queues without jobs and without differences.
    """
    columns = [getattr(IntegrityCheck, name) for name in IntegrityRow.__annotations__]
    rows = session.execute(select(*columns).order_by(IntegrityCheck.queue).limit(_MOST_QUEUES))
    checks = [IntegrityRow(*row) for row in rows]
    return [check for check in checks if check.stored or not check.is_balanced]

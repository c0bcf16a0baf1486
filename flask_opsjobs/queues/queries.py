"""Reads queues for pages: their names, the decisions of operators about them, and their rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from ..core import sql
from .models import Queue

# Pages know so many queues.
MOST_QUEUES = 5_000
# Choices and suggestions offer so many.
_MOST_NAMES = 200
_RATE_SPAN = timedelta(hours=1)


@dataclass(frozen=True)
class QueueRow:
    """The decisions of operators about a queue. A queue without any decision has no row."""

    name: str
    is_paused: bool
    is_draining: bool
    prefetch: int | None
    paused_at: datetime | None
    paused_by: str | None
    paused_reason: str | None


@dataclass(frozen=True)
class Rate:
    """How many jobs of a queue were enqueued, ended and failed in the last hour.

    Failed ones have ended too.
    """

    enqueued: int
    ended: int
    failed: int


@dataclass(frozen=True)
class Rates:
    """The rates by queue, counted up to `counted_until`; None when nothing was ever counted."""

    counted_until: datetime | None
    by_queue: Mapping[str, Rate]


def list_queue_names(session: Session, most: int = _MOST_NAMES) -> list[str]:
    """The names of queues that occur in jobs, at most 200 or `most`, in order."""
    rows = session.connection().exec_driver_sql(sql.load("list_queue_names"), {"limit": most})
    return list(rows.scalars())


# Built once, as in overview/pace_queries.py.
_DECISIONS = (
    select(
        Queue.name,
        Queue.is_paused,
        Queue.is_draining,
        Queue.prefetch,
        Queue.paused_at,
        Queue.paused_by,
        Queue.paused_reason,
    )
    .order_by(Queue.name)
    .limit(MOST_QUEUES)
)


def list_decisions(session: Session) -> Mapping[str, QueueRow]:
    """The decisions of operators by the name of the queue, at most 5,000."""
    return {row.name: QueueRow(*row) for row in session.execute(_DECISIONS)}


def find_paused_reason(session: Session, name: str) -> str | None:
    """Why the queue is paused or draining, in the words of who did it; None when it is open."""
    return session.scalars(select(Queue.paused_reason).where(Queue.name == name)).one_or_none()


def find_created_at(session: Session, name: str) -> datetime | None:
    """When the row of the queue was made; None when it has none."""
    return session.scalars(select(Queue.created_at).where(Queue.name == name)).one_or_none()


def find_rates(session: Session, now: datetime) -> Rates:
    """The rates of the last hour, summed from the counts per minute."""
    found = session.connection().exec_driver_sql(sql.load("sum_rates"), {"since": now - _RATE_SPAN})
    rows = found.all()
    return Rates(
        rows[0].counted_until if rows else None,
        {
            row.queue: Rate(row.enqueued, row.ended, row.failed)
            for row in rows
            if row.queue is not None
        },
    )

"""Reads queues for pages: their names, and what an operator decided about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from ..core import sql
from .models import Queue

_MOST = 200
_RATE_SPAN = timedelta(hours=1)


@dataclass(frozen=True)
class QueueRow:
    """What an operator decided about a queue. A queue that nobody decided about has no row."""

    name: str
    is_paused: bool
    is_draining: bool
    prefetch: int | None
    paused_at: datetime | None
    paused_by: str | None
    paused_reason: str | None


@dataclass(frozen=True)
class Rate:
    """How many jobs of a queue were enqueued, ended, and among these failed, in the last hour."""

    enqueued: int
    ended: int
    failed: int


@dataclass(frozen=True)
class Rates:
    """The rates by queue; `counted_until` is up to when they are counted, None when nothing ever was."""

    counted_until: datetime | None
    by_queue: Mapping[str, Rate]


def list_queue_names(session: Session) -> list[str]:
    """The queues that any job names, at most 200, in order."""
    rows = session.connection().exec_driver_sql(sql.load("list_queue_names"), {"limit": _MOST})
    return list(rows.scalars())


def list_paused_queues(session: Session) -> list[str]:
    """The queues from which nothing is dispatched until somebody resumes them, at most 200, in order."""
    paused = select(Queue.name).where(Queue.is_paused).order_by(Queue.name).limit(_MOST)
    return list(session.scalars(paused))


def list_decisions(session: Session) -> Mapping[str, QueueRow]:
    """What was decided about queues, by name, at most 200."""
    chosen = select(
        Queue.name, Queue.is_paused, Queue.is_draining, Queue.prefetch, Queue.paused_at,
        Queue.paused_by, Queue.paused_reason,
    )  # fmt: skip
    rows = session.execute(chosen.order_by(Queue.name).limit(_MOST))
    return {row.name: QueueRow(*row) for row in rows}


def find_rates(session: Session, now: datetime) -> Rates:
    """How much came and went in the last hour, from the numbers per minute."""
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

"""Makes scheduled and retryable jobs available when they are due, and dispatches their lanes."""

from __future__ import annotations

from datetime import datetime

from ...core import sql
from ...core.db import Connection
from ...settings import Settings
from ..redis.broker import Broker
from .dispatch import Dispatcher

BATCH = 5_000


def stage(connection: Connection, now: datetime, limit: int = BATCH) -> dict[tuple[str, str], int]:
    """Make at most `limit` due jobs available; return how many of each (lane, queue).

    Commits. Skips locked rows.
    """
    rows = connection.execute(sql.load("stage_jobs"), {"now": now, "limit": limit}).fetchall()
    return {(lane, queue): count for lane, queue, count in rows}


def dispatch_staged(
    connection: Connection,
    broker: Broker,
    settings: Settings,
    lanes: dict[tuple[str, str], int],
    now: datetime,
) -> int:
    """Dispatch these lanes as their prefetch allows; return how many jobs. Raises `RedisError`."""
    dispatcher = Dispatcher(connection, broker, settings)
    return sum(dispatcher.dispatch_lane(lane, queue, now) for lane, queue in lanes)

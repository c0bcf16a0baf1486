"""Makes jobs available whose time has come, and dispatches their lanes at once."""

from __future__ import annotations

from datetime import datetime

from ...core import sql
from ...core.db import Connection
from ...settings import Settings
from ..redis.broker import Broker
from .dispatch import Dispatcher

BATCH = 5_000


def stage(connection: Connection, now: datetime, limit: int = BATCH) -> dict[tuple[str, str], int]:
    """Make due jobs available, at most `limit`; how many of each (lane, queue). Commits. Takes only free rows."""
    rows = connection.execute(sql.load("stage_jobs"), {"now": now, "limit": limit}).fetchall()
    return {(lane, queue): count for lane, queue, count in rows}


def dispatch_staged(
    connection: Connection,
    broker: Broker,
    settings: Settings,
    lanes: dict[tuple[str, str], int],
    now: datetime,
) -> int:
    """Dispatch what the prefetch of these lanes allows; how many jobs. Raises `RedisError`."""
    dispatcher = Dispatcher(connection, broker, settings)
    return sum(dispatcher.dispatch_lane(lane, queue, now) for lane, queue in lanes)

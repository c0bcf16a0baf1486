"""Stage: a job whose time has come is available, and its line is dispatched at once."""

from __future__ import annotations

from datetime import datetime

from .. import sql
from ..db import Connection
from ..settings import Settings
from .broker import Broker
from .dispatch import Dispatcher

BATCH = 5_000


def stage(connection: Connection, now: datetime, limit: int = BATCH) -> dict[tuple[str, str], int]:
    """Make due jobs available, at most `limit`; how many of each (line, queue). Commits. Takes only free rows."""
    rows = connection.execute(sql.load("stage_jobs"), {"now": now, "limit": limit}).fetchall()
    return {(line, queue): count for line, queue, count in rows}


def dispatch_staged(
    connection: Connection,
    broker: Broker,
    settings: Settings,
    lines: dict[tuple[str, str], int],
    now: datetime,
) -> int:
    """Hand out what the windows of these lines allow; how many jobs. Raises `RedisError`."""
    dispatcher = Dispatcher(connection, broker, settings)
    return sum(dispatcher.dispatch_line(line, queue, now) for line, queue in lines)

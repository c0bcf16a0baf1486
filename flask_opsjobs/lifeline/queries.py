"""Reads when each loop was last awake, for pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from ..core import sql

# A loop is silent when it has missed this many passes, plus some seconds for the duration of a pass.
_PASSES_MISSED = 3
_GRACE_SECONDS = 5


@dataclass(frozen=True)
class LoopRow:
    """The last stretch in which a loop was awake. `took_seconds` is the duration of its last pass."""

    loop: str
    process: str
    started_at: datetime
    last_at: datetime
    every_seconds: float
    took_seconds: float
    said: str | None
    error: str | None
    is_awake: bool


def list_loops(session: Session, now: datetime) -> Sequence[LoopRow]:
    """Return the last stretch of every loop that ever ran, ordered by name."""
    rows = session.connection().exec_driver_sql(sql.load("list_latest_loop_runs")).all()
    return [LoopRow(*(*row, _is_awake(row, now))) for row in rows]


def _is_awake(row: Any, now: datetime) -> bool:
    quiet: timedelta = now - row.last_at
    return quiet <= timedelta(seconds=_PASSES_MISSED * row.every_seconds + _GRACE_SECONDS)

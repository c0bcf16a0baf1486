"""Holds a cron entry as it is stored, for pages and for decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .expression import Schedule
from .lifecycle import state_of


@dataclass(frozen=True)
class CronEntryRow:
    """A stored entry. Every slot up to `checked_until` has its result. `args` are as stored."""

    name: str
    origin: str
    task: str
    expression: str
    zone: str
    overlap: str
    catch_up: str
    catch_up_limit: int | None
    args: Mapping[str, Any]
    checked_until: datetime
    created_at: datetime
    created_by: str
    changed_at: datetime | None
    retired_at: datetime | None
    is_paused: bool
    paused_at: datetime | None
    paused_by: str | None
    paused_reason: str | None

    @property
    def state(self) -> str:
        """`active`, `paused` or `retired`."""
        return state_of(self.is_paused, self.retired_at is not None)

    @property
    def schedule(self) -> Schedule:
        """The entry's expression in its zone."""
        return Schedule(self.expression, self.zone)

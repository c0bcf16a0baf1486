"""Holds what a worker knows of a job that it claimed, and the fencing token that guards the job's end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Claimed:
    """The claimed job. `attempt` counts from 1.

    Every later write of this attempt names its `dispatch_no` (a fencing token): it changes nothing once the
    job has another number. The job starts `wait_seconds` after the claim, when its limiter's token becomes
    available.
    `asked_at` is when this process sent the claim, by the engine's own clock: it tells how old the claim is.
    """

    id: int
    dispatch_no: int
    task: str
    queue: str
    args: dict[str, Any]
    meta: dict[str, Any]
    tags: list[str]
    attempt: int
    max_attempts: int
    timeout_seconds: int | None
    deadline_at: datetime | None
    created_at: datetime
    claimed_at: datetime
    wait_seconds: float = 0.0
    asked_at: float = 0.0

    @property
    def reserved_as(self) -> str:
        """The name of the reserved job in a heartbeat: `id-dispatch_no`."""
        return f"{self.id}-{self.dispatch_no}"

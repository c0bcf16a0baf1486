"""Holds what a worker needs to perform a job that it claimed, and the fence that guards the job's end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Claimed:
    """The claimed row. `attempt` counts from 1; `dispatch_no` is named by every later write of this attempt.

    `wait_seconds` pass before it starts: so long from the claim its limiter's token comes. `asked_at` is when this
    process sent the claim, by the engine's own clock: it tells how old the claim is.
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
        """How a heartbeat names what is reserved: `id-dispatch_no`."""
        return f"{self.id}-{self.dispatch_no}"

"""A claimed job and a report, as a worker hands them to `perform`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from flask_opsjobs.jobs.perform.current import Claimed
from flask_opsjobs.jobs.perform.log_tail import Ring
from flask_opsjobs.jobs.perform.perform import Report
from flask_opsjobs.jobs.record.declaration import TaskDeclaration

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def make_claimed(
    task: TaskDeclaration | str, args: dict[str, Any] | None = None, **changes: Any
) -> Claimed:
    """The first attempt of job 7, claimed at `NOW`; `changes` as in `Claimed`."""
    columns: dict[str, Any] = {
        "id": 7,
        "dispatch_no": 1,
        "task": task if isinstance(task, str) else task.name,
        "queue": "default",
        "args": json.dumps(args or {}),
        "meta": {},
        "tags": [],
        "attempt": 1,
        "max_attempts": 5,
        "timeout_seconds": None,
        "deadline_at": None,
        "created_at": NOW,
        "claimed_at": NOW,
    }
    return Claimed(**columns | changes)


def make_ring(size: int = 4_000) -> Ring:
    """An empty ring for so many bytes of lines."""
    return Ring(memoryview(bytearray(Ring.HEAD_BYTES + size)))


class Notebook(Report):
    """A report that keeps what it is told."""

    def __init__(self, log_tail: Ring | None = None) -> None:
        self.told: list[tuple[int | None, int | None, str | None]] = []
        super().__init__(log_tail or make_ring(), 1_000, lambda *told: self.told.append(told))

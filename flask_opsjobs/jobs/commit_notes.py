"""Names the notes that `enqueue` leaves in a session; `after_commit` hands them to the dispatcher."""

from __future__ import annotations

from typing import NamedTuple


class DueLane(NamedTuple):
    """A lane in which a job is due now, and its queue."""

    lane: str
    queue: str


class QueuedAtInsert(NamedTuple):
    """A job that was inserted as `queued` with `dispatch_no`, and whose delivery must be pushed to Redis."""

    id: int
    dispatch_no: int
    queue: str
    task: str
    priority: int
    timeout_seconds: int | None

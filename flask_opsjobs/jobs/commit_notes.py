"""Names the notes that `enqueue` leaves in a session; `after_commit` hands them to the dispatcher."""

from __future__ import annotations

from typing import NamedTuple


class DueLane(NamedTuple):
    """A lane on which a job became due, and its queue."""

    lane: str
    queue: str


class QueuedAtInsert(NamedTuple):
    """A job that is enqueued as queued under `dispatch_no`, and whose delivery is to be pushed."""

    id: int
    dispatch_no: int
    queue: str
    task: str
    priority: int
    timeout_seconds: int | None

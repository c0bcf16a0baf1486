"""What a session tells the hook that runs after its commit: a lane with due jobs, or a job that was born `queued`."""

from __future__ import annotations

from typing import NamedTuple


class Line(NamedTuple):
    """A lane on which a job became due, and its queue."""

    lane: str
    queue: str


class Born(NamedTuple):
    """A job that is enqueued as handed out under `dispatch_no`, and whose delivery is to be pushed."""

    id: int
    dispatch_no: int
    queue: str
    task: str
    priority: int
    timeout_seconds: int | None

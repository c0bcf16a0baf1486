"""Estimates how many more jobs of each queue may go to Redis, so that a due job is inserted as `queued` at once."""

from __future__ import annotations

import threading
import time

# What was read is believed for this long; then the next job is dispatched in the ordinary way, which reads anew.
_BELIEVED_SECONDS = 1.0


class RoomEstimate:
    """A process's guess of free slots per queue; a wrong guess costs one statement, never a limit. Safe in threads.

    Several processes may see the same room, so each takes half of what its last dispatch saw. A job too many in Redis
    is harmless: when it is lost it is recalled with the rest.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rooms: dict[str, tuple[int, float]] = {}

    def note(self, queue: str, left: int) -> None:
        """Remember the room that a dispatch left: its lane has no more due jobs."""
        with self._lock:
            self._rooms[queue] = ((left + 1) // 2, time.monotonic() + _BELIEVED_SECONDS)

    def take(self, queue: str) -> bool:
        """Whether a job may go straight to RQ; takes one slot."""
        with self._lock:
            left, until = self._rooms.get(queue, (0, 0.0))
            if left <= 0 or time.monotonic() >= until:
                return False
            self._rooms[queue] = (left - 1, until)
            return True

"""Estimates how many more jobs of a queue may go to Redis, so that `enqueue` can insert a job as `queued`."""

from __future__ import annotations

import threading
import time

# An estimate is valid for this long. Then the next job is dispatched in the ordinary way, which reads anew.
_BELIEVED_SECONDS = 1.0


class RoomEstimate:
    """A process's guess of free slots per queue; a wrong guess costs one statement, never a limit. Safe in threads.

    Several processes may see the same room, so each uses half of the room that its last dispatch saw. A job
    more in Redis than the prefetch allows is harmless.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rooms: dict[str, tuple[int, float]] = {}

    def note(self, queue: str, left: int) -> None:
        """Remember how much room a dispatch left after it took all due jobs of its lane."""
        with self._lock:
            self._rooms[queue] = ((left + 1) // 2, time.monotonic() + _BELIEVED_SECONDS)

    def take(self, queue: str) -> bool:
        """Return whether a job may be inserted as `queued`; if so, take one slot."""
        with self._lock:
            left, until = self._rooms.get(queue, (0, 0.0))
            if left <= 0 or time.monotonic() >= until:
                return False
            self._rooms[queue] = (left - 1, until)
            return True

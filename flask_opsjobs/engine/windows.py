"""How much room a process believes the windows to have: lets a due job be born `queued`, one statement less."""

from __future__ import annotations

import threading
import time

# What was read is believed for this long; then the next job is dispatched in the ordinary way, which reads anew.
_BELIEVED_SECONDS = 1.0


class Windows:
    """Room per queue, as last seen by a dispatch of this process. Safe in threads.

    Several processes may each believe in the same room, so each takes half of what it saw. Too much in Redis is
    harmless: it is lost and recalled with the rest.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rooms: dict[str, tuple[int, float]] = {}

    def note(self, queue: str, left: int) -> None:
        """Remember the room that a dispatch left, which means that its lane has no more due jobs."""
        with self._lock:
            self._rooms[queue] = ((left + 1) // 2, time.monotonic() + _BELIEVED_SECONDS)

    def take(self, queue: str) -> bool:
        """Whether a job may go straight to RQ; takes its place."""
        with self._lock:
            left, until = self._rooms.get(queue, (0, 0.0))
            if left <= 0 or time.monotonic() >= until:
                return False
            self._rooms[queue] = (left - 1, until)
            return True

"""A limit on how many threads of one process do the same thing at once: those that open connections, or read much."""

from __future__ import annotations

import os
import threading


class AtMost:
    """Lets `most` enter at once. Safe in threads and after a fork, whose child begins with nobody inside."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._inside = 0
        self._someone_left = threading.Condition()
        self._pid = os.getpid()

    def enter(self, wait_seconds: float = 0.0) -> bool:
        """Whether there was room within so many seconds. Whoever entered calls `leave` once."""
        with self._someone_left:
            if self._pid != os.getpid():
                # After a fork: who was inside is in the parent's process.
                self._inside, self._pid = 0, os.getpid()
            has_room = self._someone_left.wait_for(lambda: self._inside < self.most, wait_seconds)
            self._inside += has_room
            return has_room

    def leave(self) -> None:
        """Make room for somebody else."""
        with self._someone_left:
            self._inside -= 1
            self._someone_left.notify()

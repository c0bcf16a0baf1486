"""Limits how many threads of a process do the same expensive thing at once, such as opening a connection."""

from __future__ import annotations

import os
import threading


class AtMost:
    """Lets `most` threads enter at once.

    Safe in threads and after a fork: a child process starts with none inside.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._inside = 0
        self._someone_left = threading.Condition()
        self._pid = os.getpid()

    def enter(self, wait_seconds: float = 0.0) -> bool:
        """Enter, waiting up to `wait_seconds` for room.

        Returns whether it entered; then call `leave` once.
        """
        with self._someone_left:
            if self._pid != os.getpid():
                # After a fork: the threads that were inside belong to the parent process.
                self._inside, self._pid = 0, os.getpid()
            has_room = self._someone_left.wait_for(lambda: self._inside < self.most, wait_seconds)
            self._inside += has_room
            return has_room

    def leave(self) -> None:
        """Make room for another thread."""
        with self._someone_left:
            self._inside -= 1
            self._someone_left.notify()

"""Guards a process against slow servers: fails at once when one does not answer, lets few threads wait."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

# After this time one caller asks a server that did not answer again. All other callers fail at once.
_ASKED_AGAIN_SECONDS = 2.0


class Answering:
    """Knows whether one server answers.

    `answered_at` is the time of its last answer. `unanswered_since` is when this process first noticed that
    it does not answer, None while it does. It stopped answering between the two times, in which it was not
    asked.
    """

    def __init__(self) -> None:
        self.answered_at: datetime | None = None
        self.unanswered_since: datetime | None = None
        self._ask_again_at = 0.0

    @contextmanager
    def asking(
        self, is_silence: Callable[[BaseException], bool], at_once: Callable[[], Exception]
    ) -> Iterator[None]:
        """Enclose a request to the server. While it is known not to answer, raise `at_once()` instead.

        `is_silence` tells whether an exception of the block means that the server does not answer.
        """
        if self.unanswered_since is not None:
            if time.monotonic() < self._ask_again_at:
                raise at_once()
            self._wait()
        try:
            yield
        except Exception as error:
            if is_silence(error):
                self.unanswered_since = self.unanswered_since or datetime.now(UTC)
                self._wait()
            raise
        self.unanswered_since, self.answered_at = None, datetime.now(UTC)

    def _wait(self) -> None:
        self._ask_again_at = time.monotonic() + _ASKED_AGAIN_SECONDS


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

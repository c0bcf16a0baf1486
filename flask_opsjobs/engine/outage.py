"""What a process does while Postgres is away: it says so once, waits longer after each try, says when it is back."""

from __future__ import annotations

import logging
import random
import threading
import time

from ..db import say_cause
from .horse import fork_lock


class Backoff:
    """How long one thread waits before it tries again: longer each time, never the same for two processes."""

    def __init__(self, shortest: float = 0.5, longest: float = 5.0) -> None:
        self._shortest = shortest
        self._longest = longest
        self._wait = shortest

    def next_seconds(self) -> float:
        """The next pause; the one after it is twice as long."""
        wait = self._wait
        self._wait = min(wait * 2, self._longest)
        return random.uniform(wait / 2, wait)

    def reset(self) -> None:
        """The try went well: the next failure waits briefly again."""
        self._wait = self._shortest


class Outage:
    """Postgres being away, as all threads of a process see it. It lasts until none of them is without Postgres."""

    def __init__(self, log: logging.Logger, meanwhile: str) -> None:
        self._log = log
        self._meanwhile = meanwhile
        self._lock = threading.Lock()
        self._without: set[str] = set()
        self._said: set[type[BaseException]] = set()
        self._since = 0.0
        self._back_at = 0.0

    def begin(self, thread: str, error: BaseException, asked_at: float) -> None:
        """This thread met the error when it asked at that time of the monotonic clock.

        Who asked before the end of the last outage tells no news. A failover begins with one kind of error and goes
        on with another, such as a read-only database: each kind is said once.
        """
        with self._lock:
            if asked_at < self._back_at:
                return
            if not self._without:
                self._since, self._said = time.monotonic(), set()
            state = "still away" if self._said else "away"
            if type(error) not in self._said:
                cause = say_cause(error)
                self._say(logging.ERROR, f"Postgres is {state} (%s); %s", cause, self._meanwhile)
            self._said.add(type(error))
            self._without.add(thread)

    def end(self, thread: str) -> None:
        """Postgres answered this thread."""
        with self._lock:
            if thread not in self._without:
                return
            self._without.remove(thread)
            if not self._without:
                self._back_at = time.monotonic()
                self._say(
                    logging.WARNING, "Postgres is back after %.1f s", self._back_at - self._since
                )

    def _say(self, level: int, message: str, *values: object) -> None:
        with fork_lock:
            self._log.log(level, message, *values)

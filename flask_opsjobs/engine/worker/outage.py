"""Reports an outage of Postgres once, waits longer after each try, and reports when Postgres is back."""

from __future__ import annotations

import logging
import random
import threading
import time

from ...core.db import say_cause
from .child import fork_lock

# An outage that comes again and again, as with a pooler that loses prepared statements, is said once in this time.
_QUIET_SECONDS = 60.0


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

    def __init__(
        self, log: logging.Logger, meanwhile: str, quiet_seconds: float = _QUIET_SECONDS
    ) -> None:
        self._log = log
        self._meanwhile = meanwhile
        self._quiet_seconds = quiet_seconds
        self._lock = threading.Lock()
        self._without: set[str] = set()
        self._said: set[str] = set()
        self._said_at: dict[str, float] = {}
        self._since = 0.0
        self._back_at = 0.0

    def begin(self, thread: str, error: BaseException, asked_at: float) -> None:
        """This thread met the error when it asked at that time of the monotonic clock.

        Who asked before the end of the last outage tells no news. A failover begins with one kind of error and goes
        on with another, such as a read-only database: each kind is said once.
        """
        now = time.monotonic()
        with self._lock:
            if asked_at < self._back_at:
                return
            if not self._without:
                self._since, self._said = now, set()
            self._without.add(thread)
            cause = say_cause(error)
            kind = cause.partition(":")[0]  # what follows may name a statement
            is_recent = now - self._said_at.get(kind, -self._quiet_seconds) < self._quiet_seconds
            if kind in self._said or is_recent:
                return
            state = "still away" if self._said else "away"
            self._say(logging.ERROR, f"Postgres is {state} (%s); %s", cause, self._meanwhile)
            self._said.add(kind)
            self._said_at[kind] = now

    def end(self, thread: str) -> None:
        """Postgres answered this thread."""
        with self._lock:
            if thread not in self._without:
                return
            self._without.remove(thread)
            if self._without:
                return
            self._back_at = time.monotonic()
            if self._said:
                seconds = self._back_at - self._since
                self._say(logging.WARNING, "Postgres is back after %.1f s", seconds)

    def _say(self, level: int, message: str, *values: object) -> None:
        with fork_lock:
            self._log.log(level, message, *values)

"""Logs an outage of Postgres once and its end once, and computes the pauses between retries (backoff)."""

from __future__ import annotations

import logging
import random
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from .db import lacks_tables, say_cause

# A repeated outage, as with a pooler that loses prepared statements, is logged at most once in this time.
_QUIET_SECONDS = 60.0


class Backoff:
    """The pauses of one thread between its retries: each up to twice as long, with jitter."""

    def __init__(self, shortest: float = 0.5, longest: float = 5.0) -> None:
        self._shortest = shortest
        self._longest = longest
        self._wait = shortest

    def next_seconds(self) -> float:
        """Return the next pause in seconds, and double the one after it."""
        wait = self._wait
        self._wait = min(wait * 2, self._longest)
        return random.uniform(wait / 2, wait)

    def reset(self) -> None:
        """Start again with the shortest pause, after a success."""
        self._wait = self._shortest


@dataclass(frozen=True)
class EndedOutage:
    """An outage that is over. The times are of the monotonic clock."""

    began: float
    ended: float
    why: str


class Outage:
    """An outage of Postgres, or of our tables in it, shared by the threads of a process.

    It ends when Postgres has answered all of them. `meanwhile` says in the log what happens until then. A
    process that forks holds `log_lock` while it forks: no other thread may log at that moment.
    """

    def __init__(
        self,
        log: logging.Logger,
        meanwhile: str,
        quiet_seconds: float = _QUIET_SECONDS,
        log_lock: AbstractContextManager[object] | None = None,
    ) -> None:
        self._log = log
        self._log_lock = log_lock or nullcontext()
        self._meanwhile = meanwhile
        self._quiet_seconds = quiet_seconds
        self._lock = threading.Lock()
        self._without: set[str] = set()
        self._logged: set[str] = set()
        self._logged_at: dict[str, float] = {}
        self._since = 0.0
        self._why = ""
        self._what = "Postgres is"
        self._back_at = 0.0
        self._over: list[EndedOutage] = []

    def begin(self, thread: str, error: BaseException, asked_at: float) -> None:
        """Note that this thread got the error for a call begun at `asked_at` of the monotonic clock.

        Calls begun before the end of the last outage are ignored. Each kind of error is logged once: a
        failover begins with one kind and goes on with another, such as a read-only database.
        """
        now = time.monotonic()
        with self._lock:
            if asked_at < self._back_at:
                return
            if not self._without:
                self._since, self._logged = now, set()
                self._why = say_cause(error)
            self._without.add(thread)
            cause = say_cause(error)
            kind = cause.partition(":")[0]  # the rest may name a statement
            is_recent = now - self._logged_at.get(kind, -self._quiet_seconds) < self._quiet_seconds
            if kind in self._logged or is_recent:
                return
            is_missing = lacks_tables(error)
            self._what = "the tables of opsjobs are" if is_missing else "Postgres is"
            state = ("still " if self._logged else "") + ("missing" if is_missing else "away")
            self._say(logging.ERROR, f"{self._what} {state} (%s); %s", cause, self._meanwhile)
            self._logged.add(kind)
            self._logged_at[kind] = now

    def end(self, thread: str) -> None:
        """Note that Postgres answered this thread."""
        with self._lock:
            if thread not in self._without:
                return
            self._without.remove(thread)
            if self._without:
                return
            self._back_at = time.monotonic()
            self._over = [*self._over[-9:], EndedOutage(self._since, self._back_at, self._why)]
            if self._logged:
                seconds = self._back_at - self._since
                self._say(logging.WARNING, f"{self._what} back after %.1f s", seconds)

    def take_over(self) -> list[EndedOutage]:
        """Return the outages that are over and that nobody has taken yet."""
        with self._lock:
            over, self._over = self._over, []
        return over

    def give_back(self, over: EndedOutage) -> None:
        """Let somebody take over an outage later that could not be reported now."""
        with self._lock:
            self._over = [over, *self._over]

    def _say(self, level: int, message: str, *values: object) -> None:
        with self._log_lock:
            self._log.log(level, message, *values)

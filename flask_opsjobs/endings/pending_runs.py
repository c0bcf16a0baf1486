"""Holds the runs whose steps a process ended, and advances them soon, each at most once per 20 ms."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from math import inf

from psycopg.errors import LockNotAvailable

from ..core import sql
from ..core.db import Connection, is_away
from ..jobs.perform import describe_error
from .advance import advance
from .after_end import MovedJob

_log = logging.getLogger("flask_opsjobs.workflows")

# Many ends of one run are passed on together: an `advance` costs about as much as ten ends.
_SHORTEST_SECONDS = 0.02
# A run that cannot be advanced is tried again after this time, by the loop in each pass. Its steps end at
# their usual pace.
_TROUBLE_SECONDS = 0.9
# A run that another process has locked for longer is left to the loop.
_LONGEST_SECONDS = 2.0
# One turn advances runs for at most this long, so that outcomes and heartbeats are written in time.
_TURN_SECONDS = 0.1


class PendingRuns:
    """The runs that one process should advance. Not for several threads."""

    def __init__(self, max_args_bytes: int) -> None:
        self._max_args_bytes = max_args_bytes
        # run: (since when it waits, when it may be advanced), by the monotonic clock.
        self._waiting: dict[int, tuple[float, float]] = {}
        # run: when it may be advanced again.
        self._next_at: dict[int, float] = {}
        self._troubles: dict[int, str] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def note(self, ended: Iterable[MovedJob]) -> None:
        """Remember the runs of steps that ended."""
        self.add(
            dict.fromkeys(
                job.workflow_id for job in ended if job.workflow_id is not None and job.is_final
            )
        )

    def add(self, runs: Iterable[int]) -> None:
        """Remember runs to advance."""
        now = time.monotonic()
        for run in runs:
            self._waiting.setdefault(run, (now, max(now, self._next_at.get(run, now))))

    def due_in(self) -> float:
        """The seconds until a run may be advanced: 0 when one may now, infinite when none waits."""
        if not self._waiting:
            return inf
        return max(0.0, min(at for _, at in self._waiting.values()) - time.monotonic())

    def advance(
        self, connection: Connection, turn_seconds: float = _TURN_SECONDS
    ) -> list[tuple[str, str]]:
        """Advance runs for at most `turn_seconds`, those that wait longest first; returns lanes to dispatch.

        A run that fails is left to the loop `advance`, says `trouble`, and is logged once. Raises only when
        Postgres is away or the connection broke.
        """
        lanes: dict[tuple[str, str], None] = {}
        began = time.monotonic()
        due = [run for run, (_, at) in self._waiting.items() if at <= began]
        for run in due:
            lanes |= dict.fromkeys(self._advance_one(connection, run))
            if time.monotonic() - began > turn_seconds:
                break
        self._forget_old()
        return list(lanes)

    def _advance_one(self, connection: Connection, run: int) -> Iterable[tuple[str, str]]:
        since, _ = self._waiting.pop(run)
        try:
            done = advance(connection, run, self._max_args_bytes)
        except Exception as error:
            if is_away(error) or connection.broken or connection.closed:
                raise
            is_locked = isinstance(error, LockNotAvailable)
            if not (is_locked and self._try_again(run, since, _TROUBLE_SECONDS)):
                self._fail(connection, run, error)
            return ()
        if done is None:
            self._try_again(run, since, _SHORTEST_SECONDS)
            return ()
        now = time.monotonic()
        self._next_at[run] = now + _SHORTEST_SECONDS
        if self._troubles.pop(run, None):
            _log.warning("workflow %d can be advanced again", run)
        if done.has_more:
            self._waiting[run] = (now, now)
        return done.lanes

    def _try_again(self, run: int, since: float, seconds: float) -> bool:
        """Wait for somebody who has locked the run or a job of it; returns False when it takes too long."""
        now = time.monotonic()
        self._next_at[run] = now + seconds
        if now - since >= _LONGEST_SECONDS:
            return False
        self._waiting[run] = (since, now + seconds)
        return True

    def _fail(self, connection: Connection, run: int, error: Exception) -> None:
        words = describe_error.one_line(error)
        if self._troubles.get(run) != words:
            _log.error(
                "workflow %d cannot be advanced, and is tried again: %s", run, words, exc_info=error
            )
        self._troubles[run] = words
        self._next_at[run] = time.monotonic() + _TROUBLE_SECONDS
        connection.execute(sql.load("note_trouble"), {"id": run, "trouble": words})

    def _forget_old(self) -> None:
        now = time.monotonic()
        self._next_at = {run: at for run, at in self._next_at.items() if at > now}

"""Holds the runs or batches that one process should advance, and paces it: soon, seldom, in short turns."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from math import inf
from typing import ClassVar

from psycopg.errors import LockNotAvailable

from ..core import sql
from ..core.db import Connection, is_away
from ..jobs.perform import describe_error
from .after_end import MovedJob
from .turn import Advanced

# Many ends of one run or batch are passed on together: to advance it costs about as much as ten ends.
_SHORTEST_SECONDS = 0.02
# One that cannot be advanced is tried again after this time, by a loop in each pass. Its jobs end at their
# usual pace.
_TROUBLE_SECONDS = 0.9
# One that another process has locked for longer is left to the loop.
_LONGEST_SECONDS = 2.0
# One turn lasts at most about this long, so that outcomes and heartbeats are written in time.
TURN_SECONDS = 0.1
# So many troubles are remembered, so that a repeated one is logged once.
_MOST_TROUBLES = 1_000


class Pending(ABC):
    """The runs, or the batches, that one process should advance. Not for several threads."""

    # What log lines call one of them, and how it is advanced.
    name: ClassVar[str]
    advanced: ClassVar[str]
    log: ClassVar[logging.Logger]
    # The statement that notes on its row why it cannot be advanced.
    note_trouble: ClassVar[str]

    def __init__(self) -> None:
        # id: (since when it waits, when it may be advanced), by the monotonic clock.
        self._waiting: dict[int, tuple[float, float]] = {}
        # id: when it may be advanced again.
        self._next_at: dict[int, float] = {}
        self._troubles: dict[int, str] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @staticmethod
    @abstractmethod
    def _id_of(job: MovedJob) -> int | None:
        """The run or batch of a job."""

    @abstractmethod
    def _advance_one(self, connection: Connection, id: int) -> Advanced | None:
        """Advance it in a transaction of its own; None when somebody has locked it, or it is gone."""

    def _choose(self, _connection: Connection, due: Sequence[int]) -> Sequence[int]:
        """Those of these that are worth a try. The others are forgotten."""
        return due

    def note(self, ended: Iterable[MovedJob]) -> None:
        """Remember the runs or batches of jobs that ended."""
        found = (self._id_of(job) for job in ended if job.is_final)
        self.add(dict.fromkeys(id for id in found if id is not None))

    def add(self, ids: Iterable[int]) -> None:
        """Remember runs or batches to advance."""
        now = time.monotonic()
        for id in ids:
            self._waiting.setdefault(id, (now, max(now, self._next_at.get(id, now))))

    def due_in(self) -> float:
        """The seconds until one may be advanced: 0 when one may now, infinite when none waits."""
        if not self._waiting:
            return inf
        return max(0.0, min(at for _, at in self._waiting.values()) - time.monotonic())

    def advance(
        self, connection: Connection, turn_seconds: float = TURN_SECONDS
    ) -> list[tuple[str, str]]:
        """Advance them for about `turn_seconds`, those that wait longest first; returns lanes to dispatch.

        At least one is advanced. One that cannot be advanced is left to its loop, says `trouble`, and is
        logged once. Raises only when Postgres is away or the connection broke.
        """
        lanes: dict[tuple[str, str], None] = {}
        began = time.monotonic()
        due = [id for id, (_, at) in self._waiting.items() if at <= began]
        chosen = self._choose(connection, due) if due else []
        for id in set(due).difference(chosen):
            del self._waiting[id]
            self._next_at[id] = began + _SHORTEST_SECONDS
        for id in chosen:
            lanes |= dict.fromkeys(self._try(connection, id))
            if time.monotonic() - began > turn_seconds:
                break
        now = time.monotonic()
        self._next_at = {id: at for id, at in self._next_at.items() if at > now}
        return list(lanes)

    def _try(self, connection: Connection, id: int) -> Iterable[tuple[str, str]]:
        since, _ = self._waiting.pop(id)
        try:
            done = self._advance_one(connection, id)
        except Exception as error:
            if is_away(error) or connection.broken or connection.closed:
                raise
            is_locked = isinstance(error, LockNotAvailable)
            if not (is_locked and self._try_again(id, since, _TROUBLE_SECONDS)):
                self._fail(connection, id, error)
            return ()
        if done is None:
            self._try_again(id, since, _SHORTEST_SECONDS)
            return ()
        now = time.monotonic()
        self._next_at[id] = now + _SHORTEST_SECONDS
        if self._troubles.pop(id, None):
            self.log.warning("%s %d can be %s again", self.name, id, self.advanced)
        if done.has_more:
            self._waiting[id] = (now, now)
        return done.lanes

    def _try_again(self, id: int, since: float, seconds: float) -> bool:
        """Wait for somebody who has locked it or a job of it; returns False when it takes too long."""
        now = time.monotonic()
        self._next_at[id] = now + seconds
        if now - since >= _LONGEST_SECONDS:
            return False
        self._waiting[id] = (since, now + seconds)
        return True

    def _fail(self, connection: Connection, id: int, error: Exception) -> None:
        words = describe_error.one_line(error)
        if self._troubles.pop(id, None) != words:
            self.log.error(
                "%s %d cannot be %s, and is tried again: %s",
                self.name,
                id,
                self.advanced,
                words,
                exc_info=error,
            )
        self._troubles[id] = words
        if len(self._troubles) > _MOST_TROUBLES:
            del self._troubles[next(iter(self._troubles))]
        self._next_at[id] = time.monotonic() + _TROUBLE_SECONDS
        connection.execute(sql.load(self.note_trouble), {"id": id, "trouble": words})

"""Holds the batches whose members a process ended, and folds each that has no open member any more."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from math import inf

from ..core import sql
from ..core.db import Connection, is_away
from ..jobs.perform import describe_error
from .after_end import MovedJob
from .fold import fold

_log = logging.getLogger("flask_opsjobs.batches")

# After a look at a batch, its next one comes so much later: each of its ends would cause one.
_SHORTEST_SECONDS = 0.02
# One turn folds batches for at most this long, so that outcomes and heartbeats are written in time.
_TURN_SECONDS = 0.1


class PendingBatches:
    """The batches that one process should fold. Not for several threads."""

    def __init__(self) -> None:
        # batch: when it may be looked at, by the monotonic clock.
        self._waiting: dict[int, float] = {}
        self._looked_at: dict[int, float] = {}
        self._troubles: dict[int, str] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def note(self, ended: Iterable[MovedJob]) -> None:
        """Remember the batches of members that ended."""
        self.add(
            dict.fromkeys(
                job.batch_id for job in ended if job.batch_id is not None and job.is_final
            )
        )

    def add(self, batches: Iterable[int]) -> None:
        """Remember batches that can perhaps end."""
        now = time.monotonic()
        for batch in batches:
            at = self._looked_at.get(batch, -inf) + _SHORTEST_SECONDS
            self._waiting.setdefault(batch, max(now, at))

    def due_in(self) -> float:
        """The seconds until a batch may be looked at: 0 when one may now, infinite when none waits."""
        if not self._waiting:
            return inf
        return max(0.0, min(self._waiting.values()) - time.monotonic())

    def fold_ended(self, connection: Connection) -> list[tuple[str, str]]:
        """Fold those remembered batches that have no open member; returns lanes to dispatch.

        The others are left to the end of another member, or to the fold loop. Raises as `fold` does.
        """
        now = time.monotonic()
        due = [batch for batch, at in self._waiting.items() if at <= now]
        self._looked_at = {
            batch: at for batch, at in self._looked_at.items() if now - at < _SHORTEST_SECONDS
        }
        for batch in due:
            del self._waiting[batch]
            self._looked_at[batch] = now
        if not due:
            return []
        rows = connection.execute(sql.load("find_batches_without_open_members"), {"ids": due})
        lanes, _ = self.fold(connection, [batch for (batch,) in rows.fetchall()])
        return lanes

    def fold(
        self, connection: Connection, batches: Sequence[int], turn_seconds: float = _TURN_SECONDS
    ) -> tuple[list[tuple[str, str]], bool]:
        """Fold these batches for at most `turn_seconds`; returns lanes to dispatch, and if there is more.

        A batch that cannot be folded is left to the fold loop, says `trouble`, and is logged once. Raises
        only when Postgres is away or the connection broke.
        """
        lanes: dict[tuple[str, str], None] = {}
        began = time.monotonic()
        left = list(batches)
        while left and time.monotonic() - began <= turn_seconds:
            found, has_more = self._fold_one(connection, left[0])
            lanes |= dict.fromkeys(found)
            if not has_more:
                left.pop(0)
        return list(lanes), bool(left)

    def _fold_one(
        self, connection: Connection, batch: int
    ) -> tuple[Iterable[tuple[str, str]], bool]:
        try:
            done = fold(connection, batch)
        except Exception as error:
            if is_away(error) or connection.broken or connection.closed:
                raise
            self._fail(connection, batch, error)
            return (), False
        if done is None:
            return (), False
        if self._troubles.pop(batch, None):
            _log.warning("batch %d can be folded again", batch)
        return done.lanes, done.has_more

    def _fail(self, connection: Connection, batch: int, error: Exception) -> None:
        words = describe_error.one_line(error)
        if self._troubles.get(batch) != words:
            _log.error(
                "batch %d cannot be folded, and is tried again: %s", batch, words, exc_info=error
            )
        self._troubles[batch] = words
        connection.execute(sql.load("note_trouble_of_batch"), {"id": batch, "trouble": words})

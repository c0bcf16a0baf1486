"""Dispatches jobs right after a commit of the host. Failures are logged and never reach the host."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import psycopg
from redis import RedisError

from ...core.db import is_away, say_cause
from ...host import Host
from ...jobs.commit_notes import DueLane, QueuedAtInsert
from ..redis.broker import Delivery, broker_of
from .dispatch import Dispatcher, read_clock, recall
from .room_estimate import RoomEstimate

_log = logging.getLogger("flask_opsjobs.dispatch")
# After a failure of Redis or Postgres, this process leaves dispatch to the loop for this long.
_SILENCE_SECONDS = 5.0


class AfterCommitDispatch:
    """Dispatches for one process. It may give up quickly, because the dispatch loop runs every second."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._estimate = RoomEstimate()
        self._silent_until = 0.0

    def has_room(self, queue: str) -> bool:
        """Return whether a due job may be inserted as `queued` and pushed after the commit. Takes a slot."""
        return time.monotonic() >= self._silent_until and self._estimate.take(queue)

    def push(self, notes: Sequence[DueLane | QueuedAtInsert]) -> None:
        """Push the jobs that were inserted as `queued`, and dispatch the lanes of the others."""
        queued = [Delivery(*note) for note in notes if isinstance(note, QueuedAtInsert)]
        lanes = dict.fromkeys(note for note in notes if isinstance(note, DueLane))
        if time.monotonic() < self._silent_until:
            return  # the loops dispatch `available` jobs, and recall jobs that were inserted as `queued`
        try:
            if queued:
                self._push_queued(queued)
            if lanes:
                self._dispatch(list(lanes))
        except RedisError as error:
            self._be_silent(f"Redis does not answer ({type(error).__name__})")
        except psycopg.Error as error:
            if not is_away(error):
                raise
            self._be_silent(f"Postgres is away ({say_cause(error)})")

    def _be_silent(self, why: str) -> None:
        self._silent_until = time.monotonic() + _SILENCE_SECONDS
        _log.warning("%s; jobs are left to the dispatch loop for %g s", why, _SILENCE_SECONDS)

    def _push_queued(self, queued: Sequence[Delivery]) -> None:
        try:
            broker_of(self._host).push(queued, quick=True)
        except RedisError:
            with self._host.spare.one() as connection:
                recall(connection, [(delivery.id, delivery.dispatch_no) for delivery in queued])
            raise

    def _dispatch(self, lanes: Sequence[DueLane]) -> None:
        host = self._host
        with host.spare.one() as connection:
            now = read_clock(connection)
            dispatcher = Dispatcher(connection, broker_of(host), host.settings, quick=True)
            for lane, queue in lanes:
                _, left = dispatcher.fill(lane, queue, now)
                if lane == queue:  # a limited lane leaves room although it has more due jobs
                    self._estimate.note(queue, left)

"""What happens right after a host's commit: the lanes it touched are dispatched, and nothing may reach the host."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import psycopg
from redis import RedisError

from ..db import is_away, say_cause
from ..host import Host
from ..jobs.touched import Born, Line
from .delivery import Delivery
from .dispatch import Dispatcher, read_clock, recall
from .windows import Windows

_log = logging.getLogger("flask_opsjobs.dispatch")
# After Redis or Postgres failed once, the process leaves dispatch to the loop for this long.
_SILENCE_SECONDS = 5.0


class Handout:
    """The hook of one process. Gives up quickly: the dispatch loop does what is left undone within a second."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._windows = Windows()
        self._silent_until = 0.0

    def may_be_born_queued(self, queue: str) -> bool:
        """Whether a due job of this queue may be enqueued as `queued`, to be pushed after the commit; takes a place."""
        return time.monotonic() >= self._silent_until and self._windows.take(queue)

    def after_commit(self, notes: Sequence[Line | Born]) -> None:
        """Push the jobs that were born `queued`, and dispatch the lanes of the others."""
        born = [Delivery(*note) for note in notes if isinstance(note, Born)]
        lanes = dict.fromkeys(note for note in notes if isinstance(note, Line))
        if time.monotonic() < self._silent_until:
            return  # the loops find what is available, and recall what was born queued
        try:
            if born:
                self._push(born)
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

    def _push(self, born: Sequence[Delivery]) -> None:
        try:
            self._host.broker.push(born, quick=True)
        except RedisError:
            with self._host.spare.one() as connection:
                recall(connection, [(delivery.id, delivery.dispatch_no) for delivery in born])
            raise

    def _dispatch(self, lanes: Sequence[Line]) -> None:
        host = self._host
        with host.spare.one() as connection:
            now = read_clock(connection)
            dispatcher = Dispatcher(connection, host.broker, host.settings, quick=True)
            for lane, queue in lanes:
                _, left = dispatcher.fill(lane, queue, now)
                if lane == queue:  # a limited lane leaves room although it has more due jobs
                    self._windows.note(queue, left)

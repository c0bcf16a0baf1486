"""Makes the steps of a worker's thread in turn: one that fails does not stop those after it."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ...core.db import is_away
from ...workers.transitions import WorkerRemoved
from .forking import fork_lock

_log = logging.getLogger("flask_opsjobs.worker")
# After a step failed, the next turn follows so much later.
PAUSE_SECONDS = 0.5


class Turn:
    """Makes the turns of one thread, which the log calls `thread`. It knows which steps failed before."""

    def __init__(self, thread: str, is_connected: Callable[[], bool]) -> None:
        """`is_connected` tells whether the thread has a connection that is not broken."""
        self._thread = thread
        self._is_connected = is_connected
        self._failures: dict[str, type[Exception]] = {}

    def make(self, *steps: Callable[[], object]) -> bool:
        """Make each step; return whether all went well. An error is logged once, until its step succeeds.

        Raises `WorkerRemoved` at once. An error that means "Postgres is away" is raised after the other
        steps, since it may be about the tables of one step; at once when there is no connection left.
        """
        away: Exception | None = None
        failures: dict[str, type[Exception]] = {}
        for step in steps:
            try:
                step()
            except WorkerRemoved:
                raise
            except Exception as error:
                if is_away(error):
                    away = away or error
                    if not self._is_connected():
                        raise
                    continue
                failures[step.__name__] = type(error)
                if self._failures.get(step.__name__) is not type(error):
                    with fork_lock:
                        _log.error("the %s failed and tries again", self._thread, exc_info=error)
        self._failures = failures
        if away is not None:
            raise away
        return not failures

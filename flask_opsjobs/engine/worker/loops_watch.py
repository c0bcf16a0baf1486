"""Watches from a worker whether any loop runs: loops that are silent detect nothing."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from ... import signals
from ...core.db import Connection
from ...core.words import moment
from ...host import Host
from ...lifeline import loop_runs
from .forking import fork_lock

_log = logging.getLogger("flask_opsjobs.worker")
_LONGEST = timedelta(seconds=60)


class LoopsWatch:
    """Tells once that no loop has made a pass for a minute, and once that they make some again."""

    def __init__(self, host: Host, worker: str) -> None:
        self._host = host
        self._worker = worker
        self._since: datetime | None = None
        self._is_told = False

    def look(self, connection: Connection, now: datetime) -> None:
        """Look once, after a heartbeat.

        Holds the fork lock while it logs, because that takes locks. The thread for events calls receivers.
        """
        last_at = loop_runs.find_newest_pass(connection, now)
        if self._since is None or self._since > now:
            self._since = now
        is_silent = now - (last_at or self._since) >= _LONGEST
        if is_silent == self._is_told:
            return
        self._is_told = is_silent
        with fork_lock:
            if not is_silent:
                _log.warning("the loops make passes again")
                return
            last = f"since {moment(last_at)}" if last_at else "yet"
            _log.critical(
                "no loop has made a pass %s: nothing is detected, rescued or dispatched by them; start "
                "`flask opsjobs run`",
                last,
            )
        signals.send(signals.loops_silent, self._host, worker=self._worker, last_at=last_at)

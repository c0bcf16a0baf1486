"""Makes one pass of a loop, from reading the clock to its record in `loop_runs`, and catches its errors."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..core.db import Connection, is_away
from ..engine.dispatch.dispatch import read_clock
from ..errors import EngineUnavailable
from ..host import Host
from ..jobs.perform import failure
from ..lifeline import awake
from .shape import IDLE, Loop, Pass

_log = logging.getLogger("flask_opsjobs.loops")


def process_name() -> str:
    """Return the name of this process in `loop_runs`."""
    return f"{socket.gethostname()}-{os.getpid()}"


@dataclass
class Runner:
    """Makes the passes of one loop, and keeps its state between them."""

    loop: Loop
    host: Host
    process: str = field(default_factory=process_name)
    run_id: int | None = None
    memory: dict[str, Any] = field(default_factory=dict)
    last_error: str | None = None
    wait_seconds: float | None = None

    def run_once(self, connection: Connection, now: datetime | None = None) -> bool:
        """Make one pass on a connection in autocommit; return whether the next one shall follow at once.

        Returns False too when another copy makes a pass right now. Raises only when Postgres is away or the
        connection broke. Any other error is logged and recorded in `loop_runs`.
        """
        now = read_clock(connection) if now is None else now
        began = time.monotonic()
        self.wait_seconds = None
        context = Pass(connection, self.host, now, memory=self.memory)
        try:
            make = self._alone if self.loop.is_alone else self._make
            is_made = make(context, began)
        except Exception as error:
            if is_away(error) or connection.broken or connection.closed:
                raise
            self._fail(connection, error, now, began)
            return False
        if is_made:
            self.wait_seconds = context.wait_seconds
            self._succeed(context.effects)
        return is_made and context.has_more

    def _alone(self, context: Pass, began: float) -> bool:
        with context.connection.transaction():
            return self._is_first(context) and self._make(context, began)

    def _is_first(self, context: Pass) -> bool:
        # A lock of the transaction, not of the session: the commit releases it, also through PgBouncer.
        found = context.connection.execute(
            "SELECT pg_try_advisory_xact_lock(hashtextextended('opsjobs loop ' || %s, 0))",
            [self.loop.name],
        ).fetchone()
        return bool(found and found[0])

    def _make(self, context: Pass, began: float) -> bool:
        connection, now = context.connection, context.now
        context.elapsed_seconds = awake.seconds_since_last_pass(connection, self.loop.name, now)
        report = self.loop.run(context)
        self._note(connection, now, began, said=report)
        return True

    def _note(
        self,
        connection: Connection,
        now: datetime,
        began: float,
        *,
        said: str,
        error: str | None = None,
    ) -> None:
        note = awake.Note(
            loop=self.loop.name,
            process=self.process,
            every_seconds=self.loop.every_seconds(self.host.settings),
            took_seconds=time.monotonic() - began,
            said=said,
            error=error,
            is_idle=said == IDLE,
        )
        self.run_id = awake.note_pass(connection, self.run_id, note, now)

    def _fail(self, connection: Connection, error: Exception, now: datetime, began: float) -> None:
        words = failure.one_line(error)
        # A repeated error is logged once, and once more when it is over.
        if words != self.last_error:
            expected = isinstance(error, EngineUnavailable)
            _log.error("loop %s: %s", self.loop.name, words, exc_info=None if expected else error)
        self.last_error = words
        self._note(connection, now, began, said="failed", error=words)

    def _succeed(self, effects: list[Callable[[], None]]) -> None:
        if self.last_error is not None:
            _log.warning("loop %s recovered", self.loop.name)
            self.last_error = None
        for effect in effects:
            try:
                effect()
            except Exception:
                _log.exception("loop %s: an effect after its commit failed", self.loop.name)

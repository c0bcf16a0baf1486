"""Defines a loop, and makes its passes, from reading the clock to the record in `loop_runs`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .. import signals
from ..core.db import Connection, is_away
from ..core.reading import read_clock
from ..engine.worker.runtime import process_name
from ..errors import EngineUnavailable
from ..host import Host
from ..jobs.perform import describe_error
from ..lifeline import loop_runs
from ..queues.transitions import list_known_queues
from ..settings import Settings

_log = logging.getLogger("flask_opsjobs.loops")
# The report of a pass that changed nothing.
IDLE = "nothing to do"


@dataclass
class Pass:
    """The inputs of one pass, and the requests that it leaves for its runner.

    `connection` is in autocommit, inside the pass's transaction when the loop is alone. `now` is
    Postgres' clock, read once. `elapsed_seconds` is the time since any copy of the loop made its
    last pass. `memory` is kept from pass to pass of this process.
    """

    connection: Connection
    host: Host
    now: datetime
    elapsed_seconds: float = 0.0
    every_seconds: float = 1.0
    memory: dict[str, Any] = field(default_factory=dict)
    effects: list[Callable[[], None]] = field(default_factory=list)
    has_more: bool = False
    error: str | None = None
    error_type: str | None = None
    wait_seconds: float | None = None

    @property
    def was_asleep(self) -> bool:
        """Return whether the loop has made no pass for so long that it does not know what happened since.

        So it is also after a pass that took that long itself, since a process that was stopped in its pass
        looks the same. Such a look clears no incident; the two complete ones after it do.
        """
        return self.elapsed_seconds > 3 * self.every_seconds + loop_runs.GRACE_SECONDS

    def after_commit(self, effect: Callable[[], None]) -> None:
        """Call `effect` once the pass's transaction is committed. What it raises is logged."""
        self.effects.append(effect)

    def queue_names(self) -> list[str]:
        """Return the names of the queues of this app's tasks and of all stored jobs, sorted."""
        return list_known_queues(self.host, self.connection)

    def fail(self, message: str, error: Exception) -> None:
        """Note an error with the pass, which goes on and commits. A repeated error is logged once."""
        if self.memory.get("failure") != message:
            _log.error("%s", message, exc_info=error)
        self.error = self.memory["failure"] = message
        self.error_type = type(error).__name__

    def again(self) -> None:
        """Ask for the next pass at once, because one pass could not do everything."""
        self.has_more = True

    def sooner(self, seconds: float) -> None:
        """Ask for the next pass `seconds` after this one began, when that is sooner than the interval."""
        self.wait_seconds = seconds


@dataclass(frozen=True)
class Loop:
    """One background loop. `run` returns a short report of its pass, `IDLE` when it did nothing.

    `is_alone`: the pass is one transaction behind an advisory lock, so only one of all copies makes it at a
    time. Loops that talk to Redis are not alone, because no lock of Postgres may be held during a call to
    Redis, and a lock that outlives a transaction does not work through PgBouncer. Their writes are fenced
    instead.

    `prepare` is called in the main thread, before any thread of a loop runs, and returns the memory of the
    first pass. `stop` is called after the last pass of a process that was told to stop.
    """

    name: str
    every_seconds: Callable[[Settings], float]
    run: Callable[[Pass], str]
    is_alone: bool
    prepare: Callable[[Host], dict[str, Any]] | None = None
    stop: Callable[[Connection, dict[str, Any]], None] | None = None


def every(seconds: float) -> Callable[[Settings], float]:
    """Return an interval that does not depend on settings."""
    return lambda _: seconds


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

    def prepare(self) -> None:
        """Let the loop do what it must do before any thread runs."""
        if self.loop.prepare is not None:
            self.memory |= self.loop.prepare(self.host)

    def stop(self, connection: Connection) -> None:
        """Let the loop end what it has begun. What it raises is logged: the process stops anyway."""
        try:
            if self.loop.stop is not None:
                self.loop.stop(connection, self.memory)
        except Exception as error:
            _log.error("loop %s: %s", self.loop.name, describe_error.one_line(error))

    def run_once(self, connection: Connection, now: datetime | None = None) -> bool:
        """Make one pass on a connection in autocommit; return whether the next one shall follow at once.

        Returns False too when another copy makes a pass right now. Raises only when Postgres is away or the
        connection broke. Any other error is logged and recorded in `loop_runs`.
        """
        now = read_clock(connection) if now is None else now
        began = time.monotonic()
        self.wait_seconds = None
        context = Pass(
            connection,
            self.host,
            now,
            every_seconds=self.loop.every_seconds(self.host.settings),
            memory=self.memory,
        )
        with signals.sent_by(self.host):
            return self._run(context, began)

    def _run(self, context: Pass, began: float) -> bool:
        connection = context.connection
        try:
            make = self._alone if self.loop.is_alone else self._make
            is_made = make(context, began)
        except Exception as error:
            if is_away(error) or connection.broken or connection.closed:
                raise
            self._fail(connection, error, context.now, began)
            return False
        if is_made:
            self.wait_seconds = context.wait_seconds
            self._succeed(context.effects)
        return is_made and context.has_more

    def _alone(self, context: Pass, began: float) -> bool:
        with signals.once_committed(), context.connection.transaction():
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
        context.elapsed_seconds = loop_runs.seconds_since_last_pass(connection, self.loop.name, now)
        report = self.loop.run(context)
        if context.error is None:
            self.memory.pop("failure", None)
        else:
            signals.send(signals.loop_failed, loop=self.loop.name, error=context.error_type)
        self._note(connection, now, began, report=report, error=context.error)
        return True

    def _note(
        self,
        connection: Connection,
        now: datetime,
        began: float,
        *,
        report: str,
        error: str | None = None,
    ) -> None:
        note = loop_runs.Note(
            loop=self.loop.name,
            process=self.process,
            every_seconds=self.loop.every_seconds(self.host.settings),
            took_seconds=time.monotonic() - began,
            report=report,
            error=error,
            is_idle=report == IDLE,
        )
        self.run_id = loop_runs.note_pass(connection, self.run_id, note, now)

    def _fail(self, connection: Connection, error: Exception, now: datetime, began: float) -> None:
        message = describe_error.one_line(error)
        # A repeated error is logged once, and once more when it is over.
        if message != self.last_error:
            expected = isinstance(error, EngineUnavailable)
            _log.error("loop %s: %s", self.loop.name, message, exc_info=None if expected else error)
        self.last_error = message
        self._note(connection, now, began, report="failed", error=message)
        signals.send(signals.loop_failed, loop=self.loop.name, error=type(error).__name__)

    def _succeed(self, effects: list[Callable[[], None]]) -> None:
        if self.last_error is not None:
            _log.warning("loop %s recovered", self.loop.name)
            self.last_error = None
        for effect in effects:
            try:
                effect()
            except Exception:
                _log.exception("loop %s: an effect after its commit failed", self.loop.name)

"""Runs all loops in one process, with a thread and a connection for each, until it is told to stop."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any

import psycopg
from sqlalchemy.exc import DBAPIError

from ..core.db import Connection, connect_apart, is_away
from ..core.outage import Backoff, EndedOutage, Outage
from ..core.reading import read_clock
from ..engine.worker.runtime import declare_limiters, process_name
from ..host import Host
from ..lifeline import incidents
from ..lifeline.detectors import postgres_away
from ..lifeline.finding import DetectorPass
from . import LOOPS
from .loop import Loop, Runner

_log = logging.getLogger("flask_opsjobs.loops")
# After a stop, a running pass may take this long to end; `up` kills the process after 10 s.
_GRACE_SECONDS = 8.0
_LOOK_SECONDS = 0.5
_SIGNALS = (signal.SIGTERM, signal.SIGINT)

Surround = Callable[[], AbstractContextManager[object]]


class LoopThread(threading.Thread):
    """Runs one loop at its interval. A slow or stuck loop does not delay the others."""

    def __init__(self, runner: Runner, stop: threading.Event, outage: Outage, surround: Surround):
        super().__init__(name=f"opsjobs-{runner.loop.name}", daemon=True)
        self._runner = runner
        self._stop_event = stop
        self._outage = outage
        self._surround = surround
        self._connection: Connection | None = None
        self._backoff = Backoff(longest=10.0)
        self._last_failure: type[Exception] | None = None

    def run(self) -> None:
        """Make passes until stopped. No error of Postgres or of a pass ends the thread."""
        every = self._runner.loop.every_seconds(self._runner.host.settings)
        while not self._stop_event.is_set():
            began = time.monotonic()
            try:
                has_more = self._pass()
            except Exception as error:
                self._lose_connection(error, began)
                self._stop_event.wait(self._backoff.next_seconds())
                continue
            self._recover()
            if not has_more:
                until = began + min(every, self._runner.wait_seconds or every)
                self._stop_event.wait(max(0.0, until - time.monotonic()))
        if self._connection is not None:
            if not self._connection.closed:
                self._runner.stop(self._connection)
            self._connection.close()

    def prepare(self) -> None:
        """Do what must be done before any thread runs."""
        with self._surround():
            self._runner.prepare()

    def _pass(self) -> bool:
        if self._connection is None or self._connection.closed:
            self._connection = connect_apart(self._runner.host.engine)
        with self._surround():
            return self._runner.run_once(self._connection)

    def _lose_connection(self, error: Exception, asked_at: float) -> None:
        """Close the connection, because a session that began read-only stays so, and log the error once."""
        name = self._runner.loop.name
        if is_away(error):
            self._outage.begin(name, error, asked_at)
        elif type(error) is not self._last_failure:
            _log.error("loop %s failed and tries again", name, exc_info=error)
        self._last_failure = type(error)
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _recover(self) -> None:
        self._outage.end(self._runner.loop.name)
        for over in self._outage.take_over():
            self._report(over)
        self._backoff.reset()
        self._last_failure = None

    def _report(self, over: EndedOutage) -> None:
        """Make an incident of an outage that is over; later when Postgres is away again.

        What else goes wrong here costs only the incident.
        """
        if over.ended - over.began < postgres_away.SHORTEST.total_seconds():
            return
        assert self._connection is not None
        try:
            with self._connection.transaction():
                now = read_clock(self._connection)
                began_at, ended_at = (
                    now - timedelta(seconds=time.monotonic() - at)
                    for at in (over.began, over.ended)
                )
                found = postgres_away.find_outage(began_at, ended_at, over.why)
                applied = incidents.apply_pass(
                    self._connection, "postgres_away", DetectorPass([found]), now
                )
            incidents.announce(self._runner.host, applied)
        except Exception as error:
            if is_away(error):
                self._outage.give_back(over)
            else:
                _log.exception("an outage of Postgres could not be made an incident")


class Signals:
    """Collects SIGTERM and SIGINT while the block runs, so that they interrupt nothing.

    The signals are blocked, and `comes_within` waits for them. An older thread of the host does not block
    them, and Linux may deliver a signal to it while the main thread does not wait. The handler notes the
    signal then; without a handler the process would die.
    """

    def __init__(self) -> None:
        self._noted = 0
        self._handlers: dict[signal.Signals, Any] = {}
        self._mask: set[int | signal.Signals] = set()

    def __enter__(self) -> None:
        self._handlers = {number: signal.signal(number, self._note) for number in _SIGNALS}
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)

    def __exit__(self, *_: object) -> None:
        # Restores the handlers last: a signal that comes before that is noted and does not kill the process.
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        for number, handler in self._handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def comes_within(self, seconds: float) -> bool:
        """Return whether a signal comes within `seconds`, or has been noted since the last call."""
        found = signal.sigtimedwait(_SIGNALS, seconds)
        # After this process was frozen for longer, Python returns a result without a signal.
        if found is not None and found.si_signo in _SIGNALS:
            return True
        has_come = self._noted > 0
        self._noted = 0
        return has_come

    def _note(self, *_: object) -> None:
        self._noted += 1


class LoopsProcess:
    """Runs all loops of one app. `surround` is entered around each pass, for example the app's context."""

    def __init__(
        self, host: Host, loops: Iterable[Loop] = LOOPS, surround: Surround = nullcontext
    ) -> None:
        self._host = host
        self._stop = threading.Event()
        self._signals = Signals()
        self._outage = Outage(_log, "the loops wait for it")
        self._threads = [
            LoopThread(Runner(loop, host), self._stop, self._outage, surround)
            for loop in loops
            if loop.name not in host.settings.loops_off
        ]

    @property
    def is_running(self) -> bool:
        """Return whether it was not told to stop yet."""
        return not self._stop.is_set()

    def run(self, on_start: Callable[[], None] = lambda: None) -> int:
        """Run until SIGTERM or SIGINT.

        Return the exit code: 0, or 1 when a loop died or a pass did not end in time.

        Calls `on_start` after the schema was checked. Must be called in the main thread. A second signal ends
        it at once. Raises `SchemaBehind` and `SchemaAhead`.
        """
        for thread in self._threads:
            thread.prepare()
        self._wait_for_schema()
        on_start()
        with self._signals:
            try:
                for thread in self._threads:
                    thread.start()
                is_well = self._watch()
                self._stop.set()
                return 0 if self._wait_for_threads() and is_well else 1
            finally:
                self._stop.set()
                self._host.telemetry.finish()

    def _watch(self) -> bool:
        """Watch the threads until a signal comes; return False when a thread died."""
        while not self._signals.comes_within(_LOOK_SECONDS):
            for thread in self._threads:
                if not thread.is_alive():
                    _log.critical("the thread %s has died", thread.name)
                    return False
        return True

    def _wait_for_threads(self) -> bool:
        end = time.monotonic() + _GRACE_SECONDS
        while alive := [thread.name for thread in self._threads if thread.is_alive()]:
            if time.monotonic() >= end or self._signals.comes_within(0.05):
                _log.error("stopped in the middle of a pass: %s", ", ".join(alive))
                return False
        return True

    def _wait_for_schema(self) -> None:
        """Wait until Postgres answers, check the schema, declare limiters.

        Any signal ends the process here.
        """
        backoff = Backoff(longest=10.0)
        while True:
            asked_at = time.monotonic()
            try:
                self._host.require_schema()
                declare_limiters(self._host, process_name())
                self._outage.end("start")
                return
            except (DBAPIError, psycopg.Error) as error:
                self._outage.begin("start", error, asked_at)
            self._stop.wait(backoff.next_seconds())

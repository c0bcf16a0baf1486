"""The process that runs all loops, a thread and a connection for each, until it is told to stop."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

import psycopg
from sqlalchemy.exc import DBAPIError

from ..db import Connection, connect_apart
from ..host import Host
from . import LOOPS
from .one_pass import Runner
from .shape import Loop

_log = logging.getLogger("flask_opsjobs.loops")
_SHORTEST_WAIT, _LONGEST_WAIT = 0.5, 10.0
# How long a pass may take to end after a stop; `up` kills after 10 s.
_GRACE_SECONDS = 8.0
_LOOK_SECONDS = 0.5
_SIGNALS = (signal.SIGTERM, signal.SIGINT)

Surround = Callable[[], AbstractContextManager[object]]


class Outage:
    """Postgres being away, as all loops of a process see it: said once, and once when it is over."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: float | None = None

    def begin(self, error: BaseException) -> None:
        """Postgres did not answer."""
        with self._lock:
            if self._since is None:
                self._since = time.monotonic()
                _log.error("Postgres is away (%s); the loops wait for it", type(error).__name__)

    def end(self) -> None:
        """Postgres answers."""
        with self._lock:
            if self._since is not None:
                away = time.monotonic() - self._since
                self._since = None
                _log.warning("Postgres is back after %.1f s; the loops go on", away)


class LoopThread(threading.Thread):
    """Runs one loop at its interval. A loop that is slow or stuck holds up no other."""

    def __init__(self, runner: Runner, stop: threading.Event, outage: Outage, surround: Surround):
        super().__init__(name=f"opsjobs-{runner.loop.name}", daemon=True)
        self._runner = runner
        self._stop_event = stop
        self._outage = outage
        self._surround = surround
        self._connection: Connection | None = None

    def run(self) -> None:
        """Pass after pass until stopped. Nothing that Postgres or a pass does ends the thread."""
        every = self._runner.loop.every_seconds(self._runner.host.settings)
        wait = _SHORTEST_WAIT
        while not self._stop_event.is_set():
            began = time.monotonic()
            try:
                has_more = self._pass()
            except (psycopg.Error, DBAPIError) as error:
                self._lose_connection(error)
                self._stop_event.wait(wait)
                wait = min(wait * 2, _LONGEST_WAIT)
                continue
            except Exception:
                _log.exception("loop %s failed and goes on", self._runner.loop.name)
                has_more = False
            wait = _SHORTEST_WAIT
            if not has_more:
                self._stop_event.wait(max(0.0, began + every - time.monotonic()))
        if self._connection is not None:
            self._connection.close()

    def _pass(self) -> bool:
        if self._connection is None or self._connection.closed:
            self._connection = connect_apart(self._runner.host.engine)
        with self._surround():
            has_more = self._runner.run_once(self._connection)
        self._outage.end()
        return has_more

    def _lose_connection(self, error: BaseException) -> None:
        self._outage.begin(error)
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class LoopsProcess:
    """All loops of one app in this process. `surround` is entered around each pass, such as the app's context."""

    def __init__(
        self, host: Host, loops: Iterable[Loop] = LOOPS, surround: Surround = nullcontext
    ) -> None:
        self._host = host
        self._stop = threading.Event()
        self._outage = Outage()
        self._threads = [
            LoopThread(Runner(loop, host), self._stop, self._outage, surround) for loop in loops
        ]

    @property
    def is_running(self) -> bool:
        """Whether nothing has told it to stop yet."""
        return not self._stop.is_set()

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; the exit code: 0, or 1 when a loop died or a pass did not end in time.

        Must be called in the main thread. Raises `SchemaBehind`. The signals are blocked and waited for, so that they
        break into nothing; a second one leaves at once.
        """
        self._wait_for_schema()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            for thread in self._threads:
                thread.start()
            is_well = self._watch()
            self._stop.set()
            return 0 if self._wait_for_threads() and is_well else 1
        finally:
            self._stop.set()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _watch(self) -> bool:
        """Until a signal comes; False when a thread ended by itself."""
        while not _is_told(_LOOK_SECONDS):
            for thread in self._threads:
                if not thread.is_alive():
                    _log.critical("the thread %s has died", thread.name)
                    return False
        return True

    def _wait_for_threads(self) -> bool:
        end = time.monotonic() + _GRACE_SECONDS
        while alive := [thread.name for thread in self._threads if thread.is_alive()]:
            if time.monotonic() >= end or _is_told(0.05):
                _log.error("left in the middle of a pass: %s", ", ".join(alive))
                return False
        return True

    def _wait_for_schema(self) -> None:
        """Wait until Postgres answers, and require our schema. Any signal ends this at once: nothing has begun."""
        wait = _SHORTEST_WAIT
        while True:
            try:
                self._host.require_schema()
                self._outage.end()
                return
            except DBAPIError as error:
                self._outage.begin(error)
            self._stop.wait(wait)
            wait = min(wait * 2, _LONGEST_WAIT)


def _is_told(seconds: float) -> bool:
    """Whether a signal to stop comes within so many seconds."""
    return signal.sigtimedwait(_SIGNALS, seconds) is not None

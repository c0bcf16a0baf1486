"""Runs all loops in one process, with a thread and a connection for each, until it is told to stop."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import psycopg
from sqlalchemy.exc import DBAPIError

from ..core.db import Connection, connect_apart, is_away
from ..engine.worker.declare import declare_limiters
from ..engine.worker.outage import Backoff, Outage
from ..host import Host
from . import LOOPS
from .one_pass import Runner, process_name
from .shape import Loop

_log = logging.getLogger("flask_opsjobs.loops")
# How long a pass may take to end after a stop; `up` kills after 10 s.
_GRACE_SECONDS = 8.0
_LOOK_SECONDS = 0.5
_SIGNALS = (signal.SIGTERM, signal.SIGINT)

Surround = Callable[[], AbstractContextManager[object]]


class LoopThread(threading.Thread):
    """Runs one loop at its interval. A loop that is slow or stuck holds up no other."""

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
        """Pass after pass until stopped. Nothing that Postgres or a pass does ends the thread."""
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
            self._connection.close()

    def _pass(self) -> bool:
        if self._connection is None or self._connection.closed:
            self._connection = connect_apart(self._runner.host.engine)
        with self._surround():
            return self._runner.run_once(self._connection)

    def _lose_connection(self, error: Exception, asked_at: float) -> None:
        """Forget the connection, since a session that was opened read-only stays so, and say why, once."""
        name = self._runner.loop.name
        if is_away(error):
            self._outage.begin(name, error, asked_at)
        elif type(error) is not self._last_failure:
            _log.error("loop %s failed and goes on", name, exc_info=error)
        self._last_failure = type(error)
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _recover(self) -> None:
        self._outage.end(self._runner.loop.name)
        self._backoff.reset()
        self._last_failure = None


class Signals:
    """SIGTERM and SIGINT while the block runs: each is heard when it is asked for, and breaks into nothing.

    They are blocked and waited for. A thread of the host's from before blocks none, and Linux may choose it while the
    main thread is not waiting: then the handler notes the signal, and without one the process would die of it.
    """

    def __init__(self) -> None:
        self._noted = 0
        self._handlers: dict[signal.Signals, Any] = {}
        self._mask: set[int | signal.Signals] = set()

    def __enter__(self) -> None:
        self._handlers = {number: signal.signal(number, self._note) for number in _SIGNALS}
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)

    def __exit__(self, *_: object) -> None:
        # The handlers last: what still comes in between is noted, not died of.
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        for number, handler in self._handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def comes_within(self, seconds: float) -> bool:
        """Whether one comes within so many seconds, or has come unheard."""
        if signal.sigtimedwait(_SIGNALS, seconds) is not None:
            return True
        has_come = self._noted > 0
        self._noted = 0
        return has_come

    def _note(self, *_: object) -> None:
        self._noted += 1


class LoopsProcess:
    """All loops of one app in this process. `surround` is entered around each pass, such as the app's context."""

    def __init__(
        self, host: Host, loops: Iterable[Loop] = LOOPS, surround: Surround = nullcontext
    ) -> None:
        self._host = host
        self._stop = threading.Event()
        self._signals = Signals()
        self._outage = Outage(_log, "the loops wait for it")
        self._threads = [
            LoopThread(Runner(loop, host), self._stop, self._outage, surround) for loop in loops
        ]

    @property
    def is_running(self) -> bool:
        """Whether nothing has told it to stop yet."""
        return not self._stop.is_set()

    def run(self, on_start: Callable[[], None] = lambda: None) -> int:
        """Run until SIGTERM or SIGINT; the exit code: 0, or 1 when a loop died or a pass did not end in time.

        Calls `on_start` as soon as the schema is known to be right. Must be called in the main thread. Raises
        `SchemaBehind` and `SchemaAhead`. A second signal leaves at once.
        """
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

    def _watch(self) -> bool:
        """Until a signal comes; False when a thread ended by itself."""
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
                _log.error("left in the middle of a pass: %s", ", ".join(alive))
                return False
        return True

    def _wait_for_schema(self) -> None:
        """Wait until Postgres answers, require our schema, declare limiters. Any signal ends this at once."""
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

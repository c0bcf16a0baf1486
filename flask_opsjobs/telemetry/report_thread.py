"""Sends reports in a thread of its own, so that a tracker that hangs holds up no job for long."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from ..host import TELEMETRY_THREAD

_log = logging.getLogger("flask_opsjobs.telemetry")
# How long a process waits for what it has to send.
PATIENCE_SECONDS = 2.0
# What waits beyond this while a tracker hangs is dropped.
_MOST_WAITING = 1000

Act = Callable[[], object]
Flush = Callable[[Any], object]


class ReportThread:
    """Runs acts one after the other in a thread, and what flushes them. The thread starts with the first one.

    A forked process has none of the reports of its parent.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._waiting: list[tuple[Act | None, Flush, Any]] = []
        self._is_busy = self._is_started = self._is_late = False

    def give(self, act: Act | None, flush: Flush, tracker: Any) -> None:
        """Let the thread run an act, if one is given, and then `flush(tracker)`: once for all that wait."""
        if self._pid != os.getpid():
            self._begin()
        with self._changed:
            if len(self._waiting) < _MOST_WAITING:
                self._waiting.append((act, flush, tracker))
            self._changed.notify_all()
        if not self._is_started:
            self._is_started = True
            threading.Thread(target=self._run, name=TELEMETRY_THREAD, daemon=True).start()

    def wait(self) -> None:
        """Wait until all is sent, for at most 2 s; not again while it is the same act that hangs."""
        if self._pid != os.getpid():
            return
        with self._changed:
            patience = 0.0 if self._is_late else PATIENCE_SECONDS
            self._is_late = not self._changed.wait_for(self._is_idle, patience)

    def _is_idle(self) -> bool:
        return not self._waiting and not self._is_busy

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                taken, self._waiting = self._waiting, []
                self._is_busy = True
            _run_all(taken)
            # It holds exceptions, and with them everything that their functions knew.
            taken.clear()
            with self._changed:
                self._is_busy = False
                self._changed.notify_all()


def _run_all(taken: list[tuple[Act | None, Flush, Any]]) -> None:
    for act, _, _ in taken:
        if act is not None:
            _try(act)
    for flush, tracker in dict.fromkeys((flush, tracker) for _, flush, tracker in taken):
        _try(partial(flush, tracker))


def _try(act: Act) -> None:
    try:
        act()
    except Exception as error:
        # Without the traceback: an error tracker that hears of it through logging fails again.
        _log.warning("telemetry was not sent: %s", type(error).__name__)

"""Limits the run time of a function with an alarm signal, which raises in the main thread."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

# The alarm repeats: a `__del__` or a bare `except` in a library may swallow the first exception.
_AGAIN_SECONDS = 5.0


class JobTimedOut(BaseException):
    """The function ran longer than its `timeout`.

    Not an `Exception`: `except Exception` must not catch it.
    """


class TimeLimit:
    """A block that raises `JobTimedOut` after some seconds. No limit with None, or outside the main thread.

    Uses SIGALRM and the real-time timer, and restores both. `disarm` may be called at any time. Code that
    catches `JobTimedOut` must call it, since the exception may be raised at the moment when the block is
    left.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._is_armed = False
        self._is_set = False
        self._started_at = 0.0
        self._handler_before: Any = None
        self._timer_before = (0.0, 0.0)

    def __enter__(self) -> TimeLimit:
        if self._seconds is None or threading.current_thread() is not threading.main_thread():
            return self
        self._started_at = time.monotonic()
        self._handler_before = signal.signal(signal.SIGALRM, self._raise)
        self._is_set = self._is_armed = True
        self._timer_before = signal.setitimer(signal.ITIMER_REAL, self._seconds, _AGAIN_SECONDS)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.disarm()

    def disarm(self) -> None:
        """Stop the timer, and restore the handler and the timer from before the block."""
        # This comes first: from here on, an alarm raises nothing.
        self._is_armed = False
        if not self._is_set:
            return
        self._is_set = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._handler_before)
        remaining, every = self._timer_before
        if remaining:
            elapsed = time.monotonic() - self._started_at
            signal.setitimer(signal.ITIMER_REAL, max(0.001, remaining - elapsed), every)

    def _raise(self, _number: int, _frame: FrameType | None) -> None:
        if self._is_armed:
            raise JobTimedOut(f"ran longer than {self._seconds:g} s")

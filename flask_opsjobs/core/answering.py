"""Remembers that a server did not answer, so that the next caller fails at once (circuit breaker)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

# After this time one caller asks a silent server again. All other callers fail at once.
_ASKED_AGAIN_SECONDS = 2.0


class Answering:
    """Knows whether one server answers.

    `answered_at` is the time of its last answer. `silent_since` is when this process first noticed that it
    does not answer, None while it does. The server fell silent between the two times, in which it was not
    asked.
    """

    def __init__(self) -> None:
        self.answered_at: datetime | None = None
        self.silent_since: datetime | None = None
        self._ask_again_at = 0.0

    @contextmanager
    def asking(
        self, is_silence: Callable[[BaseException], bool], at_once: Callable[[], Exception]
    ) -> Iterator[None]:
        """Enclose a request to the server. While the server is known to be silent, raise `at_once()` instead.

        `is_silence` tells whether an exception of the block means that the server does not answer.
        """
        if self.silent_since is not None:
            if time.monotonic() < self._ask_again_at:
                raise at_once()
            self._wait()
        try:
            yield
        except Exception as error:
            if is_silence(error):
                self.silent_since = self.silent_since or datetime.now(UTC)
                self._wait()
            raise
        self.silent_since, self.answered_at = None, datetime.now(UTC)

    def _wait(self) -> None:
        self._ask_again_at = time.monotonic() + _ASKED_AGAIN_SECONDS

"""What a process remembers of a server that did not answer, so that nobody waits for the same silence again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

# A silent server is asked again so much later, by one caller; all others are told the silence at once.
_ASKED_AGAIN_SECONDS = 2.0


class Answering:
    """Whether one server answers. `silent_since` is when this process first saw that it does not, None while it does;
    `answered_at` is its last answer. Between the two nobody asked.
    """

    def __init__(self) -> None:
        self.answered_at: datetime | None = None
        self.silent_since: datetime | None = None
        self._ask_again_at = 0.0

    @contextmanager
    def asking(
        self, is_silence: Callable[[BaseException], bool], at_once: Callable[[], Exception]
    ) -> Iterator[None]:
        """A block that asks the server. Raises `at_once()` without asking while the server is known to be silent."""
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

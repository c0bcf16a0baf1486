"""Holds what other threads tell the main thread of a worker, and wakes it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Where other threads leave news for the main thread, which polls `descriptors()[0]`."""

    def __init__(self) -> None:
        self._news: deque[T] = deque()
        self._read_fd, self._write_fd = os.pipe()
        for descriptor in (self._read_fd, self._write_fd):
            os.set_blocking(descriptor, False)
        # Whether the pipe holds a wake-up.
        self._is_woken = False

    def descriptors(self) -> tuple[int, int]:
        """Return the ends of the pipe: one to poll, one to write into."""
        return self._read_fd, self._write_fd

    @property
    def has_news(self) -> bool:
        """Return whether there are news that were not read."""
        return bool(self._news)

    def tell(self, news: T) -> None:
        """Leave news, and wake the main thread."""
        self._news.append(news)
        self.wake()

    def leave(self, news: T) -> None:
        """Leave news that the main thread reads when something else wakes it."""
        self._news.append(news)

    def wake(self) -> None:
        """Wake the main thread from its poll. Safe in a signal handler and in any thread."""
        if not self._is_woken:
            self._is_woken = True
            with suppress(BlockingIOError):  # the pipe is full of wake-ups already
                os.write(self._write_fd, b"!")

    def hush(self) -> None:
        """Take the wake-up out of the pipe, when the poll says that it is there."""
        with suppress(BlockingIOError):
            os.read(self._read_fd, 65_536)
        # In this order: who saw the flag before left its news before, and they are read now.
        self._is_woken = False

    def empty(self) -> Iterator[T]:
        """Yield the news that have come."""
        while self._news:
            yield self._news.popleft()

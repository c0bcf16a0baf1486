"""Calls the receivers of a worker's events, in a thread of its parent: no other thread waits for them."""

from __future__ import annotations

import logging
import threading
import time
from queue import SimpleQueue

from typing_extensions import override

from ...signals import Message, log_failed_receiver
from .forking import fork_lock

_log = logging.getLogger("flask_opsjobs.worker")
# So many events wait for slow receivers. What comes then is dropped, since outcomes must not wait.
_MOST = 10_000
# A fork waits so long for a receiver that runs, and it is put off no longer than the second.
_FORK_SECONDS = 0.01
_PUT_OFF_SECONDS = 1.0


class EventThread(threading.Thread):
    """Calls receivers one after the other. What they raise is logged and ends nothing."""

    def __init__(self) -> None:
        super().__init__(name="opsjobs-events", daemon=True)
        self._waiting: SimpleQueue[Message | None] = SimpleQueue()
        self._is_dropping = False
        self._idle = threading.Event()
        self._idle.set()
        self._called_at = 0.0

    def put(self, message: Message) -> None:
        """Queue an event, or drop it when too many wait."""
        is_full = self._waiting.qsize() >= _MOST
        if is_full and not self._is_dropping:
            self._say("events are dropped: their receivers are too slow, %d events wait", _MOST)
        self._is_dropping = is_full
        if not is_full:
            self._waiting.put(message)

    def lets_fork(self) -> bool:
        """Return whether a child may be forked now. The caller holds `fork_lock`, so that no call begins.

        A receiver takes locks that nobody would release in the child. One that takes too long is not waited
        for.
        """
        return self._idle.wait(_FORK_SECONDS) or (
            time.monotonic() - self._called_at > _PUT_OFF_SECONDS
        )

    def stop(self, timeout: float) -> bool:
        """Call the receivers of what waits, and end the thread; False, and log it, after `timeout` s."""
        self._waiting.put(None)
        self.join(timeout)
        if self.is_alive():
            self._say("the worker stops before %d events were sent", self._waiting.qsize())
        return not self.is_alive()

    @override
    def run(self) -> None:
        """Call receivers until stopped."""
        while (message := self._waiting.get()) is not None:
            with fork_lock:
                self._idle.clear()
                self._called_at = time.monotonic()
            try:
                message.send()
            except BaseException as error:  # a receiver may call `sys.exit`
                log_failed_receiver(message.signal, error)
            finally:
                self._idle.set()

    @staticmethod
    def _say(words: str, number: int) -> None:
        with fork_lock:
            _log.warning(words, number)

"""The recorder: the thread of a worker's parent that writes outcomes in flushes, refills the window and beats."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime

import psycopg
from redis import RedisError

from .. import endings
from ..db import Connection, connect_apart
from ..endings import Ended, Ending
from ..host import Host
from ..jobs.outcomes import Outcome
from .dispatch import read_clock
from .horse import fork_lock
from .pulse import Progress, Pulse, write_progress
from .refill import Refill

_log = logging.getLogger("flask_opsjobs.worker")

# A first outcome is written at once; the next ones gather for this long: 0.73 ms alone, 0.03 ms in fifties.
_LINGER_SECONDS = 0.02
_RECONNECT_SECONDS = 0.5


class Recorder(threading.Thread):
    """Owns the connection that finishes. The main thread submits and never waits, but for `drain`."""

    def __init__(self, host: Host, pulse: Pulse, wake: Callable[[], None]) -> None:
        super().__init__(name="opsjobs-recorder", daemon=True)
        self._host = host
        self._pulse = pulse
        self._wake = wake
        self._connection: Connection | None = None
        self._changed = threading.Condition()
        self._pending: deque[Ending] = deque()
        self._progress: dict[tuple[int, int], Progress] = {}
        self._is_idle = True
        self._is_stopping = False
        self._has_asked = False
        self._refiller = Refill(host, self._say_not_refilled)

    def submit(self, ending: Ending) -> None:
        """Take an outcome to write. Until it is written the delivery counts as held."""
        with self._changed:
            self._pending.append(ending)
            self._progress.pop((ending.id, ending.dispatch_no), None)
            self._changed.notify_all()

    def tell(self, progress: Progress) -> None:
        """Take how far a job is; only the newest is written, with the next flush."""
        with self._changed:
            self._progress[progress.key] = progress
            self._changed.notify_all()

    def beat_now(self) -> None:
        """Beat without waiting for the time to come."""
        with self._changed:
            self._pulse.hurry()
            self._changed.notify_all()

    def drain(self, timeout: float) -> bool:
        """Wait until everything submitted is written; False when it took longer than `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._pending and self._is_idle, timeout)

    def stop(self, timeout: float) -> bool:
        """Write what is left, end the thread, and say that the executor has stopped; False when it took too long."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        self.join(timeout)
        return not self.is_alive()

    def run(self) -> None:
        """Flush and beat until stopped; nothing that Postgres or Redis do ends the thread."""
        flushed_at = 0.0
        while True:
            self._wait_for_work(flushed_at)
            try:
                had_work = self._flush()
                self._pulse.beat_if_due(self._connected(), self._wake)
            except psycopg.OperationalError as error:
                self._lose_connection(error)
                had_work = False
            except LookupError as error:
                self._say(logging.ERROR, "%s", error)
                self._ask_to_stop()
                had_work = False
            except Exception:
                self._say(logging.ERROR, "the recorder failed and goes on", exc_info=True)
                had_work = False
            if had_work:
                flushed_at = time.monotonic()
            if self._is_done():
                break
        self._leave()

    def _wait_for_work(self, flushed_at: float) -> None:
        with self._changed:
            self._is_idle = True
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: (
                    self._pending
                    or self._progress
                    or self._is_stopping
                    or self._pulse.due_in() <= 0
                ),
                max(0.0, self._pulse.due_in()),
            )
            linger = flushed_at + _LINGER_SECONDS - time.monotonic()
            if linger > 0 and not self._is_stopping:
                self._changed.wait_for(lambda: self._is_stopping, linger)
            self._is_idle = False

    def _flush(self) -> bool:
        with self._changed:
            batch = list(self._pending)
            progress, self._progress = list(self._progress.values()), {}
        if not batch and not progress:
            return False
        connection = self._connected()
        now = read_clock(connection)
        if progress:
            write_progress(connection, progress)
        ended = self._write(connection, batch, now) if batch else []
        with self._changed:
            for ending in batch:
                self._pending.remove(ending)
                self._pulse.release(ending.id, ending.dispatch_no)
        self._refiller.refill(connection, ended, now)
        return True

    def _write(self, connection: Connection, batch: list[Ending], now: datetime) -> list[Ended]:
        try:
            return endings.record(connection, batch, now)
        except psycopg.OperationalError:
            raise
        except psycopg.Error:
            # One of them cannot be written. Alone, the others can.
            return [
                ended for ending in batch for ended in self._write_alone(connection, ending, now)
            ]

    def _write_alone(self, connection: Connection, ending: Ending, now: datetime) -> list[Ended]:
        try:
            return endings.record(connection, [ending], now)
        except psycopg.OperationalError:
            raise
        except psycopg.Error as error:
            self._say(
                logging.ERROR,
                "the outcome of job %d cannot be written: %s",
                ending.id,
                type(error).__name__,
            )
            why = (
                f"its outcome ({ending.outcome.kind}) could not be written: {type(error).__name__}"
            )
            lost = Outcome(kind="raised", error=why, reason=why, ended_by="unrecordable")
            plain = Ending(ending.id, ending.dispatch_no, ending.executor_id, ending.executor, lost)
            return endings.record(connection, [plain], now)

    def _say_not_refilled(self, queue: str, error: RedisError) -> None:
        self._say(
            logging.WARNING, "the window of %s was not refilled: %s", queue, type(error).__name__
        )

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            # Under the lock: the resolver and the driver take locks that must not be held at a fork.
            with fork_lock:
                self._connection = connect_apart(self._host.engine)
        return self._connection

    def _lose_connection(self, error: Exception) -> None:
        self._say(logging.WARNING, "Postgres is away (%s); outcomes are held", type(error).__name__)
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_stopping and not self._pending, _RECONNECT_SECONDS
            )

    def _ask_to_stop(self) -> None:
        # Once: the worker takes a second signal for haste.
        if not self._has_asked:
            self._has_asked = True
            os.kill(os.getpid(), signal.SIGTERM)

    def _is_done(self) -> bool:
        with self._changed:
            return self._is_stopping and not self._pending

    def _leave(self) -> None:
        try:
            self._pulse.stop(self._connected())
            self._connected().close()
        except psycopg.Error as error:
            self._say(logging.WARNING, "left without saying so: %s", type(error).__name__)

    def _say(self, level: int, message: str, *values: object, exc_info: bool = False) -> None:
        with fork_lock:
            _log.log(level, message, *values, exc_info=exc_info)

"""Writes outcomes in batches, advances workflows and sends heartbeats, in a thread of a worker's parent."""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple

import psycopg
from redis import RedisError
from typing_extensions import override

from ... import endings
from ...core.db import Connection, descriptors_of, is_away, set_patience
from ...core.outage import Backoff, Outage
from ...core.reading import read_clock
from ...core.steady_clock import steady_seconds
from ...endings import EndedAttempt, MovedJob
from ...endings.pending import TURN_SECONDS, Pending
from ...endings.pending_batches import PendingBatches
from ...endings.pending_runs import PendingRuns
from ...host import Host
from ...jobs.perform.outcomes import Outcome
from ...workers.transitions import WorkerRemoved
from ..dispatch.dispatch import Refill
from .claim import LimitedLane
from .forking import PATIENCE_SECONDS, connect_while_forking, fork_lock
from .heartbeat import Heartbeat, Progress, write_progress
from .plain_runs import PlainRuns
from .turn import PAUSE_SECONDS, Turn

_log = logging.getLogger("flask_opsjobs.worker")

# The first outcome is written at once, later ones are collected for this long: an outcome costs 0.73 ms
# alone, and 0.03 ms in a batch of fifty.
_LINGER_SECONDS = 0.02
# So many outcomes are written at once: in a larger batch each costs no less.
_ENOUGH = 100
# Backpressure: a worker takes another job only while its unwritten outcomes are younger than this. A job
# whose outcome is never written is performed again by another worker, which counts as an attempt.
_OLDEST_UNWRITTEN_SECONDS = 5.0
_THREAD = "recorder"


_Write = Callable[..., list[MovedJob]]


class _Moment(NamedTuple):
    """One moment by Postgres' clock and by `steady_seconds`."""

    now: datetime
    steady: float


class Recorder(threading.Thread):
    """Owns the connection on which outcomes are written. The main thread submits and does not wait."""

    def __init__(
        self,
        host: Host,
        heartbeat: Heartbeat,
        outage: Outage,
        wake: Callable[[], None],
        written: Callable[[int], None] = lambda _number: None,
        offer: Callable[[Sequence[LimitedLane]], None] | None = None,
        plain_runs: PlainRuns | None = None,
    ) -> None:
        """`wake` is called when a job of the worker shall stop, and when outcomes were written in a hurry.

        `written` is called when outcomes were written. `offer` gets the lanes in which a limiter has room
        again, once for each job that ended; who gets them claims the next jobs, or passes them to
        `dispatch_lanes`. Without it they are dispatched. Without `plain_runs`, those are not kept.
        """
        super().__init__(name="opsjobs-recorder", daemon=True)
        self._host = host
        self._heartbeat = heartbeat
        self._outage = outage
        self._backoff = Backoff()
        self._turn = Turn(_THREAD, self._is_connected)
        self._wake = wake
        self._written = written
        self._offer = offer
        self._connection: Connection | None = None
        self._changed = threading.Condition()
        self._collected: list[EndedAttempt] = []
        self._is_collected_urgent = False
        # Outcomes to write, and when each was submitted, by the monotonic clock.
        self._pending: deque[tuple[EndedAttempt, float]] = deque()
        # So long ago that the first outcomes are written at once, also when the machine has just started.
        self._flushed_at = -math.inf
        # How many of the first of these are being written now.
        self._writing = 0
        self._progress: dict[tuple[int, int], Progress] = {}
        self._plain_runs = plain_runs
        self._given_back: list[MovedJob] = []
        self._to_dispatch: list[tuple[str, str]] = []
        self._is_dispatching = False
        # How often the jobs of these two were dispatched.
        self.dispatches = 0
        # Whether somebody waits until all is written.
        self.is_hurried = False
        # Set while something does not linger: a stop, or an outcome that somebody waits for.
        self._is_urgent = threading.Event()
        self._stopping = threading.Event()
        self._has_asked = False
        self._refiller = Refill(host, self._say_whether_dispatched)
        # The runs and batches whose jobs it ended. One that it does not advance is left to its loop, a batch
        # that still has open members to those who end them.
        self._to_advance: tuple[Pending, ...] = (
            PendingRuns(host.settings.max_args_bytes),
            PendingBatches(only_last=True),
        )

    def collect(self, ending: EndedAttempt, *, is_urgent: bool = False) -> None:
        """Keep an outcome for the next `submit`. For one thread only; it costs no lock for each job.

        `is_urgent`: it does not linger. Somebody wished this end, or other jobs may wait for its place in a
        limiter.
        """
        self._collected.append(ending)
        self._is_collected_urgent = self._is_collected_urgent or is_urgent

    def submit(self) -> None:
        """Queue what was collected to be written. Until it is written, the worker holds the jobs."""
        if not self._collected:
            return
        now = time.monotonic()
        endings, self._collected = self._collected, []
        with self._changed:
            for ending in endings:
                self._pending.append((ending, now))
                if self._progress:
                    self._progress.pop((ending.id, ending.dispatch_no), None)
            if self._is_collected_urgent or len(self._pending) - self._writing >= _ENOUGH:
                self._is_urgent.set()
            self._changed.notify_all()
        self._is_collected_urgent = False

    def keep_plain_run(self, run: bytes) -> None:
        """Keep the record of how a plain RQ job ended, to be written later. Nobody waits for it."""
        if self._plain_runs is not None and self._plain_runs.add(run):
            with self._changed:
                self._changed.notify_all()

    def note_given_back(self, moved: Sequence[MovedJob]) -> None:
        """Queue jobs that were given back: their lanes are dispatched, since other workers may be idle."""
        with self._changed:
            self._given_back += moved
            self._changed.notify_all()

    def dispatch_lanes(self, lanes: Sequence[tuple[str, str]]) -> None:
        """Queue (lane, queue) pairs in which limited jobs may be due, to be dispatched."""
        with self._changed:
            self._to_dispatch += lanes
            self._changed.notify_all()

    def offer_no_more(self) -> None:
        """Dispatch the lanes in which a limiter has room again."""
        with self._changed:
            self._offer = None

    def tell(self, progress: Progress) -> None:
        """Queue the progress of a job. Only the newest is written, with the next flush."""
        with self._changed:
            self._progress[progress.key] = progress
            self._changed.notify_all()

    def announce_stop(self) -> None:
        """Read at once which jobs of the worker shall stop."""
        with self._changed:
            self._heartbeat.is_stop_announced = True
            self._is_urgent.set()
            self._changed.notify_all()

    def beat_now(self) -> None:
        """Send a heartbeat at once."""
        with self._changed:
            self._heartbeat.beat_now()
            self._changed.notify_all()

    @property
    def has_unwritten(self) -> bool:
        """Return whether outcomes are not written yet."""
        return bool(self._collected or self._pending)

    @property
    def has_to_dispatch(self) -> bool:
        """Return whether jobs wait to be dispatched: some may be neither due nor in Redis right now."""
        return bool(self._is_dispatching or self._given_back or self._to_dispatch)

    def keeps_up(self) -> bool:
        """Return whether the worker may take more: not while an outcome or a heartbeat is over 5 s late."""
        pending = self._pending
        try:
            _, oldest = pending[0]
        except IndexError:
            oldest = time.monotonic()
        late = max(time.monotonic() - oldest, -self._heartbeat.due_in())
        return late <= _OLDEST_UNWRITTEN_SECONDS

    def stop(self, timeout: float) -> bool:
        """Write what is left, record the stop, and end the thread. Returns False after `timeout` seconds."""
        with self._changed:
            self._stopping.set()
            self._is_urgent.set()
            if self._connection is not None:
                set_patience(self._connection, PATIENCE_SECONDS)
            self._changed.notify_all()
        self.join(timeout)
        return not self.is_alive()

    @override
    def run(self) -> None:
        """Flush and send heartbeats until stopped. Errors of Postgres or Redis do not end the thread."""
        while True:
            self._wait_for_work()
            asked_at = time.monotonic()
            try:
                is_well = self._turn.make(
                    self._look_for_stops,  # first: a job that shall stop runs until then
                    self._flush,
                    self._beat,
                    self._advance,
                    self._dispatch_given_back,
                    self._dispatch_rest,
                    self._write_plain_runs,
                )
            except WorkerRemoved as error:
                self._ask_to_stop(error)
                self._pause(self._backoff.next_seconds())
            except Exception as error:
                self._outage.begin(_THREAD, error, asked_at)
                self._lose_connection()
                self._pause(self._backoff.next_seconds())
            else:
                self._outage.end(_THREAD)
                self._backoff.reset()
                if not is_well:
                    self._lose_connection()
                    self._pause(PAUSE_SECONDS)
            if self._is_done():
                break
        self._leave()

    def _look_for_stops(self) -> None:
        self._heartbeat.look_for_stops(self._connected(), self._wake)

    def _beat(self) -> None:
        self._heartbeat.beat_if_due(self._connected(), self._wake)

    def _wait_for_work(self) -> None:
        with self._changed:
            while not self._has_work():
                # What comes meanwhile may be due sooner than all that was known before.
                if not self._changed.wait(self._idle_seconds()):
                    break
        if not self.is_hurried and self._heartbeat.due_in() > 0:
            # Outcomes that come now wake nobody: the main thread would wait for a thread that waits on.
            self._is_urgent.wait(max(0.0, self._flushed_at + _LINGER_SECONDS - time.monotonic()))

    def _has_work(self) -> bool:
        return bool(
            self._pending
            or self._progress
            or self._given_back
            or self._to_dispatch
            or self._heartbeat.is_stop_announced
            or self._stopping.is_set()
            or self._heartbeat.due_in() <= 0
            or self._plain_due_in() <= 0
        )

    def _idle_seconds(self) -> float:
        """Return when there is work even if nothing comes."""
        due = (
            self._heartbeat.due_in(),
            self._refiller.due_in(),
            self._plain_due_in(),
            *(pending.due_in() for pending in self._to_advance),
        )
        return max(0.0, min(due))

    def _write_plain_runs(self) -> None:
        """Write how runs of plain jobs ended, last of all."""
        if self._plain_due_in() <= 0 and self._plain_runs is not None:
            self._plain_runs.write(self._connected())

    def _plain_due_in(self) -> float:
        return math.inf if self._plain_runs is None else self._plain_runs.due_in()

    def _flush(self) -> None:
        with self._changed:
            is_urgent = self._is_urgent.is_set()
            if not self._stopping.is_set():
                self._is_urgent.clear()
            batch = [ending for ending, _ in self._pending]
            self._writing = len(batch)
            has_progress = bool(self._progress)
        if not batch and not has_progress:
            return
        connection = self._connected()
        # In this order: an end may seem later than it was by the time of the question, but never earlier.
        steady_now = steady_seconds()
        now = read_clock(connection)
        self._write_progress(connection)
        ended = self._write(connection, batch, _Moment(now, steady_now)) if batch else []
        offered = self._offer_lanes(ended)
        with self._changed:
            for _ in batch:
                self._pending.popleft()
            self._writing = 0
        self._heartbeat.release((ending.id, ending.dispatch_no) for ending in batch)
        self._written(len(batch))
        self._refiller.refill(connection, ended, now, offered)
        for pending in self._to_advance:
            pending.note(ended)
        self._flushed_at = time.monotonic()
        if is_urgent or self.is_hurried:
            self._wake()

    def _offer_lanes(self, ended: Sequence[MovedJob]) -> Sequence[LimitedLane]:
        """Offer the lanes in which a limiter has a place. When the jobs are released, a burst may end."""
        lanes = [LimitedLane(job.lane, job.queue) for job in ended if job.is_limited]
        with self._changed:
            if not lanes or self._offer is None:
                return ()
            self._offer(lanes)
            return lanes

    def _advance(self) -> None:
        """Advance runs and fold batches, after outcomes and heartbeats; not when the worker stops."""
        until = time.monotonic() + TURN_SECONDS
        for pending in self._to_advance:
            if pending.due_in() > 0 or self._stopping.is_set():
                continue
            connection = self._connected()
            if lanes := pending.advance(connection, until - time.monotonic()):
                self._refiller.dispatch(connection, lanes, read_clock(connection))

    def _dispatch_given_back(self) -> None:
        """Dispatch the lanes of jobs that wait again; some that were given back may have ended instead."""
        with self._changed:
            self._is_dispatching = bool(self._given_back or self._to_dispatch)
            moved, self._given_back = self._given_back, []
            lanes, self._to_dispatch = dict.fromkeys(self._to_dispatch), []
        if not moved and not lanes:
            return
        try:
            for pending in self._to_advance:
                pending.note(moved)
            lanes |= dict.fromkeys((job.lane, job.queue) for job in moved if not job.is_final)
            connection = self._connected()
            self._refiller.dispatch(connection, lanes, read_clock(connection))
        finally:
            self.dispatches += 1
            self._is_dispatching = False
            self._wake()  # a burst may be over

    def _dispatch_rest(self) -> None:
        """Dispatch limited lanes of queues in which jobs ended; not when the worker stops."""
        if self._refiller.due_in() <= 0 and not self._stopping.is_set():
            connection = self._connected()
            self._refiller.dispatch_rest(connection, read_clock(connection))

    def _write_progress(self, connection: Connection) -> None:
        with self._changed:
            progress, self._progress = self._progress, {}
        if progress:
            write_progress(connection, progress.values())

    def _write(
        self, connection: Connection, batch: list[EndedAttempt], moment: _Moment
    ) -> list[MovedJob]:
        plain = [ending for ending in batch if ending.is_plain]
        others = [ending for ending in batch if not ending.is_plain]
        return [
            *self._write_together(endings.finish, connection, plain, moment),
            *self._write_together(endings.write_outcomes, connection, others, moment),
        ]

    def _write_together(
        self, write: _Write, connection: Connection, batch: list[EndedAttempt], moment: _Moment
    ) -> list[MovedJob]:
        if not batch:
            return []
        try:
            return write(connection, batch, moment.now, steady_now=moment.steady)
        except psycopg.Error as error:
            if _passes(error):
                raise
            # An outcome of the batch cannot be written. Write each alone, so that the others are kept.
            return [
                ended for ending in batch for ended in self._write_alone(connection, ending, moment)
            ]

    def _write_alone(
        self, connection: Connection, ending: EndedAttempt, moment: _Moment
    ) -> list[MovedJob]:
        try:
            return self._write_one(connection, ending, moment)
        except psycopg.Error as error:
            if _passes(error):
                raise
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
            plain = EndedAttempt(
                ending.id,
                ending.dispatch_no,
                ending.worker_id,
                ending.worker,
                lost,
                attempt=ending.attempt,
            )
            return self._write_one(connection, plain, moment)

    @staticmethod
    def _write_one(connection: Connection, ending: EndedAttempt, moment: _Moment) -> list[MovedJob]:
        return endings.write_outcomes(connection, [ending], moment.now, steady_now=moment.steady)

    def _say_whether_dispatched(self, error: RedisError | None) -> None:
        if error is None:
            self._say(logging.WARNING, "due jobs are pushed to Redis again")
            return
        self._say(
            logging.WARNING,
            "due jobs were not pushed to Redis (%s); the dispatch loop does it, or a worker takes them",
            type(error).__name__,
        )

    def descriptors(self) -> list[int]:
        """Return the descriptor of its connection, which a child must let go."""
        return descriptors_of(self._connection)

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            with fork_lock:
                self._connection = connect_while_forking(self._host)
        return self._connection

    def _is_connected(self) -> bool:
        return self._connection is not None and not self._connection.closed

    def _lose_connection(self) -> None:
        """Close the connection. Outcomes that are not written are kept."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping.is_set() and not self._pending, seconds)

    def _ask_to_stop(self, error: WorkerRemoved) -> None:
        # Sent only once: a second signal would kill the running job.
        if not self._has_asked:
            self._has_asked = True
            self._say(logging.ERROR, "%s", error)
            os.kill(os.getpid(), signal.SIGTERM)

    def _is_done(self) -> bool:
        with self._changed:
            return self._stopping.is_set() and not self._pending

    def _leave(self) -> None:
        try:
            if self._plain_runs is not None:
                self._plain_runs.write_all(self._connected())
            self._heartbeat.stop(self._connected())
            self._connected().close()
        except psycopg.Error as error:
            self._say(
                logging.WARNING,
                "the worker left without recording its stop: %s",
                type(error).__name__,
            )

    def _say(self, level: int, message: str, *values: object) -> None:
        with fork_lock:
            _log.log(level, message, *values)


def _passes(error: psycopg.Error) -> bool:
    """Return whether a retry may succeed: Postgres is away, or it was a deadlock or a time-out."""
    return is_away(error) or isinstance(error, psycopg.OperationalError)

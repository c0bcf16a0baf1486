"""Sends heartbeats, which report the jobs that a worker holds and tell it what somebody asked of it."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

from ... import endings
from ...core import sql
from ...core.db import Connection
from ...core.reading import read_clock
from ...lifeline.disown import rescue_disowned
from ...workers import transitions as workers
from ...workers.pool_report import PoolReport
from .forking import fork_lock
from .left_children import LeftChildren

_log = logging.getLogger("flask_opsjobs.worker")

# The reasons why a job of this worker shall stop.
CANCELED = "canceled"
LOST = "its job was rescued while this worker was silent"
_RECORDED = (
    "job %d: its end was recorded %.3f s after this worker knew that somebody wished to stop it"
)


@dataclass(frozen=True)
class Progress:
    """The progress of a job: `done` of `total`, and a note."""

    id: int
    dispatch_no: int
    done: int | None
    total: int | None
    note: str | None

    @property
    def key(self) -> tuple[int, int]:
        """Return the delivery: (job id, dispatch number)."""
        return self.id, self.dispatch_no


class EndedJobs(NamedTuple):
    """The managed jobs that ended in a worker since it started, and how long they took. RQ counts its own."""

    finished: int = 0
    failed: int = 0
    seconds: float = 0.0


class Heartbeat:
    """The state of a worker's heartbeat.

    It knows what the worker holds: jobs that are reserved, that run, or whose end is not written yet. The
    threads of the worker share it. Safe in threads.
    """

    def __init__(
        self,
        worker_id: int,
        heartbeat_seconds: float,
        look_at_loops: Callable[[Connection, datetime], None] = lambda _connection, _now: None,
    ) -> None:
        """`look_at_loops` is called after each heartbeat, with the time that it bears."""
        self.worker_id = worker_id
        self._look_at_loops = look_at_loops
        self._heartbeat_seconds = heartbeat_seconds
        self._lock = threading.Lock()
        self._heartbeat_no = 0
        self._due_at = time.monotonic() + heartbeat_seconds
        # By delivery, whether it runs.
        self._held: dict[tuple[int, int], bool] = {}
        self._counts: Counter[str] = Counter()
        self.left_children = LeftChildren()
        self._pool = PoolReport()
        self._jobs = EndedJobs()
        self._wanted: dict[tuple[int, int], str] = {}
        # Whether somebody said that a job shall stop, and which one was not read yet.
        self.is_stop_announced = False
        # Since when this process has known that somebody wishes to stop a job, by the monotonic clock.
        self._known_at: dict[tuple[int, int], float] = {}
        # Whether jobs shall stop since `stops_wanted` was asked last.
        self.has_new_stops = False
        self._suspects: set[tuple[int, int]] = set()
        # Whether somebody asked the worker to leave.
        self.is_drained = False

    def reserve(self, deliveries: Iterable[tuple[int, int]]) -> None:
        """Note that the worker holds these: from their reservation until their end is written."""
        with self._lock:
            self._held |= dict.fromkeys(deliveries, False)

    def reserve_new(self, deliveries: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """Note that the worker holds these; return those that it did not hold before."""
        with self._lock:
            new = dict.fromkeys((each for each in deliveries if each not in self._held), False)
            self._held |= new
        return list(new)

    def run(self, delivery: tuple[int, int]) -> None:
        """Note that it runs: each heartbeat checks from now on that the job is still ours."""
        with self._lock:
            self._held[delivery] = True

    def release(self, deliveries: Iterable[tuple[int, int]]) -> None:
        """Note that their ends are written, or that they were given back."""
        told: dict[tuple[int, int], float] = {}
        with self._lock:
            for delivery in deliveries:
                self._held.pop(delivery, None)
                self._wanted.pop(delivery, None)
                if (known_at := self._known_at.pop(delivery, None)) is not None:
                    told[delivery] = time.monotonic() - known_at
        for (job_id, _), seconds in told.items():
            with fork_lock:
                _log.info(_RECORDED, job_id, seconds)

    def holds(self, delivery: tuple[int, int]) -> bool:
        """Return whether the worker holds this delivery."""
        return delivery in self._held

    def count_held(self) -> int:
        """Return how many jobs the worker holds."""
        return len(self._held)

    def count(self, word: str) -> None:
        """Count an event for the next heartbeat, such as the reason why a delivery was not claimed."""
        with self._lock:
            self._counts[word] += 1

    def report(self, pool: PoolReport, jobs: EndedJobs) -> None:
        """Let the next heartbeat tell this of the worker."""
        self._pool, self._jobs = pool, jobs

    def stops_wanted(self) -> dict[tuple[int, int], str]:
        """Return which of the held jobs shall stop, each with the reason, `CANCELED` or `LOST`."""
        with self._lock:
            self.has_new_stops = False
            return dict(self._wanted)

    def beat_now(self) -> None:
        """Make the next heartbeat due now."""
        with self._lock:
            self._be_due_now()

    def look_for_stops(self, connection: Connection, wake: Callable[[], None]) -> None:
        """Read which jobs shall stop, when that was announced. Calls `wake` as `beat_if_due` does.

        It is told without a heartbeat, because that is a write. When it cannot be read, it stays announced.
        """
        if not self.is_stop_announced:
            return
        # In this order: what is announced after the question is asked again.
        self.is_stop_announced = False
        try:
            asked = workers.read_requests(connection, self.worker_id)
        except BaseException:
            self.is_stop_announced = True
            raise
        with self._lock:
            why = self._wanted | dict.fromkeys(asked.stops, CANCELED)
            if any(key not in self._held for key in asked.stops):
                # Another thread has just reserved it, and has not noted it yet.
                self._be_due_now()
        self._want_stops(why, wake)
        self._note_drain(asked, wake)

    def due_in(self) -> float:
        """Return the seconds until the next heartbeat; below 0 while an overdue one is not yet written."""
        with self._lock:
            return self._due_at - time.monotonic()

    def beat_if_due(self, connection: Connection, wake: Callable[[], None]) -> None:
        """Write a heartbeat when it is due. Calls `wake` when a job of the main thread shall stop. Commits.

        When the heartbeat cannot be written, it stays due and the error is raised.
        """
        if self.due_in() > 0:
            return
        with self._lock:
            was_due_at, self._due_at = self._due_at, time.monotonic() + self._heartbeat_seconds
        try:
            self._write_heartbeat(connection, wake)
        except BaseException:
            with self._lock:
                self._due_at = was_due_at
            raise

    def _write_heartbeat(self, connection: Connection, wake: Callable[[], None]) -> None:
        now = read_clock(connection)
        with self._lock:
            self._heartbeat_no += 1
            reserved = [f"{job_id}-{number}" for job_id, number in self._held]
            running = [delivery for delivery, runs in self._held.items() if runs]
            counts = dict(self._counts)
        asked = workers.record_heartbeat(
            connection,
            self.worker_id,
            workers.HeartbeatReport(
                self._heartbeat_no,
                reserved=reserved,
                rss_kb=_rss_kb(),
                counts=counts,
                left_children=self.left_children.report(),
                pool=_with_memory(self._pool),
                jobs_finished=self._jobs.finished,
                jobs_failed=self._jobs.failed,
                work_seconds=self._jobs.seconds,
            ),
            now,
        )
        why = dict.fromkeys(asked.stops, CANCELED)
        self._want_stops(why, wake)  # what follows may take a while
        self._note_drain(asked, wake)
        lost = workers.find_lost(connection, self.worker_id, running)
        self._want_stops(why | dict.fromkeys(lost, LOST), wake)
        self._suspects = rescue_disowned(connection, self.worker_id, reserved, self._suspects, now)
        self._look_at_loops(connection, now)

    def _want_stops(self, why: Mapping[tuple[int, int], str], wake: Callable[[], None]) -> None:
        with self._lock:
            self._wanted = {key: why[key] for key in why if key in self._held}
            now = time.monotonic()
            self._known_at = {
                key: self._known_at.get(key, now)
                for key, reason in self._wanted.items()
                if reason == CANCELED
            }
            self.has_new_stops = bool(self._wanted)
        if self.has_new_stops:
            wake()

    def _note_drain(self, asked: workers.Requests, wake: Callable[[], None]) -> None:
        if asked.is_drained and not self.is_drained:
            self.is_drained = True
            wake()

    def _be_due_now(self) -> None:
        self._due_at = min(self._due_at, time.monotonic())

    def stop(self, connection: Connection) -> None:
        """Record that the worker has stopped, and rescue the jobs that it still has. Commits."""
        now = read_clock(connection)
        endings.rescue(connection, [self.worker_id], now, endings.WORKER_STOPPED)
        endings.rescue_reserved(connection, [self.worker_id], now, now)
        workers.stop(connection, self.worker_id, now)


def write_progress(connection: Connection, progress: Iterable[Progress]) -> None:
    """Write the progress of jobs. Commits."""
    rows = list(progress)
    connection.execute(
        sql.load("write_progress"),
        {
            "ids": [row.id for row in rows],
            "dispatch_nos": [row.dispatch_no for row in rows],
            "done": [row.done for row in rows],
            "total": [row.total for row in rows],
            "notes": [row.note for row in rows],
        },
    )


def _with_memory(pool: PoolReport) -> PoolReport:
    """Return the report with the memory of each child that still runs."""
    return replace(pool, children=[replace(one, rss_kb=_rss_kb(one.pid)) for one in pool.children])


def _rss_kb(pid: int | str = "self") -> int | None:
    try:
        with open(f"/proc/{pid}/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
    except OSError:
        return None

"""Sends heartbeats, which report a worker's reserved jobs and run time and tell it which jobs shall stop."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ... import endings
from ...core import sql
from ...core.db import Connection
from ...core.reading import read_clock
from ...lifeline.disown import rescue_disowned
from ...workers import transitions as workers

# The reasons why a job that runs here shall stop.
CANCELED = "canceled"
LOST = "its job was rescued while this worker was silent"

# The prefetch is computed from the median run time of this many jobs.
_SAMPLE = 50


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


class Heartbeat:
    """The state of a worker's heartbeat.

    The main thread, which claims, and the recorder, which sends, share it. Safe in threads.
    """

    def __init__(self, worker_id: int, heartbeat_seconds: float) -> None:
        self.worker_id = worker_id
        self._heartbeat_seconds = heartbeat_seconds
        self._lock = threading.Lock()
        self._heartbeat_no = 0
        self._due_at = time.monotonic() + heartbeat_seconds
        # By delivery, whether its claim is committed.
        self._reserved: dict[tuple[int, int], bool] = {}
        self._runs: deque[float] = deque(maxlen=_SAMPLE)
        self._sent_run_seconds: float | None = None
        self._counts: Counter[str] = Counter()
        self._wanted: dict[tuple[int, int], str] = {}
        self._suspects: set[tuple[int, int]] = set()

    def reserve(self, job_id: int, dispatch_no: int) -> None:
        """Note a delivery as reserved: from before its claim until its outcome is written."""
        with self._lock:
            self._reserved[job_id, dispatch_no] = False

    def own(self, job_id: int, dispatch_no: int) -> None:
        """Note that its claim is committed: each heartbeat checks from now on that the job is still ours."""
        with self._lock:
            self._reserved[job_id, dispatch_no] = True

    def release(self, job_id: int, dispatch_no: int) -> None:
        """Note that its outcome is written, or that it was not claimed."""
        with self._lock:
            self._reserved.pop((job_id, dispatch_no), None)
            self._wanted.pop((job_id, dispatch_no), None)

    def count(self, word: str) -> None:
        """Count an event for the next heartbeat, such as the reason why a delivery was not claimed."""
        with self._lock:
            self._counts[word] += 1

    def note_run(self, seconds: float) -> None:
        """Note how long a job ran.

        When the median has halved or doubled since the last heartbeat, the next one is sent at once.
        """
        with self._lock:
            self._runs.append(max(seconds, 0.0005))
            median = statistics.median(self._runs)
            sent = self._sent_run_seconds
            if len(self._runs) in (5, _SAMPLE) and (sent is None or not 0.5 < median / sent < 2):
                self._be_due_now()

    def stop_wanted(self, job_id: int, dispatch_no: int) -> str | None:
        """Return why this running job shall stop, `CANCELED` or `LOST`; None when it shall go on."""
        with self._lock:
            return self._wanted.get((job_id, dispatch_no))

    def beat_now(self) -> None:
        """Make the next heartbeat due now."""
        with self._lock:
            self._be_due_now()

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
            reserved = [f"{job_id}-{number}" for job_id, number in self._reserved]
            running = [delivery for delivery, is_claimed in self._reserved.items() if is_claimed]
            run_seconds = statistics.median(self._runs) if self._runs else None
            self._sent_run_seconds = run_seconds
            counts = dict(self._counts)
        wanted = workers.record_heartbeat(
            connection,
            self.worker_id,
            workers.HeartbeatReport(
                self._heartbeat_no,
                reserved=reserved,
                run_seconds=run_seconds,
                rss_kb=_rss_kb(),
                counts=counts,
            ),
            now,
        )
        lost = workers.find_lost(connection, self.worker_id, running)
        self._suspects = rescue_disowned(connection, self.worker_id, reserved, self._suspects, now)
        why = dict.fromkeys(wanted, CANCELED) | dict.fromkeys(lost, LOST)
        with self._lock:
            self._wanted = {key: why[key] for key in why if key in self._reserved}
            has_news = bool(self._wanted)
        if has_news:
            wake()

    def _be_due_now(self) -> None:
        self._due_at = min(self._due_at, time.monotonic())

    def stop(self, connection: Connection) -> None:
        """Record that the worker has stopped, and rescue the jobs that it still has. Commits."""
        now = read_clock(connection)
        endings.rescue(connection, [self.worker_id], now, "its worker stopped")
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


def _rss_kb() -> int | None:
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
    except OSError:
        return None

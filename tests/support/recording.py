"""Ends jobs through a real recorder, with heartbeats, and measures how late they are."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from typing_extensions import override

from flask_opsjobs.core.db import Connection
from flask_opsjobs.core.outage import Outage
from flask_opsjobs.endings import EndedAttempt
from flask_opsjobs.engine.worker.heartbeat import Heartbeat
from flask_opsjobs.engine.worker.recorder import Recorder
from flask_opsjobs.jobs.perform.outcomes import Outcome
from tests.support.engine import Bench
from tests.support.waiting import wait_until

Record = Callable[..., tuple[float, float]]


class TimedHeartbeat(Heartbeat):
    """Knows how late the latest heartbeat was when it was written. `late` may be set back to 0."""

    late = 0.0

    @override
    def beat_if_due(self, connection: Connection, wake: Callable[[], None]) -> None:
        was_due_at = time.monotonic() + self.due_in()
        super().beat_if_due(connection, wake)
        self.late = max(self.late, time.monotonic() - was_due_at)


@contextmanager
def recording(bench: Bench, heartbeat_seconds: float) -> Iterator[Record]:
    """A function that ends started jobs and returns the seconds until all were written, and how late the
    latest heartbeat was.
    """
    heartbeat = TimedHeartbeat(bench.worker_id, heartbeat_seconds)
    outage = Outage(logging.getLogger("test"), "")
    recorder = Recorder(bench.host, heartbeat, outage, lambda: None)
    recorder.start()

    def record(jobs: Sequence[int], kind: Any = "returned") -> tuple[float, float]:
        began, heartbeat.late = time.monotonic(), 0.0
        for job in jobs:
            wait_until(recorder.keeps_up, 10)
            outcome = Outcome(kind=kind)
            recorder.collect(EndedAttempt(job, 1, bench.worker_id, bench.name, outcome))
            recorder.submit()
        wait_until(lambda: not bench.rows(_LEFT, [*jobs]), 60)
        return time.monotonic() - began, max(heartbeat.late, -heartbeat.due_in())

    yield record
    assert recorder.stop(30)


_LEFT = "SELECT 1 FROM opsjobs.jobs WHERE id = ANY (%s) AND state = 'started' LIMIT 1"

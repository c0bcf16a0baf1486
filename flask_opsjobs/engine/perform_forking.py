"""How the forking OpsWorker performs: a horse per job, watched by the main thread."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ..jobs import retry
from ..jobs.claimed import Claimed
from ..jobs.log_tail import Ring
from ..jobs.outcomes import Outcome
from .confirm import Confirm
from .horse import fork
from .watch_horse import Ride
from .worker_runtime import WorkerRuntime

if TYPE_CHECKING:
    from flask import Flask

    from ..jobs.task import Task

_TICK_SECONDS = 15.0


class ForkingStable:
    """Keeps what outlives a horse: the ring, in shared memory, in which a killed horse leaves its last words."""

    def __init__(self, app: Flask, runtime: WorkerRuntime, tasks: Mapping[str, Task]) -> None:
        self._app = app
        self._runtime = runtime
        self._tasks = tasks
        size = runtime.host.settings.log_tail_bytes
        self._ring = Ring(memoryview(mmap.mmap(-1, size + Ring.HEAD_BYTES))) if size else None
        self._ride: Ride | None = None

    def perform(self, claimed: Claimed, tick: Callable[[], None]) -> Outcome:
        """Fork, watch, and say how it ended; `tick` is called now and then while it runs."""
        if self._ring is not None:
            self._ring.clear()
        runtime = self._runtime
        confirm = Confirm(runtime.host, claimed, runtime.id, runtime.name)
        pid, sock = fork(self._app, self._tasks, claimed, self._ring, confirm)
        self._ride = Ride(
            pid=pid,
            sock=sock,
            claimed=claimed,
            tick=tick,
            stop_wanted=lambda: runtime.pulse.stop_wanted(claimed.id, claimed.dispatch_no),
            on_progress=lambda *progress: runtime.tell_progress(claimed, *progress),
            backoff_seconds=lambda: self.backoff_seconds(claimed),
        )
        try:
            outcome = self._ride.watch(runtime.wake_fd, _TICK_SECONDS)
        finally:
            self._ride = None
        return self._with_last_words(outcome)

    def backoff_seconds(self, claimed: Claimed) -> float:
        """When a job whose horse could not say so is due again."""
        return retry.backoff_seconds(self._tasks.get(claimed.task), claimed.attempt)

    def stop_now(self, why: str) -> None:
        """Kill the horse at work, if there is one."""
        if self._ride is not None:
            self._ride.kill(why)

    def _with_last_words(self, outcome: Outcome) -> Outcome:
        return replace(
            outcome, log_tail=(self._ring.read() or None) if self._ring is not None else None
        )

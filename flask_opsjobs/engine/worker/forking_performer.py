"""Performs each job in a forked child, which the main thread watches."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ...jobs.perform import backoff as retry
from ...jobs.perform.current import Claimed
from ...jobs.perform.log_tail import Ring
from ...jobs.perform.outcomes import Outcome
from .child import fork
from .confirm import Confirm
from .runtime import WorkerRuntime
from .watch_child import ChildWatch

if TYPE_CHECKING:
    from flask import Flask

    from ...jobs.record.task import Task

_TICK_SECONDS = 15.0


class ForkingPerformer:
    """Forks a child per job. The log ring is shared memory, which keeps the last lines of a killed child."""

    def __init__(self, app: Flask, runtime: WorkerRuntime, tasks: Mapping[str, Task]) -> None:
        self._app = app
        self._runtime = runtime
        self._tasks = tasks
        size = runtime.host.settings.log_tail_bytes
        self._ring = Ring(memoryview(mmap.mmap(-1, size + Ring.HEAD_BYTES))) if size else None
        self._watch: ChildWatch | None = None

    def perform(self, claimed: Claimed, tick: Callable[[], None]) -> Outcome:
        """Fork, watch the child, and return the outcome. `tick` is called every 15 s while it runs."""
        if self._ring is not None:
            self._ring.clear()
        runtime = self._runtime
        confirm = Confirm(runtime.host, claimed, runtime.id, runtime.name)
        pid, sock = fork(self._app, self._tasks, claimed, self._ring, confirm)
        self._watch = ChildWatch(
            pid=pid,
            sock=sock,
            claimed=claimed,
            tick=tick,
            stop_wanted=lambda: runtime.heartbeat.stop_wanted(claimed.id, claimed.dispatch_no),
            on_progress=lambda *progress: runtime.tell_progress(claimed, *progress),
            backoff_seconds=lambda: self.backoff_seconds(claimed),
        )
        try:
            outcome = self._watch.watch(runtime.wake_fd, _TICK_SECONDS)
        finally:
            self._watch = None
        return self._with_last_words(outcome)

    def backoff_seconds(self, claimed: Claimed) -> float:
        """Return in how many seconds a job is due again whose child died without an outcome."""
        return retry.backoff_seconds(self._tasks.get(claimed.task), claimed.attempt)

    def stop_now(self, why: str) -> None:
        """Kill the running child, if there is one."""
        if self._watch is not None:
            self._watch.kill(why)

    def _with_last_words(self, outcome: Outcome) -> Outcome:
        return replace(
            outcome, log_tail=(self._ring.read() or None) if self._ring is not None else None
        )

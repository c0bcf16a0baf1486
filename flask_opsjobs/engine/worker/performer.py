"""Performs a claimed job: in a child, or in the worker's own process."""

from __future__ import annotations

import mmap
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING

from typing_extensions import override

from ...jobs.perform.backoff import backoff_seconds
from ...jobs.perform.current import Claimed, Stopped
from ...jobs.perform.log_tail import Ring
from ...jobs.perform.outcomes import Outcome
from ...jobs.perform.perform import Report, perform
from .child import fork
from .claim import Confirm
from .heartbeat import CANCELED, LOST
from .runtime import WorkerRuntime
from .watch_child import ChildWatch

if TYPE_CHECKING:
    from flask import Flask


_TICK_SECONDS = 15.0


class Performer(ABC):
    """Runs one claimed job at a time.

    `_ring` keeps the job's last log lines; it is None when no lines are kept.
    """

    def __init__(
        self, app: Flask, runtime: WorkerRuntime, allocate: Callable[[int], mmap.mmap | bytearray]
    ) -> None:
        self._app = app
        self._runtime = runtime
        size = runtime.host.settings.log_tail_bytes
        self._ring = Ring(memoryview(allocate(size + Ring.HEAD_BYTES))) if size else None

    @abstractmethod
    def perform(self, claimed: Claimed, tick: Callable[[], None]) -> Outcome:
        """Run the job and return the outcome.

        `ForkingPerformer` calls `tick` every 15 s while the job runs; `InProcessPerformer` never does.
        """

    @abstractmethod
    def stop_now(self, why: str) -> None:
        """Stop the running job, if there is one. `why` becomes part of its cause of death."""

    def backoff_seconds(self, claimed: Claimed) -> float:
        """Return the seconds until the next attempt of a job that died or could not start."""
        return backoff_seconds(self._runtime.host.performable.get(claimed.task), claimed.attempt)

    def _begin(self, claimed: Claimed) -> Confirm:
        """Empty the ring. Return the `Confirm`, which checks just before the call that the claim is valid."""
        if self._ring is not None:
            self._ring.clear()
        runtime = self._runtime
        return Confirm(runtime.host, claimed, runtime.id, runtime.name)

    def _log_tail(self) -> str | None:
        """Return the last lines; None when there are none."""
        return (self._ring.read() or None) if self._ring is not None else None


class ForkingPerformer(Performer):
    """Forks a child per job. The ring is shared memory, which keeps the last lines of a killed child."""

    def __init__(self, app: Flask, runtime: WorkerRuntime) -> None:
        super().__init__(app, runtime, partial(mmap.mmap, -1))
        self._watch: ChildWatch | None = None

    @override
    def perform(self, claimed: Claimed, tick: Callable[[], None]) -> Outcome:
        """Fork, watch the child, and return the outcome. `tick` is called every 15 s while it runs."""
        runtime = self._runtime
        confirm = self._begin(claimed)
        pid, sock = fork(self._app, runtime.host, claimed, self._ring, confirm)
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
        return replace(outcome, log_tail=self._log_tail())

    @override
    def stop_now(self, why: str) -> None:
        """Kill the running child, if there is one."""
        if self._watch is not None:
            self._watch.kill(why)


class InProcessPerformer(Performer):
    """Calls the function in this process. A signal stops it by raising `Stopped` in the function."""

    def __init__(self, app: Flask, runtime: WorkerRuntime) -> None:
        super().__init__(app, runtime, bytearray)
        self._claimed: Claimed | None = None
        self._stopped_why: str | None = None
        signal.signal(signal.SIGUSR1, self._on_signal)
        runtime.also_wake = self._wake_main

    @override
    def perform(self, claimed: Claimed, tick: Callable[[], None]) -> Outcome:
        """Call the function and return the outcome. `tick` is not called, because the main thread is busy."""
        runtime = self._runtime
        confirm = self._begin(claimed)
        most = runtime.host.settings.max_output_bytes
        tell = partial(runtime.tell_progress, claimed)
        report = Report(self._ring, most, tell, runtime.host.spare.one)
        self._stopped_why = None
        self._claimed = claimed
        try:
            with self._app.app_context():
                outcome = perform(runtime.host.performable, claimed, report, confirm)
        except Stopped:
            outcome = Outcome(
                kind="canceled", reason="stopped while it ran", error="stopped while it ran"
            )
        finally:
            self._claimed = None
        if outcome.kind == "canceled" and self._stopped_why is not None:
            # The job was not canceled: its process was told to stop, or has lost the job.
            outcome = self._of_stop(claimed, self._stopped_why)
        return replace(outcome, log_tail=self._log_tail(), progress=report.newest)

    @override
    def stop_now(self, why: str) -> None:
        """Raise `Stopped` in the running function, if there is one.

        Called by a signal handler in the main thread.
        """
        if self._claimed is not None:
            self._stopped_why = why
            raise Stopped(why)

    def _of_stop(self, claimed: Claimed, why: str) -> Outcome:
        if why == LOST:
            return Outcome(kind="lost", error=f"its function was interrupted: {LOST}")
        delay = self.backoff_seconds(claimed)
        return Outcome(
            kind="died", error=f"its process was {why}", cause_of_death=why, delay_seconds=delay
        )

    def _wake_main(self) -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        claimed = self._claimed
        if claimed is None:
            return
        why = self._runtime.heartbeat.stop_wanted(claimed.id, claimed.dispatch_no)
        if why == CANCELED:
            raise Stopped("canceled while it ran")
        if why is not None:
            self._stopped_why = why
            raise Stopped(why)

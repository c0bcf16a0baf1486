"""Watches a child from its parent: reads its frames, enforces its time limit, and explains its death."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ...jobs.perform.current import Claimed
from ...jobs.perform.outcomes import Outcome
from .child import Receiver, describe_death, kill_group
from .heartbeat import CANCELED, LOST

# The child ends an overdue function itself. If it cannot (a loop in C), the parent kills it this much later.
_GRACE_SECONDS = 5.0


@dataclass
class ChildWatch:
    """The parent's view of one running child."""

    pid: int
    sock: socket.socket
    claimed: Claimed
    tick: Callable[[], None]
    stop_wanted: Callable[[], str | None]
    on_progress: Callable[[int | None, int | None, str | None], None]
    backoff_seconds: Callable[[], float]
    why_killed: str | None = None

    def watch(self, wake_fd: int, tick_seconds: float) -> Outcome:
        """Block until the child is gone; return the outcome. `tick` is called every `tick_seconds`.

        A complete outcome counts even when the child died after sending it: its function had returned.
        """
        memory = OutOfMemory()
        channel = Receiver(self.sock)
        pidfd = os.pidfd_open(self.pid)
        try:
            self._follow(channel, pidfd, wake_fd, tick_seconds)
        finally:
            os.close(pidfd)
        _, status, usage = os.wait4(self.pid, 0)
        channel.read()
        self.sock.close()
        outcome = channel.outcome if channel.outcome is not None else self._of_death(status, memory)
        return replace(outcome, max_rss_kb=usage.ru_maxrss, progress=channel.progress)

    def kill(self, why: str) -> None:
        """Kill the child and all that it started; `why` becomes the cause of its death."""
        self.why_killed = self.why_killed or why
        kill_group(self.pid)

    def _follow(self, channel: Receiver, pidfd: int, wake_fd: int, tick_seconds: float) -> None:
        poll = select.poll()
        for fd in (channel.fileno(), pidfd, wake_fd):
            poll.register(fd, select.POLLIN)
        limit = self.claimed.timeout_seconds
        overdue_at = None if limit is None else time.monotonic() + limit + _GRACE_SECONDS
        tick_at = time.monotonic() + tick_seconds
        seen = None
        while True:
            until = tick_at if overdue_at is None else min(tick_at, overdue_at)
            ready = {fd for fd, _ in poll.poll(max(0.0, until - time.monotonic()) * 1000)}
            if channel.fileno() in ready:
                channel.read()
                if not channel.is_open:
                    poll.unregister(channel.fileno())
                if channel.progress is not None and channel.progress != seen:
                    seen = channel.progress
                    self.on_progress(*seen)
            if wake_fd in ready:
                _empty(wake_fd)
            if pidfd in ready:
                return
            self._judge(overdue_at)
            if time.monotonic() >= tick_at:
                tick_at = time.monotonic() + tick_seconds
                self.tick()

    def _judge(self, overdue_at: float | None) -> None:
        if self.why_killed is not None:
            return
        if overdue_at is not None and time.monotonic() >= overdue_at:
            self.kill("timed_out")
        elif (why := self.stop_wanted()) is not None:
            self.kill(why)

    def _of_death(self, status: int, memory: OutOfMemory) -> Outcome:
        words, number = describe_death(status)
        if self.why_killed == LOST:
            return Outcome(kind="lost", error=f"its process was killed: {LOST}")
        if self.why_killed == CANCELED:
            return Outcome(
                kind="canceled",
                reason="stopped while it ran",
                error="stopped while it ran",
                cause_of_death=words,
            )
        delay = self.backoff_seconds()
        if self.why_killed == "timed_out":
            limit = self.claimed.timeout_seconds
            error = f"ran longer than {limit} s and its time limit could not stop it"
            return Outcome(
                kind="timed_out",
                error=error,
                cause_of_death=f"time-out, {words}",
                delay_seconds=delay,
            )
        cause = f"{self.why_killed or 'unknown'}, {words}"
        if number == signal.SIGKILL and self.why_killed is None and memory.has_killed():
            cause = f"out of memory, {words}"
        return Outcome(
            kind="died",
            error=f"its process died: {words}",
            cause_of_death=cause,
            delay_seconds=delay,
        )


def _empty(fd: int) -> None:
    try:
        while os.read(fd, 4096):
            pass
    except BlockingIOError:
        pass


class OutOfMemory:
    """Compares the cgroup's `oom_kill` count with its value when this object was made."""

    def __init__(self) -> None:
        self._before = _count()

    def has_killed(self) -> bool:
        """Return whether the count has grown since then; False where there is no count to read."""
        now = _count()
        return now is not None and self._before is not None and now > self._before


def _count() -> int | None:
    try:
        place = Path("/proc/self/cgroup").read_text().rsplit("::", 1)[-1].strip()
        events = Path("/sys/fs/cgroup", place.lstrip("/"), "memory.events").read_text()
    except (OSError, IndexError):
        return None
    counts = dict(line.split() for line in events.splitlines() if " " in line)
    return int(counts["oom_kill"]) if "oom_kill" in counts else None

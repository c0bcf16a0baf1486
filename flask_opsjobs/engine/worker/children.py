"""Starts the children of a worker and follows each: what it says, and how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from resource import struct_rusage
from typing import Any

from ...core.steady_clock import steady_seconds
from .child import ChildLine, ChildSetup, run_child
from .forking import set_group
from .frames import FrameReader
from .page import Page
from .work_socket import WorkSocket

_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Death:
    """How a child ended. `words` describe its exit status; `by_signal` is the signal that killed it.

    `limit_kb` is the limit of the memory of its cgroup, `oom_kills` how often Linux killed for it meanwhile.
    """

    words: str
    by_signal: int | None
    max_rss_kb: int
    is_out_of_memory: bool
    code: int | None = None
    limit_kb: int | None = None
    oom_kills: int = 0

    @property
    def cause(self) -> str:
        """Return the cause of death, one of `lifecycle.DEATHS`, as far as the exit status tells it."""
        if self.is_out_of_memory:
            return "out_of_memory"
        return "signal" if self.by_signal is not None else "exited"

    @property
    def facts(self) -> dict[str, Any]:
        """Return what is known of the end, as plain values."""
        found = {
            "signal": None if self.by_signal is None else name_signal(self.by_signal),
            "code": self.code,
            "peak_kb": self.max_rss_kb,
            "limit_kb": self.limit_kb,
            "oom_kills": self.oom_kills or None,
        }
        return {name: value for name, value in found.items() if value is not None}


class ChildProcess:
    """The parent's view of one child. For the main thread only; nothing here waits."""

    def __init__(
        self, setup: ChildSetup, number: int, log_tail_bytes: int, of_parent: Iterable[int]
    ) -> None:
        """Fork the child of a place. It lets go of the descriptors `of_parent`. The caller holds `fork_lock`.

        Raises `OSError` when the system refuses.
        """
        self.forked_at = steady_seconds()
        self.jobs = 0
        self.is_killed = False
        self.page = Page(log_tail_bytes)
        self._out_of_memory = OutOfMemory()
        self.orders = WorkSocket()
        ours, its = socket.socketpair()
        parent_pid = os.getpid()
        try:
            self.pid = os.fork()
        except OSError:
            for sock in (ours, its, self.orders):
                sock.close()
            raise
        if self.pid == 0:
            try:
                ours.close()
                line = ChildLine(its, self.orders, self.page)
                run_child(setup, number, line, parent_pid, of_parent)
            finally:
                # An error that came out of here, SystemExit too, would run the parent's `finally` blocks in
                # the child, and release the lock that it does not hold.
                os._exit(0)
        its.close()
        set_group(self.pid)
        self._sock = ours
        self._reader = FrameReader(ours)
        self.pidfd = os.pidfd_open(self.pid)

    def fileno(self) -> int:
        """Return the descriptor of its stream, for `poll`."""
        return self._sock.fileno()

    def polled(self) -> tuple[int, int]:
        """Return the descriptors that tell of the child: its stream, and its end."""
        return self._sock.fileno(), self.pidfd

    def descriptors(self) -> tuple[int, ...]:
        """Return the descriptors that this child costs its parent."""
        return *self.polled(), *self.orders.descriptors()

    @property
    def is_open(self) -> bool:
        """Return whether the child can still say something."""
        return self._reader.is_open

    def hear(self) -> Iterator[tuple[int, bytes]]:
        """Yield the frames that have arrived."""
        return self._reader.read_arrived()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the child and to everything that it started."""
        self.is_killed = self.is_killed or number == signal.SIGKILL
        kill_group(self.pid, number)

    def bury(self) -> Death:
        """Take the exit status of a child that has ended, and close what belongs to it."""
        _, status, usage = os.wait4(self.pid, 0)
        self._sock.close()
        self.orders.close()
        os.close(self.pidfd)
        return self._describe(status, usage)

    def _describe(self, status: int, usage: struct_rusage) -> Death:
        words, number = describe_death(status)
        kills = self._out_of_memory.count_kills() if number == signal.SIGKILL else 0
        return Death(
            words=words,
            by_signal=number,
            max_rss_kb=usage.ru_maxrss,
            is_out_of_memory=kills > 0,
            code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
            limit_kb=self._out_of_memory.read_limit_kb(),
            oom_kills=kills,
        )


def kill_group(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to a child and everything it started.

    Raises `ValueError` for a pid that would mean the caller's own group or all processes.
    """
    if pid <= 1 or pid == os.getpgrp():
        raise ValueError(f"{pid} is not the pid of a child")
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def describe_death(status: int) -> tuple[str, int | None]:
    """Describe an exit status of `wait4`: a sentence, and the number of the signal or None."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"killed by {name_signal(number)}", number
    return f"exited with {os.WEXITSTATUS(status)} before its function returned", None


def name_signal(number: int) -> str:
    """Return the name of a signal; most real-time signals have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class OutOfMemory:
    """Compares the cgroup's `oom_kill` count with its value when this object was made."""

    def __init__(self, root: Path = _CGROUPS) -> None:
        self._root = root
        self._before = _count(root)

    def count_kills(self) -> int:
        """Return by how much the count has grown since then; 0 where there is no count to read."""
        now = _count(self._root)
        return 0 if now is None or self._before is None else max(0, now - self._before)

    def read_limit_kb(self) -> int | None:
        """Return the limit of the cgroup's memory; None without a limit."""
        limit = _read(self._root, "memory.max").strip()
        return int(limit) // 1024 if limit.isdigit() else None


def _count(root: Path) -> int | None:
    lines = _read(root, "memory.events").splitlines()
    counts = dict(line.split() for line in lines if " " in line)
    return int(counts["oom_kill"]) if "oom_kill" in counts else None


def _read(root: Path, name: str) -> str:
    """Return a file of this process's cgroup; an empty text where there is none."""
    try:
        place = Path("/proc/self/cgroup").read_text().rsplit("::", 1)[-1].strip()
        return Path(root, place.lstrip("/"), name).read_text()
    except (OSError, IndexError):
        return ""

"""Starts the children of a worker and follows each: what it was given, what it says, and how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from resource import struct_rusage

from ...core.steady_clock import steady_seconds
from .child import ChildSetup, run_child
from .forking import set_group
from .frames import FrameReader
from .page import Page

_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Death:
    """How a child ended. `words` describe its exit status; `by_signal` is the signal that killed it."""

    words: str
    by_signal: int | None
    max_rss_kb: int
    is_out_of_memory: bool


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
        self.page = Page(log_tail_bytes)
        self._out_of_memory = OutOfMemory()
        ours, its = socket.socketpair()
        parent_pid = os.getpid()
        try:
            self.pid = os.fork()
        except OSError:
            ours.close()
            its.close()
            raise
        if self.pid == 0:
            ours.close()
            run_child(setup, number, its, self.page, parent_pid, of_parent)
        its.close()
        set_group(self.pid)
        ours.setblocking(False)
        self._sock = ours
        self._reader = FrameReader(ours)
        self._unsent = b""
        self.pidfd = os.pidfd_open(self.pid)

    def fileno(self) -> int:
        """Return the descriptor of its stream, for `poll`."""
        return self._sock.fileno()

    def descriptors(self) -> tuple[int, int]:
        """Return the descriptors that this child costs its parent."""
        return self._sock.fileno(), self.pidfd

    @property
    def is_open(self) -> bool:
        """Return whether the child can still say something."""
        return self._reader.is_open

    @property
    def has_unsent(self) -> bool:
        """Return whether a part of an order still waits for room in the socket."""
        return bool(self._unsent)

    def send(self, frame: bytes) -> None:
        """Send an order. What the socket does not take now, `send_more` sends."""
        self._unsent += frame
        self.send_more()

    def send_more(self) -> None:
        """Send what is left of an order. A child that has died does not hear it; its death is seen anyway."""
        try:
            while self._unsent:
                sent = self._sock.send(self._unsent, socket.MSG_NOSIGNAL)
                self._unsent = self._unsent[sent:]
        except BlockingIOError:
            pass
        except OSError:
            self._unsent = b""

    def hear(self) -> Iterator[tuple[int, bytes]]:
        """Yield the frames that have arrived."""
        return self._reader.read_arrived()

    def dismiss(self) -> None:
        """Let the child leave after its job: it gets no more orders."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the child and to everything that it started."""
        kill_group(self.pid, number)

    def bury(self) -> Death:
        """Take the exit status of a child that has ended, and close what belongs to it."""
        _, status, usage = os.wait4(self.pid, 0)
        self._sock.close()
        os.close(self.pidfd)
        return self._describe(status, usage)

    def _describe(self, status: int, usage: struct_rusage) -> Death:
        words, number = describe_death(status)
        return Death(
            words=words,
            by_signal=number,
            max_rss_kb=usage.ru_maxrss,
            is_out_of_memory=number == signal.SIGKILL and self._out_of_memory.has_killed(),
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
        return f"killed by {signal.Signals(number).name}", number
    return f"exited with {os.WEXITSTATUS(status)} before its function returned", None


class OutOfMemory:
    """Compares the cgroup's `oom_kill` count with its value when this object was made."""

    def __init__(self, root: Path = _CGROUPS) -> None:
        self._root = root
        self._before = _count(root)

    def has_killed(self) -> bool:
        """Return whether the count has grown since then; False where there is no count to read."""
        now = _count(self._root)
        return now is not None and self._before is not None and now > self._before


def _count(root: Path) -> int | None:
    try:
        place = Path("/proc/self/cgroup").read_text().rsplit("::", 1)[-1].strip()
        events = Path(root, place.lstrip("/"), "memory.events").read_text()
    except (OSError, IndexError):
        return None
    counts = dict(line.split() for line in events.splitlines() if " " in line)
    return int(counts["oom_kill"]) if "oom_kill" in counts else None

"""Decides after each job whether a child is still fit for the next one, or leaves."""

from __future__ import annotations

import os
import random
import resource
import signal
import threading

# The functions of `signal` return an enum for each number. Making it costs more than the call.
from _signal import getsignal, pthread_sigmask  # type: ignore[import-not-found]
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ...core.words import counted
from .hygiene import ConnectionHygiene
from .left_children import JOBS_DONE, LeaveReason

# K varies by a tenth, so that the children of a worker do not all leave at once.
_SPREAD = 0.1
# A child may have so many more descriptors open than at its start: its connections, for example.
_MORE_DESCRIPTORS = 200
_SIGNALS = {
    signal.SIGINT: "SIGINT",
    signal.SIGTERM: "SIGTERM",
    signal.SIGALRM: "SIGALRM",
    signal.SIGUSR1: "SIGUSR1",
    signal.SIGUSR2: "SIGUSR2",
    signal.SIGCHLD: "SIGCHLD",
}
_SIGNAL_NUMBERS = tuple(int(number) for number in _SIGNALS)
_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20

# What a job may leave behind in its process, as far as it is cheap to see: its signal handlers, and then in
# this order the rest.
_State = tuple[tuple[object, ...], set[int], bool, bool, str | None, int]
_LEFT = {
    "signal_mask": "left signals blocked",
    "timer": "left a timer behind",
    "process": "left a process behind",
    "folder": "left another working directory behind",
    "umask": "left another umask behind",
}


@dataclass(frozen=True)
class RecyclingRules:
    """When a child leaves. `jobs` is K, 0 without a limit; `memory_mb` is what it may gain, None without.

    A thread may outlive the job that started it when its name contains one of `may_stay`, in any case.
    """

    jobs: int
    memory_mb: int | None
    may_stay: Sequence[str] = ()


class Recycling:
    """Compares the process with what it was before its first job, and cleans its connections.

    >>> recycling = Recycling(RecyclingRules(jobs=0, memory_mb=None))
    >>> recycling.find_reasons("send_mail")
    []
    """

    def __init__(self, rules: RecyclingRules, hygiene: ConnectionHygiene | None = None) -> None:
        self._hygiene = hygiene
        if hygiene is not None:
            hygiene.let_stay()
        self._may_stay = [word.lower() for word in rules.may_stay]
        self._most_jobs = rules.jobs and max(1, round(rules.jobs * random.uniform(1 - _SPREAD, 1)))
        self._most_memory = rules.memory_mb or 0
        self._jobs = 0
        self._before = _look()
        # Those that may outlive a job.
        self._threads = threading.enumerate()
        self._memory = _ResidentMemory() if rules.memory_mb is not None else None
        self._descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        room = most - self._descriptor if most != resource.RLIM_INFINITY else 2**20
        self._highest_descriptor = self._descriptor + min(_MORE_DESCRIPTORS, room // 2)

    def find_reasons(self, task: str | None) -> list[LeaveReason]:
        """Return why the child must leave now, after a job of `task`; nothing when it may perform another."""
        self._jobs += 1
        reasons = [LeaveReason(kind, sentence) for kind, sentence in self._find_spent()]
        now, threads = _look(), threading.enumerate()
        if now != self._before or threads != self._threads:
            left = self._find_left_behind(now, threads)
            reasons += [LeaveReason(kind, sentence, task) for kind, sentence in left]
        if self._hygiene is not None and not self._hygiene.clean():
            reasons.append(LeaveReason("connection", "left a database connection in use", task))
        return reasons

    def _find_spent(self) -> Iterator[tuple[str, str]]:
        if self._most_jobs and self._jobs >= self._most_jobs:
            yield JOBS_DONE, f"has performed {counted(self._jobs, 'job')}"
        if self._memory is not None and (gained := self._memory.gained_mb()) > self._most_memory:
            yield "memory", f"has gained {gained:.0f} MB of memory"
        if not self._has_room_for_descriptors():
            yield "descriptors", "has too many open descriptors"

    def _has_room_for_descriptors(self) -> bool:
        """Return whether a low number is free. A new descriptor gets the lowest one."""
        try:
            lowest = os.dup(self._descriptor)
        except OSError:
            return False
        os.close(lowest)
        return lowest <= self._highest_descriptor

    def _find_left_behind(
        self, now: _State, threads: list[threading.Thread]
    ) -> Iterator[tuple[str, str]]:
        before = self._before
        strange = [thread.name for thread in threads if not self._may_outlive_job(thread)]
        if strange:
            names = ", ".join(sorted(strange)[:3])
            yield "thread", f"left {counted(len(strange), 'thread')} behind: {names}"
        else:
            self._threads = threads
        names = ", ".join(
            name
            for name, was, handler in zip(_SIGNALS.values(), before[0], now[0], strict=True)
            if was is not handler and was != handler
        )
        if names:
            yield "signal_handler", f"left a handler of {names} behind"
        for (kind, sentence), was, value in zip(_LEFT.items(), before[1:], now[1:], strict=True):
            if was != value:
                yield kind, sentence

    def _may_outlive_job(self, thread: threading.Thread) -> bool:
        name = thread.name.lower()
        return thread in self._threads or any(word in name for word in self._may_stay)


def _look() -> _State:
    umask = os.umask(0o077)
    os.umask(umask)
    return (
        tuple([getsignal(number) for number in _SIGNAL_NUMBERS]),
        pthread_sigmask(signal.SIG_BLOCK, ()),
        signal.getitimer(signal.ITIMER_REAL)[0] > 0,
        _has_children(),
        _folder(),
        umask,
    )


def _has_children() -> bool:
    """Return whether there is a child process, without taking its exit status from who waits for it."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return None


class _ResidentMemory:
    """Tells how much memory this process has gained since this object was made."""

    def __init__(self) -> None:
        self._file = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        self._before = self._read_pages()

    def gained_mb(self) -> float:
        return (self._read_pages() - self._before) * _PAGE_MB

    def _read_pages(self) -> int:
        return int(os.pread(self._file, 100, 0).split()[1])

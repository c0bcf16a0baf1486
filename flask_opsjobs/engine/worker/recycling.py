"""Decides after each job whether a child is still fit for the next one, or leaves."""

from __future__ import annotations

import errno
import os
import random
import re
import resource
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ...core.words import counted

# K varies by a tenth, so that the children of a worker do not all leave at once.
_SPREAD = 0.1
_SIGNALS = {
    signal.SIGINT: "SIGINT",
    signal.SIGTERM: "SIGTERM",
    signal.SIGALRM: "SIGALRM",
    signal.SIGUSR1: "SIGUSR1",
    signal.SIGUSR2: "SIGUSR2",
    signal.SIGCHLD: "SIGCHLD",
}
_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass(frozen=True)
class RecyclingRules:
    """When a child leaves. `jobs` is K, 0 without a limit; `memory_mb` is what it may gain, None without.

    Threads whose names match one of `may_stay` may outlive the job that started them.
    """

    jobs: int
    memory_mb: int | None
    may_stay: Sequence[str] = ()


@dataclass(frozen=True)
class _State:
    """What a job may leave behind in its process, as far as it is cheap to see."""

    handlers: tuple[object, ...]
    mask: frozenset[int]
    folder: str | None
    umask: int
    has_timer: bool
    has_children: bool
    threads: frozenset[threading.Thread]


class Recycling:
    """Compares the process with what it was before its first job.

    >>> rules = RecyclingRules(jobs=0, memory_mb=None)
    >>> recycling = Recycling(rules)
    >>> recycling.find_reasons()
    []
    """

    def __init__(self, rules: RecyclingRules) -> None:
        self._rules = rules
        self._may_stay = re.compile("|".join(f"(?:{name})" for name in rules.may_stay) or "(?!)")
        self._most = rules.jobs and max(1, round(rules.jobs * random.uniform(1 - _SPREAD, 1)))
        self._jobs = 0
        self._before = self._look()
        self._memory = _resident_mb() if rules.memory_mb is not None else 0.0

    def find_reasons(self) -> list[str]:
        """Return why the child must leave now, after a job; nothing when it may perform another."""
        self._jobs += 1
        return list(self._find())

    def _find(self) -> Iterator[str]:
        if self._most and self._jobs >= self._most:
            yield f"has performed {counted(self._jobs, 'job')}"
        yield from self._find_left_behind()
        most = self._rules.memory_mb
        if most is not None and (gained := _resident_mb() - self._memory) > most:
            yield f"has gained {gained:.0f} MB of memory"
        if _has_many_descriptors():
            yield "has opened more than half of the files that it may open"

    def _find_left_behind(self) -> Iterator[str]:
        before, now = self._before, self._look()
        if before == now:
            return
        if threads := now.threads - before.threads:
            names = ", ".join(sorted(thread.name for thread in threads)[:3])
            yield f"left {counted(len(threads), 'thread')} behind: {names}"
        changed = [
            name
            for name, was, new in zip(_SIGNALS.values(), before.handlers, now.handlers, strict=True)
            if was is not new and was != new
        ]
        if changed:
            yield f"left a handler of {', '.join(changed)} behind"
        if before.mask != now.mask:
            yield "left signals blocked"
        if before.folder != now.folder:
            yield "left another working directory behind"
        if before.umask != now.umask:
            yield "left another umask behind"
        if now.has_timer and not before.has_timer:
            yield "left a timer behind"
        if now.has_children and not before.has_children:
            yield "left a process behind"

    def _look(self) -> _State:
        umask = os.umask(0o077)
        os.umask(umask)
        return _State(
            handlers=tuple(signal.getsignal(number) for number in _SIGNALS),
            mask=frozenset(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
            folder=_folder(),
            umask=umask,
            has_timer=signal.getitimer(signal.ITIMER_REAL)[0] > 0,
            has_children=_has_children(),
            threads=frozenset(
                thread for thread in threading.enumerate() if not self._may_stay.search(thread.name)
            ),
        )


def _folder() -> str | None:
    with suppress(OSError):  # it was removed
        return os.getcwd()
    return None


def _has_children() -> bool:
    """Return whether there is a child process, without taking its exit status from who waits for it."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _resident_mb() -> float:
    with suppress(OSError), open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * _PAGE_MB
    return 0.0


def _has_many_descriptors() -> bool:
    """Return whether more than half of the descriptors that the process may have are open, about.

    A new descriptor has the lowest free number, which costs less to see than to count them.
    """
    try:
        lowest = os.dup(2)
    except OSError as error:
        return error.errno == errno.EMFILE
    os.close(lowest)
    return lowest > resource.getrlimit(resource.RLIMIT_NOFILE)[0] / 2 > 0

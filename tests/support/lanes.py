"""Tells quick tests from others, and finds those that take longer than a test may.

`make quick` leaves out the tests of pages, forensics, the example host, plans and races, and what is marked
`processes` or `slow`; of a test with many cases it makes two. The first mark comes from a test's fixtures,
and a test that starts a process without one of them says it itself. The second one is said by a test that
takes over 3 s. What is not said is listed at the end; with `--fail-slow` a test over 20 s that does not say
so fails the run.
`make check` leaves out those that are `slow` and show no promise of docs/support.toml, unless SLOW=yes.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Generator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pytest

# Each starts processes for the test that asks for it, and so does all that asks for it in turn.
_STARTING = {
    "children",
    "live_url",
    "own_postgres",
    "own_valkey",
    "_browser",
    "newcomer",
    "site",
    "html",
    "wheel",
}
# Seconds of a call, on a machine that does nothing else.
_SLOW = 3
_TOO_SLOW = 20


def slow_first(items: list[pytest.Item]) -> None:
    """Let test processes begin with modules that have slow tests, then with those that start processes.

    So nobody has a long test left at the end. The last process begins with short tests: they need the
    processors while the slow tests of the others wait for processes.
    The modules of a folder stay together, since they share what takes long to start: a browser, a site, an
    installation. The longest folder goes first, and each to the process with the least to do; in it the
    longest test goes first. xdist gives each process an equal run of the list, and who is done takes from
    the end of another's run.
    """
    number = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    folders: dict[Path, list[pytest.Item]] = defaultdict(list)
    seconds = {item: _seconds(item) for item in items}
    long = {item.path for item, each in seconds.items() if each >= 1}
    for item in items:
        if item.path in long:
            folders[item.path.parent].append(item)

    def total(items: list[pytest.Item]) -> float:
        return sum(seconds[item] for item in items)

    def longest(items: list[pytest.Item]) -> float:
        return max(seconds[item] for item in items)

    runs: list[list[pytest.Item]] = [[] for _ in range(number)]
    for folder in sorted(folders.values(), key=total, reverse=True):
        modules = defaultdict(list)
        for item in folder:
            modules[item.path].append(item)
        least = min(runs[: max(number - 1, 1)], key=total)
        for module in sorted(modules.values(), key=longest, reverse=True):
            least += module
    short = iter([item for item in items if item.path not in long])
    for run in runs:
        run += islice(short, max(len(items) // number - len(run), 0))
    items[:] = [*chain.from_iterable(runs), *short]


def _seconds(item: pytest.Item) -> float:
    """About how long a test takes among others: what its mark `slow` says, or what such tests mostly take."""
    if item.get_closest_marker("skip"):
        return 0
    if slow := item.get_closest_marker("slow"):
        return slow.args[0] if slow.args else 10
    return 1 if item.get_closest_marker("processes") else 0.1


def take_few_cases(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave of each test the first and the last case that is made."""
    tests: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if not item.get_closest_marker("skip"):
            tests[item.nodeid.partition("[")[0]].append(item)
    taken = {cases[place] for cases in tests.values() for place in (0, -1)}
    config.hook.pytest_deselected(items=[item for item in items if item not in taken])
    items[:] = [item for item in items if item in taken]


def mark_processes(item: pytest.Item) -> None:
    """Mark a test whose fixtures start processes, and one that kills them."""
    fixtures = getattr(item, "fixturenames", ())
    if not _STARTING.isdisjoint(fixtures) or item.get_closest_marker("chaos"):
        item.add_marker(pytest.mark.processes)


class Lanes:
    """A plugin that finds tests which start processes, or are slow, without saying so.

    Of a call's seconds those do not count in which any process of the machine waited for a processor or a
    disk. So nobody else's work makes a test slow, and a quiet machine says most.
    """

    def __init__(self, *, fail_slow: bool) -> None:
        self._fail_slow = fail_slow
        self._started: list[str] = []
        self._stalled = 0.0
        self._slow: list[tuple[float, str]] = []
        self._starting: list[str] = []
        self._watch_starts()

    def _watch_starts(self) -> None:
        """Note each program that is started. An audit hook would be asked at all other events too."""
        execute = subprocess.Popen._execute_child  # type: ignore[attr-defined]

        def note_and_execute(popen: Any, words: Any, *more: Any) -> None:
            program = words if isinstance(words, str | bytes | os.PathLike) else words[0]
            # A new Python, or what is installed beside it; `platform` asks `file` once.
            if os.fsdecode(program).startswith(sys.prefix):
                self._started.append(os.fsdecode(program))
            execute(popen, words, *more)

        subprocess.Popen._execute_child = note_and_execute  # type: ignore[attr-defined]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Generator[None, Any, Any]:
        self._started.clear()
        begun = _stalled()
        try:
            return (yield)
        finally:
            self._stalled = _stalled() - begun

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
        report = yield
        if call.when == "call":
            report.alone = call.duration - self._stalled
            report.started = self._started[:1]
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        alone = getattr(report, "alone", 0)
        if alone > _SLOW and "slow" not in report.keywords:
            self._slow.append((alone, report.nodeid))
        if getattr(report, "started", ()) and "processes" not in report.keywords:
            self._starting.append(report.nodeid)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._slow:
            terminalreporter.section(f"over {_SLOW} s and not marked `slow`")
        for alone, test in sorted(self._slow, reverse=True):
            note = f": over {_TOO_SLOW} s" if self._fail_slow and alone > _TOO_SLOW else ""
            terminalreporter.line(f"{alone:.1f} s {test}{note}")

        if self._starting:
            terminalreporter.section("start a process and are not marked `processes`")
        for test in sorted(self._starting):
            terminalreporter.line(test)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        too_slow = any(alone > _TOO_SLOW for alone, _ in self._slow)
        if self._fail_slow and too_slow and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _stalled() -> float:
    """Seconds since boot in which some process waited for a processor or a disk;
    0 where Linux does not count them.
    """
    total = 0.0
    for of in ("cpu", "io"):
        with contextlib.suppress(OSError):
            found = re.search(r"some .*total=(\d+)", Path(f"/proc/pressure/{of}").read_text())
            total += int(found[1]) / 1e6 if found else 0
    return total

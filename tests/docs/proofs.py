"""Compares what docs/support.toml claims with the tests that exist, and with those that passed in this run.

With `--proofs`, as in `make check`, a promise whose test did not pass fails the run.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import pytest

from tests.support.sources import ROOT

UNSUPPORTED = "intentionally unsupported"
WORDS = ("supported", "tested", "best-effort", "host-owned", UNSUPPORTED)
# Such a row says that something works or is refused, here and now; or, of these, that nothing refuses it.
PROMISES = ("supported", "tested", UNSUPPORTED)


def find_faults(rows: Iterable[Mapping[str, Any]], passed_lanes: Collection[str]) -> Iterator[str]:
    """What is wrong with rows as they are written. Test lanes that passed show promises too."""
    for row in rows:
        shown_by = row.get("shown_by", ())
        lanes = row.get("lanes", ())
        for lane in lanes:
            if lane not in passed_lanes:
                yield f"{row['claim']} – the lane {lane} is not there or has not passed"
        if row["word"] not in WORDS:
            yield f"{row['claim']} – {row['word']!r} is no word"
        is_told = row["word"] == UNSUPPORTED and row.get("note")
        if row["word"] in PROMISES and not (shown_by or lanes or is_told):
            yield f"{row['claim']} – names no test"
        for test in shown_by:
            path, _, name = test.partition("[")[0].partition("::")
            file = ROOT / path
            if not file.is_file() or not re.search(rf"^ *def {name}\(", file.read_text(), re.M):
                yield f"{row['claim']} – {test} does not exist"


def find_unproven(
    rows: Iterable[Mapping[str, Any]], passed: Collection[str], skipped: Iterable[str] = ()
) -> list[str]:
    """The promises of which a test is not among those that `passed`, by their ids.

    A test with several cases has passed when none of them was skipped; a row may name one of its cases.
    What is left to `--variants` does not count as skipped.
    """
    ran = {test.partition("[")[0] for test in passed}
    ran = (ran - {test.partition("[")[0] for test in skipped}) | set(passed)
    return [
        f"{row['claim']} – {test} did not pass, or not in each case"
        for row in rows
        if row["word"] in PROMISES
        for test in row.get("shown_by", ())
        if test not in ran
    ]


def read_rows() -> list[dict[str, Any]]:
    """The rows of docs/support.toml."""
    rows: list[dict[str, Any]] = tomllib.loads((ROOT / "docs/support.toml").read_text())["row"]
    return rows


def list_proofs(rows: Iterable[Mapping[str, Any]]) -> set[str]:
    """The tests that rows name, by their ids, or without a case for each of their cases."""
    return {test for row in rows for test in row.get("shown_by", ())}


class Proofs:
    """A plugin of pytest that fails a whole run when a promise was not shown in it."""

    def __init__(self) -> None:
        self.passed: set[str] = set()
        self.skipped: set[str] = set()
        self.unproven: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what passed and what was skipped; with xdist the reports of all processes come here."""
        if report.when == "call" and report.passed:
            self.passed.add(report.nodeid)
        if report.skipped and "variants" not in report.keywords:
            self.skipped.add(report.nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail a run that would have passed."""
        if hasattr(session.config, "workerinput") or session.exitstatus != pytest.ExitCode.OK:
            return
        self.unproven = find_unproven(read_rows(), self.passed, self.skipped)
        if self.unproven:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Name the promises that were not shown."""
        for unproven in self.unproven:
            terminalreporter.write_line(f"docs/support.toml: {unproven}", red=True)

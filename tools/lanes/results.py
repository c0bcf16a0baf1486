"""Judges a run of a lane by pytest's report, and keeps its row in docs/lanes.toml."""

from __future__ import annotations

import json
import shutil
import subprocess
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from xml.etree import ElementTree

from . import LANES

_HEAD = """\
# What came of each test lane, when it was last run: `make lanes` and `make lane LANE=…` write this file.
# The table in docs/support.md is made from it. A lane that is not run says why.
"""


@dataclass
class Row:
    """What came of a lane: `passed`, `failed` or `not run`, with the number of its tests and the versions."""

    name: str
    date: date
    result: str
    why: str = ""
    # What it ran on; it ends with + when not all was committed.
    commit: str = ""
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: int = 0
    versions: dict[str, str] = field(default_factory=dict)


def find_commit(root: Path) -> str:
    """The commit that a lane runs on, with a + when files are not as they are there; nothing without git.

    The file with the results does not count: each lane writes it.
    """
    if shutil.which("git") is None:
        return ""

    def git(*words: str) -> str:
        place = ["git", "-C", str(root), f"--git-dir={root}/.git", f"--work-tree={root}"]
        return subprocess.run([*place, *words], capture_output=True, text=True).stdout.strip()

    commit = git("rev-parse", "--short=12", "HEAD")
    changes = git("status", "--porcelain", "--", ".", ":!docs/lanes.toml")
    return f"{commit}+" if changes else commit


def judge(name: str, today: date, code: int, report: Path) -> Row:
    """The row of a lane after its tests: it has passed when pytest says so, and a test told the versions."""
    row = Row(name, today, "failed", why=f"pytest ended with {code}, before its report")
    if not report.exists():
        return row
    suite = ElementTree.parse(report).getroot().find("testsuite")
    assert suite is not None, report
    total, skipped, *faults = (
        int(suite.attrib[each]) for each in ("tests", "skipped", "failures", "errors")
    )
    row.failed, row.skipped, row.passed = sum(faults), skipped, total - skipped - sum(faults)
    row.seconds = round(float(suite.attrib["time"]))
    row.versions = {each.attrib["name"]: each.attrib["value"] for each in suite.iter("property")}
    broken = [
        f"{case.attrib['classname'].rpartition('.')[2]}::{case.attrib['name']}"
        for case in suite.iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    ]
    if code:
        row.why = ", ".join(broken[:3]) or f"pytest ended with {code}"
    elif not row.passed or "python" not in row.versions:
        row.why = "no test told which versions it ran on"
    else:
        row.result, row.why = "passed", ""
    return row


def read(file: Path) -> list[Row]:
    """The rows of the file."""
    if not file.exists():
        return []
    return [Row(**row) for row in tomllib.loads(file.read_text(encoding="utf-8")).get("lane", ())]


def merged(rows: Iterable[Row], new: Row) -> list[Row]:
    """The rows with the new one in its place: in the order of the lanes, without lanes that are no more."""
    by_name = {row.name: row for row in (*rows, new)}
    return [by_name[name] for name in LANES if name in by_name]


def written(rows: Iterable[Row]) -> str:
    """The text of the file."""
    return "\n".join([_HEAD, *map(_table, rows)])


def _table(row: Row) -> str:
    lines = ["[[lane]]", f"name = {_text(row.name)}", f"date = {row.date}"]
    lines += [f"result = {_text(row.result)}"]
    if row.commit:
        lines += [f"commit = {_text(row.commit)}"]
    if row.why:
        lines += [f"why = {_text(row.why)}"]
    if row.result != "not run":
        lines += [
            f"{key} = {getattr(row, key)}" for key in ("passed", "failed", "skipped", "seconds")
        ]
        versions = (f"{_text(name)} = {_text(version)}" for name, version in row.versions.items())
        lines += [f"versions = {{ {', '.join(versions)} }}"]
    return "\n".join(lines) + "\n"


def _text(text: str) -> str:
    # A string of JSON is one of TOML.
    return json.dumps(text, ensure_ascii=False)

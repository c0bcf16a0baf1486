"""The guide *Failures and deploys*: each of its commands runs, and it says what is true."""

from __future__ import annotations

import re
import shlex

from flask import Flask

from flask_opsjobs.failures.count import HELD_FOR, NEW_PER_HOUR
from flask_opsjobs.failures.queries import MOST_JOBS
from tests.failures.conftest import FailureBench
from tests.support.sources import ROOT

GUIDE = ROOT / "docs/failures.md"
_COMMAND = re.compile(r"^\$ flask (.+)\n((?:(?!\$).+\n)*)", re.M)


def test_every_command_runs_and_prints_what_the_guide_shows(
    app: Flask, failing: FailureBench
) -> None:
    failing.fail()
    failing.count()
    runner = app.test_cli_runner()
    states = []
    for block in re.findall(r"^```console\n(.*?)^```", GUIDE.read_text(), re.M | re.S):
        for command, printed in _COMMAND.findall(block):
            run = runner.invoke(args=shlex.split(command))
            assert run.exit_code == 0, (command, run.output)
            for line in printed.splitlines():
                assert _without_times(line) in _without_times(run.output), command
            row = failing.failure()
            states.append((row["state"], row["resolved_in"], row["ignored_rate"]))
    assert states == [
        ("open", None, None),
        ("open", None, None),
        ("open", None, None),
        ("open", None, None),
        ("resolved", None, None),
        ("resolved", 1, None),
        ("ignored", None, None),
        ("ignored", None, None),
        ("ignored", None, 10),
    ]


def _without_times(text: str) -> str:
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "…", text)


def test_the_guide_says_the_bounds_of_the_code() -> None:
    text = " ".join(GUIDE.read_text().split())
    assert f"within {HELD_FOR.days} days" in text
    assert f"at most {NEW_PER_HOUR} new failures an hour" in text
    assert f"newest {MOST_JOBS} of them" in text

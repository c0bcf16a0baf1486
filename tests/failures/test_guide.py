"""The guide *Failures and deploys*: each of its commands runs, and it says what is true."""

from __future__ import annotations

import re
import shlex
from datetime import timedelta

from flask import Flask

from flask_opsjobs.failures.count import HELD_FOR, NEW_PER_HOUR
from flask_opsjobs.failures.queries import MOST_JOBS
from flask_opsjobs.lifeline.loop_runs import Note, note_pass
from tests.failures.conftest import FailureBench
from tests.support.guides import is_shown
from tests.support.sources import ROOT

GUIDE = ROOT / "docs/failures.md"
_COMMAND = re.compile(r"^\$ flask (.+)\n((?:(?!\$).+\n)*)", re.M)


def test_every_command_runs_and_prints_what_the_guide_shows(
    app: Flask, failing: FailureBench
) -> None:
    for ago in (timedelta(hours=3), timedelta(minutes=2)):
        failing.fail(ago=ago, error="KeyError: 'Idempotency-Key'")
    failing.count()
    note = Note("roll_up", "web-1:17", 5, 0.01, "nothing to do")
    note_pass(failing.bench.connection, None, note, failing.now)
    task = failing.failure()["task"]
    runner = app.test_cli_runner()
    states = []
    for block in re.findall(r"^```console\n(.*?)^```", GUIDE.read_text(), re.M | re.S):
        for command, printed in _COMMAND.findall(block):
            run = runner.invoke(args=shlex.split(command))
            assert run.exit_code == 0, (command, run.output)
            if printed:
                real = run.output.replace(task, "send_invoice")
                assert is_shown("docs/failures.md", f"flask {command}", real)
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


def test_the_guide_says_the_bounds_of_the_code() -> None:
    text = " ".join(GUIDE.read_text().split())
    assert f"within {HELD_FOR.days} days" in text
    assert f"at most {NEW_PER_HOUR} new failures an hour" in text
    assert f"newest {MOST_JOBS} of them" in text

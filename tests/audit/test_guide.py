"""The guide *Audit*: each of its commands runs and prints what it shows, and its bounds are the code's."""

from __future__ import annotations

import re
import shlex

from flask import Flask
from sqlalchemy.orm import Session

from flask_opsjobs import OpsJobs
from flask_opsjobs.audit import queries
from flask_opsjobs.host import Host
from flask_opsjobs.lifeline import retention
from flask_opsjobs.web.audit.decision import MOST_JOBS
from tests.support.sources import ROOT
from tests.web.rows import make_incident, make_job

GUIDE = ROOT / "docs/audit.md"
_COMMAND = re.compile(r"^\s*\$ flask (.+)\n((?:(?!\s*\$).+\n)*)", re.M)


def _decide(opsjobs: OpsJobs, host: Host) -> None:
    """Three decisions; the second one answers an incident."""
    with Session(host.engine, expire_on_commit=False) as session:
        job = make_job(session, "failed", queue="mail", lane="mail")
        session.flush()
        make_incident(session, "callback_failed", facts={"jobs": [job.id]})
        session.commit()
        operator = opsjobs.operator
    operator.pause("mail", actor="anna", reason="the vendor times out")
    operator.retry([job.id], actor="anna", reason="the vendor is back")
    operator.resume("mail", actor="anna", reason="the vendor is back")


def test_every_command_runs_and_prints_what_the_guide_shows(
    app: Flask, opsjobs: OpsJobs, host: Host
) -> None:
    with app.app_context():
        _decide(opsjobs, host)
    runner, commands = app.test_cli_runner(), []
    head = runner.invoke(args=["opsjobs", "audit", "verify"]).output.split()[-1]
    for block in re.findall(r"^ *```console\n(.*?)^ *```", GUIDE.read_text(), re.M | re.S):
        for command, printed in _COMMAND.findall(block):
            run = runner.invoke(args=shlex.split(command.replace("3:9f3c…", head)))
            assert run.exit_code == 0, (command, run.output)
            shown, real = _comparable(printed), _comparable(run.output)
            is_cut = not printed or "…" in printed
            assert real.startswith(shown) if is_cut else real == shown, command
            commands.append(command.split()[2])
    assert commands == ["list", "list", "verify", "verify", "verify"]


def _comparable(text: str) -> str:
    """The text without times and hashes, up to where the guide cuts it."""
    text = re.sub(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?(\+00:00)?", "TIME", text)
    return re.sub(r"[0-9a-f]{64}|9f3c(?=…)", "HASH", text).partition("…")[0].rstrip("\n")


def test_the_guide_says_the_bounds_of_the_code() -> None:
    text = " ".join(GUIDE.read_text().split())
    assert f"at most {queries.WINDOW:,} decisions are searched" in text
    assert f"Previews are kept for {retention._PREVIEW_SPAN.days} days" in text
    assert f"the first {MOST_JOBS:,} rows are looked at" in text

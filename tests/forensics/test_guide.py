"""The guide *Forensics and runbook handoffs*: its code runs, its commands print, and it says what is true."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from flask_opsjobs import OpsJobs
from flask_opsjobs.forensics.bundle import COMPLETENESS, OWNERS, STATUSES
from flask_opsjobs.forensics.runbooks import MOST_SECONDS, ask_runbook, find_declared
from flask_opsjobs.host import Host
from tests.support.sources import ROOT
from tests.web.rows import make_job

GUIDE = (ROOT / "docs/forensics.md").read_text()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.M | re.S)


def test_its_runbook_is_declared_and_its_check_is_asked(
    app: Flask, opsjobs: OpsJobs, host: Host
) -> None:
    code, *_ = _blocks("python")
    exec(code, {"opsjobs": opsjobs, "shutil": shutil})
    declared = find_declared(host, "cron/nightly_sync", ())
    assert declared is not None
    room, ledger = ask_runbook(host, declared, "cron/nightly_sync").prerequisites
    assert (room.state, room.says) == ("met", "10 MB are free")
    assert ledger.state == "unknown"


def test_its_commands_print_what_it_says(app: Flask, host: Host) -> None:
    with Session(host.engine) as session:
        make_job(session, queue="mail")
        session.commit()
    first, others = _blocks("console")
    for command in re.findall(r"^\$ flask (.+?)(?: > .*)?$", others, re.M):
        run = app.test_cli_runner().invoke(args=shlex.split(command))
        # Nothing is known of the job and the entry.
        assert (run.exit_code, bool(run.stdout)) == (0 if "queue" in command else 1, True), command
    (command,) = re.findall(r"^\$ flask (.+)$", first, re.M)
    run = app.test_cli_runner().invoke(args=shlex.split(command))
    assert run.exit_code == 0, run.output
    headings = re.findall(r"^## (.+)$", run.output, re.M)
    said = re.search(r"skeleton of a post-mortem: (.*?)\. Lines", " ".join(GUIDE.split()))
    assert said is not None
    assert said[1].split(", ") == [heading.lower() for heading in headings]


def test_its_function_is_called_and_its_hash_is_computed_again(
    app: Flask, opsjobs: OpsJobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, ask, check = _blocks("python")
    with app.app_context():
        exec(ask, {"opsjobs": opsjobs})
    run = app.test_cli_runner().invoke(args=["opsjobs", "forensics", "job/42"])
    (tmp_path / "job-42.json").write_text(run.stdout)
    monkeypatch.chdir(tmp_path)
    exec(check, {"json": json, "hashlib": hashlib, "Path": Path})


def test_it_names_every_word_and_bound_of_the_code() -> None:
    words = " ".join(GUIDE.split())
    for word in (*COMPLETENESS, *STATUSES):
        assert f"`{word}`" in words, word
    for owner in OWNERS.values():
        assert owner in words, owner
    assert MOST_SECONDS == 1
    assert "After one second" in words


def test_each_test_that_it_names_as_a_proof_exists() -> None:
    proofs = re.findall(r"\| tested \| `([^`]+)` \|", GUIDE)
    assert len(proofs) == 4
    assert all((ROOT / proof).exists() for proof in proofs)

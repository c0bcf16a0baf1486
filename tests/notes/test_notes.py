"""Notes: added once, by who may, to what exists; kept as written, also when their subject is gone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import Session

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.actions.shapes import Receipt
from flask_opsjobs.cli import opsjobs as group
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.errors import ActionRefused
from flask_opsjobs.forensics.export import FORMATS
from flask_opsjobs.forensics.find import find_bundle
from flask_opsjobs.host import Host
from flask_opsjobs.lifeline import retention
from flask_opsjobs.notes.queries import list_notes
from tests.conftest import MakeBench
from tests.support.engine import Bench, race
from tests.support.policies import AllowAll, HidesPasswords
from tests.support.readings import reading_at
from tests.web.rows import make_failure, make_incident, make_run, make_worker

TEXT = "the vendor confirms it tomorrow"
RecordJob = Callable[..., int]


@pytest.fixture
def operator(host: Host) -> Operator:
    return Operator(host)


@pytest.fixture
def subjects(host: Host, record_job: RecordJob) -> list[str]:
    """One of each kind that a note can be about."""
    job_id = record_job()
    with Session(host.engine) as session:
        run = make_run(session, {"first": job_id})
        incident, failure = make_incident(session), make_failure(session)
        worker = make_worker(session, name="web-1/a")
        found = [
            f"job/{job_id}",
            f"workflow/{run.id}",
            f"incident/{incident.id}",
            f"failure/{failure.id}",
            f"worker/{worker.name}",
        ]
        session.commit()
    return found


def texts(db: SQLAlchemy, subject: str) -> list[tuple[str, str]]:
    """The notes on a subject, newest first, each with its author."""
    found = [(note.actor, note.text) for note in list_notes(db.session(), subject)]
    db.session.rollback()
    return found


def test_a_note_on_each_kind_is_a_row_of_the_audit(
    bench: Bench, db: SQLAlchemy, operator: Operator, subjects: list[str]
) -> None:
    for subject in subjects:
        operator.note(subject, f"{TEXT}: {subject}", actor="anna")
        operator.note(subject, "<b>bold</b>\nand a second line", actor="ben")
    for subject in subjects:
        assert texts(db, subject) == [
            ("ben", "<b>bold</b>\nand a second line"),
            ("anna", f"{TEXT}: {subject}"),
        ]
    event = bench.row("SELECT * FROM opsjobs.audit_events WHERE sequence = 1")
    assert (event["action"], event["permission"], event["outcome"]) == (
        "note.add",
        "note.add",
        "done",
    )
    assert (event["subject"], event["targets"]) == (subjects[0], [subjects[0]])


def test_it_is_told_in_forensics_also_to_who_may_not_see_the_audit(
    bench: Bench, host: Host, db: SQLAlchemy, operator: Operator, subjects: list[str]
) -> None:
    for subject in subjects:
        operator.note(subject, TEXT, actor="anna")
        for may in (lambda _name: True, lambda name: name != "audit.view"):
            read = reading_at(db.session(), read_clock(bench.connection))
            bundle = find_bundle(host, read, subject, may)
            db.session.rollback()
            told = [event.text for event in bundle.timeline.events if event.label == TEXT]
            assert told == ["anna: note"]


@pytest.mark.parametrize("form", FORMATS)
def test_it_stands_in_each_file_of_forensics_as_the_display_policy_shows_it(
    app: Flask,
    host: Host,
    client: FlaskClient,
    operator: Operator,
    subjects: list[str],
    form: str,
) -> None:
    """From the page and from the command; in a file for tickets it is as in Markdown."""
    written = {subject: f"the card 4111-1111 of {subject} is blocked" for subject in subjects}
    for subject, text in written.items():
        operator.note(subject, text, actor="anna")

    def export(subject: str) -> dict[str, str]:
        """The files of each way, without what escapes signs in Markdown."""
        forms = [form, "ticket"] if form == "md" else [form]
        files = {
            name: client.get(f"/ops/jobs/export/forensics/{subject}?format={name}")
            for name in forms
        }
        assert {file.status_code for file in files.values()} == {200}
        words = ["forensics", subject, "--format", form]
        texts = {name: file.text for name, file in files.items()}
        texts["command"] = app.test_cli_runner().invoke(group, words).output
        return {name: text.replace("\\", "") for name, text in texts.items()}

    for subject, text in written.items():
        for file in export(subject).values():
            assert (file.count(text), file.count("anna: note")) == (1, 1)
    host.display = HidesPasswords()
    for subject, text in written.items():
        cleaned = text.replace("4111-1111", "[hidden: card]")
        for file in export(subject).values():
            assert (file.count(cleaned), file.count("anna: note")) == (1, 1)
            assert "4111-1111" not in file


@pytest.mark.parametrize(
    "subject", ["queue/mail", "job/x", "job/", "worker/", "note/7", "7", "job/1\0"]
)
def test_what_a_note_cannot_be_about_is_said(
    bench: Bench, operator: Operator, subject: str
) -> None:
    with pytest.raises(
        ActionRefused, match=r"is not a target of note\.add: write job/…, workflow/…"
    ):
        operator.note(subject, TEXT, actor="anna")
    assert bench.rows("SELECT 1 FROM opsjobs.audit_events") == []


@pytest.mark.parametrize(
    "subject", ["job/99", "workflow/99", "incident/99", "failure/99", "worker/nobody"]
)
def test_what_is_not_there_is_refused(db: SQLAlchemy, operator: Operator, subject: str) -> None:
    says = f"there is no {subject.replace('/', ' ')}"
    with pytest.raises(ActionRefused, match=says) as refused:
        operator.note(subject, TEXT, actor="anna")
    assert refused.value.code == "unknown_target"
    assert texts(db, subject) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x" * 100_000, "write a note in at most 2,000 characters"),
        ("x" * 2_001, "write a note in at most 2,000 characters"),
        ("no", "write a note, in at least 8 characters"),
        ("\u200b" * 20, "write a note, in at least 8 characters"),
        ("", "write a note, in at least 8 characters"),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_a_text_too_long_or_empty_is_refused_in_one_sentence(
    bench: Bench, operator: Operator, subjects: list[str], text: str, says: str
) -> None:
    with pytest.raises(ActionRefused, match=says):
        operator.note(subjects[0], text, actor="anna")
    assert bench.rows("SELECT 1 FROM opsjobs.audit_events") == []


def test_what_postgres_cannot_store_is_left_out(
    db: SQLAlchemy, operator: Operator, subjects: list[str]
) -> None:
    operator.note(subjects[0], " a NUL \0 and half a \udce4 character\x1b[2J", actor="anna")
    assert texts(db, subjects[0]) == [("anna", "a NUL  and half a ? character\x1b[2J")]


class Denying(AllowAll):
    """Denies one permission on one subject."""

    def __init__(self, subject: str) -> None:
        self.subject = subject

    def can(self, actor: str, permission: str, subject: str | None = None) -> bool:
        return (permission, subject) != ("note.add", self.subject)


def test_it_needs_its_permission_on_its_subject(
    bench: Bench, host: Host, operator: Operator, subjects: list[str]
) -> None:
    host.access = Denying(subjects[0])
    with pytest.raises(ActionRefused, match=r"it needs note\.add") as refused:
        operator.note(subjects[0], TEXT, actor="anna")
    assert refused.value.code == "unauthorized"
    assert operator.note(subjects[1], TEXT, actor="anna").is_done


def test_it_is_about_one_subject(operator: Operator, subjects: list[str]) -> None:
    receipt = operator.run("note.add", subjects[:2], actor="anna", reason=TEXT)
    assert "a note is about one subject" in receipt.says


def test_the_same_text_by_the_same_person_is_not_added_again(
    db: SQLAlchemy, operator: Operator, subjects: list[str]
) -> None:
    subject = subjects[0]
    operator.note(subject, TEXT, actor="anna")
    with pytest.raises(ActionRefused, match="the newest note on job 1, by anna, says the same"):
        operator.note(subject, f" {TEXT}\n", actor="anna")
    operator.note(subject, TEXT, actor="ben")
    operator.note(subject, TEXT, actor="anna")
    assert [actor for actor, _ in texts(db, subject)] == ["anna", "ben", "anna"]


@pytest.mark.parametrize("time", range(8))
def test_a_double_click_adds_one_and_two_persons_add_two(
    db: SQLAlchemy, operator: Operator, subjects: list[str], time: int
) -> None:
    def note(actor: str) -> Callable[[], Receipt]:
        return lambda: operator.run("note.add", [subjects[0]], actor=actor, reason=TEXT)

    receipts = race(note("anna"), note("anna"))
    assert sorted(receipt.code or "done" for receipt in receipts) == ["done", "illegal"]
    assert len(texts(db, subjects[0])) == 1
    receipts = race(note("ben"), note("cleo"))
    assert [receipt.is_done for receipt in receipts] == [True, True]
    assert len(texts(db, subjects[0])) == 3


def test_a_note_waits_for_no_lock_of_its_subject(
    bench: Bench, make_bench: MakeBench, operator: Operator, subjects: list[str]
) -> None:
    """So it makes no job and no worker wait either."""
    with bench.connection.transaction():
        bench.rows("SELECT 1 FROM opsjobs.jobs FOR UPDATE")
        bench.rows("SELECT 1 FROM opsjobs.workers FOR UPDATE")
        for subject in (subjects[0], subjects[-1]):
            assert operator.note(subject, TEXT, actor="anna").is_done


def test_it_stays_when_retention_removes_its_subject(
    bench: Bench, host: Host, db: SQLAlchemy, operator: Operator, record_job: RecordJob
) -> None:
    job_id = record_job(delay=3600)
    operator.cancel(job_id, actor="anna", reason=TEXT)
    operator.note(f"job/{job_id}", TEXT, actor="anna")
    later = read_clock(bench.connection) + timedelta(days=400)
    assert retention.retain(bench.connection, host.settings, later)["canceled jobs"] == 1
    assert texts(db, f"job/{job_id}") == [("anna", TEXT)]
    bundle = find_bundle(host, reading_at(db.session(), later), f"job/{job_id}")
    assert ("anna: note", TEXT) in [(event.text, event.label) for event in bundle.timeline.events]
    with pytest.raises(ActionRefused, match=f"there is no job {job_id}"):
        operator.note(f"job/{job_id}", "one more, too late", actor="anna")


def test_a_row_outside_the_chain_is_no_note(
    bench: Bench, db: SQLAlchemy, operator: Operator, subjects: list[str]
) -> None:
    operator.note(subjects[0], TEXT, actor="anna")
    columns: Any = "at, actor, via, action, subject, targets, reason, outcome, canonical, key_id"
    columns += ", previous_hash, hash"
    bench.rows(
        f"INSERT INTO opsjobs.audit_events (sequence, {columns})"
        f" SELECT 7, {columns} FROM opsjobs.audit_events RETURNING 1"
    )
    assert len(texts(db, subjects[0])) == 1

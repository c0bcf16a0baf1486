"""Each page names the command that tells of the same, which a shell reads as it was meant."""

from __future__ import annotations

import hashlib
import shlex
from typing import Any

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from flask_opsjobs.jobs.models import Job
from tests.web.conftest import Access
from tests.web.every import soup
from tests.web.rows import make_incident, make_job


def _command(answer: Any) -> list[str]:
    (flask, opsjobs, *words) = shlex.split(soup(answer.text).find(id="page-command").text)
    assert (flask, opsjobs) == ("flask", "opsjobs")
    return words


LISTS = {
    "": "doctor",
    "/tasks?sort=-wait&against=week": "tasks --against=week --sort=-wait",
    "/tasks?find=send": "tasks --find=send",
    "/queues": "queue list",
    "/queues?find=ma": "queue list --find=ma",
    "/workers": "workers",
    "/cron": "cron list",
    "/limiters": "limiter list",
    "/lifeline?severity=critical": "incidents --severity=critical",
    "/lifeline?state=ended&class=poison": "incidents --class=poison --state=resolved",
    "/lifeline?state=acknowledged": "incidents --state=acknowledged",
    "/lifeline?state=open": "incidents --state=active",
    "/lifeline/failures?state=ignored": "failures --state=ignored",
    "/operations": "operation list",
    "/operations?state=stopped": "operation list --state=stopped",
    "/audit?q=job/42&actor=anna&since=2h": "audit list --actor=anna --search=job/42 --since=2h",
    "/jobs": "jobs",
    "/jobs?state=failed&q=task:send_invoice": "jobs '--search=state:failed task:send_invoice'",
    "/jobs?q=created:today&zone=Europe/Berlin": "jobs '--search=created:today zone:Europe/Berlin'",
    "/jobs?state=failed&sort=-run&limit=50": "jobs --search=state:failed --sort=-run --limit=50",
}


@pytest.mark.parametrize("path", LISTS)
def test_a_list_names_its_command_with_its_filters_and_the_command_takes_them(
    get: Any, app: Flask, path: str
) -> None:
    words = _command(get(path))
    assert words == shlex.split(LISTS[path])
    said = app.test_cli_runner().invoke(args=["opsjobs", *words])
    assert "Usage:" not in said.output, said.output


@pytest.mark.slow
def test_a_subject_names_its_command_and_the_command_knows_it(
    get: Any, app: Flask, jobs: dict[str, Job], session: Session
) -> None:
    incident = make_incident(session, subject="loop/99")
    session.commit()
    job = jobs["failed"]
    for path, words in {
        f"/jobs/{job.id}": ["why", str(job.id)],
        f"/forensics/job/{job.id}": ["forensics", f"job/{job.id}", "--format=md"],
        f"/queues/{job.queue}": ["forensics", f"queue/{job.queue}", "--format=md"],
        f"/tasks/{job.task}": ["forensics", f"task/{job.task}", "--format=md"],
        f"/lifeline/incidents/{incident.id}": ["incident", "show", str(incident.id)],
        "/workflows/1": ["why", "workflow/1"],
        "/batches/1": ["why", "batch/1"],
        "/limiters/customer-api": ["limiter", "explain", "customer-api"],
        "/operations/1": ["operation", "show", "1"],
        "/audit/1": ["audit", "export", "--since=1", "--limit=1"],
    }.items():
        assert _command(get(path)) == words
        said = app.test_cli_runner().invoke(args=["opsjobs", *words])
        assert said.exit_code == 0, (words, said.output)


@pytest.mark.parametrize("name", ["o'brien; rm -rf /", "$(date) `id`", 'a"b\\c', "über uns"])
def test_a_name_is_one_word_of_the_shell(get: Any, session: Session, name: str) -> None:
    make_job(session, "available", queue=name)
    session.commit()
    assert _command(get(f"/queues/{name}")) == ["forensics", f"queue/{name}", "--format=md"]


def test_a_job_and_an_incident_have_markdown_for_a_ticket_for_who_may_see_forensics(
    get: Any, access: Access, jobs: dict[str, Job], session: Session
) -> None:
    incident = make_incident(session, subject="loop/99")
    session.commit()
    for path, subject in (
        (f"/jobs/{jobs['failed'].id}", f"job/{jobs['failed'].id}"),
        (f"/lifeline/incidents/{incident.id}", f"incident/{incident.id}"),
    ):
        button = soup(get(path).text).select_one("#fresh [data-copy-from]")
        url = str(button["data-copy-from"])
        assert subject in url
        assert soup(get(path).text).select_one(f"#fresh a[href='{url}']").text
        shown = get(url.removeprefix("/ops/jobs"))
        assert shown.mimetype == "text/plain"
        assert "Content-Disposition" not in shown.headers
        address, empty, title, *_ = shown.text.splitlines()
        assert (address, empty, title[:2]) == (f"http://localhost/ops/jobs{path}", "", "# ")
        *above, last = shown.text.splitlines(keepends=True)
        assert hashlib.sha256("".join(above).encode()).hexdigest() in last
        access.held.remove("forensics.view")
        assert not soup(get(path).text).select(f"#fresh a[href='{url}'], [data-copy-from]")
        access.held.add("forensics.view")
    assert not soup(get("/jobs").text).select("[data-copy-from]")

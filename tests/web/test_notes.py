"""Notes on the pages of their subjects: a list and a form that needs no script, and what refuses a note."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import text
from sqlalchemy.orm import Session

from flask_opsjobs.host import Host
from tests.support.policies import ShowAll
from tests.web.conftest import Access
from tests.web.every import soup
from tests.web.rows import make_failure, make_incident, make_job, make_run, make_worker

TEXT = "the vendor confirms it tomorrow"
Get = Callable[..., Any]


class Hides(ShowAll):
    """Hides one word."""

    def clean_text(self, text: str) -> str:
        return text.replace("sesame", "[hidden]")


@pytest.fixture
def pages(session: Session, host: Host) -> dict[str, str]:
    """The page of a subject of each kind, below the prefix."""
    job = make_job(session, "failed")
    run = make_run(session, {"first": make_job(session, "finished").id})
    incident, failure = make_incident(session), make_failure(session)
    make_worker(session, name="web-1")
    session.commit()
    return {
        "job": f"/jobs/{job.id}",
        "workflow": f"/workflows/{run.id}",
        "incident": f"/lifeline/incidents/{incident.id}",
        "failure": f"/lifeline/failures/{failure.id}",
        "worker": "/forensics/worker/web-1",
    }


@pytest.fixture
def send(client: FlaskClient) -> Callable[..., Any]:
    """Sends the form of the panel on a page, as a browser does."""

    def send(page: str, note: str, status: int = 303) -> Any:
        form = _form(client.get(f"/ops/jobs{page}"))
        fields = {field["name"]: field["value"] for field in form.select("input[name]")}
        return send_to(str(form["action"]), {**fields, "note": note}, status)

    def send_to(path: str, fields: dict[str, str], status: int) -> Any:
        headers = {"Sec-Fetch-Site": "same-origin"}
        response = client.post(path, data=fields, headers=headers)
        assert response.status_code == status, response.text
        return response

    return send


def _panel(response: Any) -> Any:
    return soup(response.text).find("section", {"aria-labelledby": "notes"})


def _form(response: Any) -> Any:
    return soup(response.text).find("section", {"aria-label": "New note"}).form


def _words(tree: Any) -> str:
    return " ".join(tree.get_text(" ").split())


def _count(session: Session) -> int:
    session.rollback()
    wanted = (
        "SELECT count(*) FROM opsjobs.audit_events WHERE action = 'note.add' AND outcome = 'done'"
    )
    return session.scalar(text(wanted)) or 0


@pytest.mark.parametrize("kind", ["job", "workflow", "incident", "failure", "worker"])
def test_a_note_is_added_and_shown_as_text(
    kind: str, pages: dict[str, str], get: Get, send: Any
) -> None:
    page = pages[kind]
    assert "Nobody has written a note" in _words(_panel(get(page)))
    answer = send(page, "<script>alert(1)</script>\r\nsecond line \x1b[2J")
    assert answer.location == f"/ops/jobs{page}#notes"
    send(page, TEXT)
    newest, oldest = _panel(get(page)).select(".note")
    assert newest.blockquote.text == TEXT
    assert oldest.blockquote.text == "<script>alert(1)</script>\nsecond line \\x1b[2J"
    assert oldest.script is None
    assert oldest.a["href"] == "/ops/jobs/audit/1"
    # An open page shows the note of a colleague too.
    live = soup(get(page).text).find(id="live")
    assert TEXT in _words(_panel(get(str(live["hx-get"]).removeprefix("/ops/jobs"))))
    assert live.textarea is None


def test_a_double_click_adds_it_once(pages: dict[str, str], send: Any, session: Session) -> None:
    for _ in range(2):
        send(pages["job"], TEXT)
    assert _count(session) == 1


@pytest.mark.parametrize(
    ("note", "says"),
    [
        (
            "y" * 50_000,
            "Write a note in at most 2,000 characters; the field keeps the first 2,000 of 50,000.",
        ),
        ("no", "Write a note, in at least 8 characters"),
    ],
    ids=["too long", "too short"],
)
def test_what_is_refused_is_kept_in_the_field(
    note: str, says: str, pages: dict[str, str], send: Any, session: Session
) -> None:
    page = soup(send(pages["job"], note, 422).text)
    assert says in _words(page.main)
    assert page.find(id="note").text == note[:2000]
    assert page.select_one("main input[name=back]")["value"] == f"/ops/jobs{pages['job']}"
    assert _count(session) == 0


def test_a_note_of_a_hundred_kilobytes_is_refused_unread(
    pages: dict[str, str], send: Any, session: Session
) -> None:
    page = soup(send(pages["job"], "y" * 100_000, 413).text)
    assert "A reason or a note has at most 2,000 characters" in _words(page.main)
    assert _count(session) == 0


def test_its_subject_may_be_removed_meanwhile(
    pages: dict[str, str], client: FlaskClient, session: Session
) -> None:
    url = f"/ops/jobs{pages['incident']}/note"
    session.execute(text("DELETE FROM opsjobs.evidence"))
    session.execute(text("DELETE FROM opsjobs.incidents"))
    session.commit()
    fields, headers = {"note": TEXT}, {"Sec-Fetch-Site": "same-origin"}
    response = client.post(url, data=fields, headers=headers)
    assert response.status_code == 404
    page = soup(response.text)
    assert "There is no incident 1." in _words(page.main)
    assert page.find(id="note").text == TEXT


def test_who_may_not_sees_the_notes_and_no_field(
    pages: dict[str, str], get: Get, client: FlaskClient, send: Any, access: Access
) -> None:
    send(pages["failure"], TEXT)
    access.held -= {"note.add", "audit.view"}
    page = get(pages["failure"])
    panel, form = _panel(page), _form(page)
    assert panel.select_one(".note blockquote").text == TEXT
    assert panel.select_one(".note a") is None
    assert form.textarea.has_attr("disabled")
    assert _words(form.button) == "Add note needs note.add"
    url, headers = f"/ops/jobs{pages['failure']}/note", {"Sec-Fetch-Site": "same-origin"}
    response = client.post(url, data={"note": TEXT}, headers=headers)
    assert response.status_code == 403
    assert "note.add" in response.text


def test_it_passes_the_display_policy(
    pages: dict[str, str], get: Get, send: Any, host: Host
) -> None:
    send(pages["job"], "the password is sesame, they say")
    host.display = Hides()
    page = get(pages["job"])
    assert _panel(page).blockquote.text == "the password is [hidden], they say"
    assert "sesame" not in page.text

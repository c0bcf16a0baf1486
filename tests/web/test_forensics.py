"""The picker of forensics, the page of one subject, who sees what of it, and its files."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from flask_opsjobs import OpsJobs
from flask_opsjobs._folders import folder
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.forensics.export import FORMATS
from flask_opsjobs.host import Host
from flask_opsjobs.queues.models import Queue
from flask_opsjobs.web.forensics import looks
from tests.support.clock import Clock
from tests.support.policies import ShowAll
from tests.web.conftest import Access
from tests.web.every import soup
from tests.web.rows import (
    ago,
    make_attempt,
    make_incident,
    make_job,
    make_limiter,
    make_loops,
    paused,
)

Get = Callable[..., Any]
FILES = [f"?format={name}" for name in FORMATS]


def words(text: str) -> str:
    return " ".join(soup(text).main.text.split())


# --- the picker


@pytest.mark.parametrize("asked", ["{id}", "opsjobs-{id}-3", "job/{id}", "job/00{id}", "  {id} "])
def test_an_id_leads_to_the_forensics_of_the_job(get: Get, session: Session, asked: str) -> None:
    job = make_job(session)
    session.commit()
    found = get("/forensics", 303, query_string={"subject": asked.format(id=job.id)})
    assert found.location == f"/ops/jobs/forensics/job/{job.id}"


def test_a_name_leads_to_its_subject_and_one_of_several_is_chosen(
    get: Get, session: Session, access: Access
) -> None:
    make_job(session, queue="a/b c")
    make_job(session, queue="mail")
    session.commit()
    found = get("/forensics", 303, query_string={"subject": "a/b c"})
    assert found.location == "/ops/jobs/forensics/queue/a/b%20c"
    make_incident(session)
    session.commit()
    text = get("/forensics").text
    assert "The loop stage fails" in words(text)
    access.held.discard("lifeline.view")
    assert "The loop stage fails" not in words(get("/forensics").text)
    # What the reader may not see is not said to exist.
    access.held.discard("queues.view")
    assert "Nothing that you may see" in words(
        get("/forensics", 404, query_string={"subject": "mail"}).text
    )


@pytest.mark.parametrize("asked", ["nothing of this name", "job/abc", "x" * 300, "a\0b", "%"])
def test_what_names_nothing_is_asked_for_again(get: Get, asked: str) -> None:
    tree = soup(get("/forensics", 404, query_string={"subject": asked}).text)
    assert tree.select_one("#q")["value"] == asked.replace("\0", "\ufffd")
    assert "Nothing that you may see is called" in tree.main.text


# --- the page


@pytest.fixture
def decided(session: Session, host: Host) -> str:
    """The address of a queue that somebody paused while all loops run."""
    make_loops(session, started_at=ago(days=2))
    make_job(session, queue="mail")
    session.add(Queue(name="mail", created_at=ago(days=1)))
    session.commit()
    Operator(host).run("queue.pause", ["queue/mail"], actor="anna", reason="mail server moves")
    return "/forensics/queue/mail"


def test_it_says_what_happened_and_whose_the_next_path_is(get: Get, decided: str) -> None:
    tree = soup(get(decided).text)
    assert "mail server moves" in tree.select_one(".say").text
    first = tree.select_one(".paths li")
    assert "OpsJobs-native" in first.text
    button = first.select_one("button[form=actions]")
    assert button["formaction"] == "/ops/jobs/queues/mail/resume"
    link = tree.select_one("ol.line a.source[href*='/audit/']")
    assert "mail server moves" in words(get(link["href"].removeprefix("/ops/jobs")).text)
    assert tree.select_one(".lead a")["href"] == "/ops/jobs/queues/mail"
    assert tree.select_one("[data-looked]")["data-looked"] == "queue/mail"
    permalink = tree.select_one("#ticket").text.split()[-1]
    assert permalink == "http://localhost/ops/jobs/forensics/queue/mail"


@pytest.mark.parametrize("loops", [True, False])
@pytest.mark.parametrize(
    "subject",
    ["queue/mail", "queue/default", "task/send_invoice", "limiter/customer-api", "job/{}"],
)
def test_equal_facts_give_equal_answers_although_the_day_moves(
    client: FlaskClient, session: Session, clock: Clock, subject: str, loops: bool
) -> None:
    """Of what is older than all that is kept of the loops, and of a queue of which nothing is stored."""
    if loops:
        make_loops(session, started_at=ago(days=2))
    job = make_job(session, queue="mail", created_at=ago(days=40))
    make_limiter(session)
    session.commit()
    path = f"/ops/jobs/live/forensics/{subject.format(job.id)}"
    first = client.get(path)
    clock.forward(seconds=10)
    again = client.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


def test_its_parts_are_in_the_order_of_a_reader(get: Get, decided: str) -> None:
    titles = [heading.text for heading in soup(get(decided).text).select("h1, h2")]
    order = ["Queue mail", "What may I do", "Timeline", "Evidence", "What is not known", "Export"]
    assert [title for title in titles if title in order] == order


def test_the_page_of_a_subject_leads_there_and_only_who_may_see_it(
    get: Get, session: Session, decided: str, access: Access
) -> None:
    job = make_job(session)
    session.commit()
    for path, subject in (("/queues/mail", "queue/mail"), (f"/jobs/{job.id}", f"job/{job.id}")):
        link = soup(get(path).text).select_one(".fresh a")
        assert link["href"] == f"/ops/jobs/forensics/{subject}"
    access.held.discard("forensics.view")
    assert soup(get("/queues/mail").text).select_one(".fresh a") is None
    get(decided, 403)


def test_it_needs_the_permission_of_the_subject_s_page_too(
    get: Get, decided: str, access: Access
) -> None:
    access.denied.add(("queues.view", "queue/mail"))
    for path in (decided, f"/live{decided}", f"/export{decided}?format=json"):
        assert "queues.view" in get(path, 403).text
    get("/forensics/queue/other")


@pytest.mark.parametrize("path", ["job/abc", "nothing/7", "job/-1", "job/7/8"])
def test_what_can_name_nothing_is_not_found(get: Get, path: str) -> None:
    for start in ("/forensics", "/live/forensics", "/export/forensics"):
        assert "names no subject" in get(f"{start}/{path}", 404).text


def test_one_of_whom_nobody_knows_says_unknown(get: Get) -> None:
    tree = soup(get("/forensics/queue/nobody-s").text)
    assert "unknown" in [chip.text for chip in tree.select(".chip.big")]
    assert "Nothing is known" in tree.select_one(".say").text
    assert not tree.select(".paths button")


def test_a_runbook_stands_on_the_page_with_what_its_checks_say(
    get: Get, opsjobs: OpsJobs, decided: str
) -> None:
    opsjobs.runbook(
        "queue/mail",
        title="Move the mail server",
        url="https://wiki.example/mail",
        prerequisites={"the new one answers": lambda _: False, "the team knows": None},
        cautions=["Reminders are late."],
    )
    panel = soup(get(decided).text).select_one("[aria-labelledby=runbook]")
    assert panel.select_one("a")["href"] == "https://wiki.example/mail"
    said = " ".join(panel.text.split())
    assert "missing: the new one answers" in said
    assert "unknown: the team knows (a person must answer it)" in said
    assert "Caution: Reminders are late." in said


# --- what may be seen

# Two secrets: one that the policy finds in texts, one that only its kind of text, payload, keeps.
SECRET, PAYLOAD = "hunter2-and-more", "the-customer-s-iban"


class _Cleans(ShowAll):
    def clean_text(self, text: str) -> str:
        return text.replace(SECRET, "[hidden: secret]")


@pytest.fixture
def leaky(
    session: Session, make_app: Callable[..., Flask], opsjobs: OpsJobs, access: Access
) -> Any:
    """A client, and the addresses of subjects whose texts hold both secrets."""
    app = make_app(opsjobs=opsjobs, access=access, display=_Cleans())
    job = make_job(
        session,
        "failed",
        task="charge",
        queue="mail",
        args={"iban": PAYLOAD, "key": SECRET},
        meta={"iban": PAYLOAD},
        tags=[SECRET],
        error=f"{PAYLOAD} {SECRET}",
    )
    make_attempt(
        session,
        job,
        error=f"{PAYLOAD} {SECRET}",
        traceback=f"{PAYLOAD} {SECRET}",
        log_tail=f"{PAYLOAD} {SECRET}",
        worker="web-1",
        cause_of_death=SECRET,
        progress_note=f"{PAYLOAD} {SECRET}",
    )
    values = paused() | {"paused_reason": SECRET}
    session.add(Queue(name="mail", created_at=ago(days=1), **values))
    session.commit()
    opsjobs.runbook("job", title=SECRET, prerequisites={SECRET: None}, cautions=[SECRET])
    attempt = f"attempt/{job.id}-{job.dispatch_no}"
    return app.test_client(), [f"job/{job.id}", attempt, "queue/mail"]


@pytest.mark.parametrize("may_see", [True, False])
def test_no_page_and_no_file_shows_what_its_reader_may_not_see(
    leaky: Any, access: Access, may_see: bool
) -> None:
    client, subjects = leaky
    if not may_see:
        access.held.discard("payload.view")
    seen = 0
    for subject in subjects:
        paths = [f"forensics/{subject}", f"live/forensics/{subject}"]
        for path in [*paths, *(f"export/forensics/{subject}{file}" for file in FILES)]:
            answer = client.get(f"/ops/jobs/{path}")
            assert answer.status_code == 200, path
            assert SECRET not in answer.text, path
            assert SECRET not in str(answer.headers), path
            seen += PAYLOAD in answer.text
    assert (seen > 0) == may_see


# --- its files


def test_a_file_names_its_reader_its_time_and_its_hash(get: Get, decided: str) -> None:
    for name, format_ in FORMATS.items():
        answer = get(f"/export{decided}?format={name}")
        assert answer.mimetype == format_.mimetype
        assert re.fullmatch(
            rf'attachment; filename="opsjobs-forensics-queue-mail-\d{{8}}T\d{{6}}Z\.{name}"',
            answer.headers["Content-Disposition"],
        )
        assert answer.headers["Cache-Control"] == "no-store"
        assert "tester" in answer.text
        assert "mail server moves" in answer.text
        if name == "json":
            assert json.loads(answer.text)["reader"] == "tester"
            continue
        *above, last = answer.text.splitlines(keepends=True)
        assert hashlib.sha256("".join(above).encode()).hexdigest() in last
    assert "is not one of md, html, json" in get(f"/export{decided}?format=pdf", 422).text


# --- how it looks


def test_every_look_has_its_symbol_and_its_colour() -> None:
    sprite = (folder("templates") / "opsjobs/_sprite.html").read_text()
    sheet = (folder("static") / "opsjobs.css").read_text()
    grey = {"waiting", "available", "deferred", "scheduled", "queued", "canceled", "skipped"}
    found = [*looks.COMPLETENESS.values(), *looks._LOOKS.values(), *looks._OF_KIND.values()]
    for status, shape in found:
        assert f'id="g-{shape}"' in sprite, shape
        assert status in grey or f'[data-is="{status}"]' in sheet, status

"""The form that edits a job: what it shows and hides, its faults, and what it sends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from flask_opsjobs import OpsJobs
from flask_opsjobs.jobs.lifecycle import STATES, sources_of
from flask_opsjobs.jobs.models import Job
from tests.support.policies import HidesPasswords
from tests.web.conftest import Access
from tests.web.every import soup
from tests.web.rows import make_job
from tests.web.test_actions import Post
from tests.web.test_actions import post as post

Get = Callable[..., Any]
SECRET = "s3cr3t-value"


@pytest.fixture
def app(make_app: Callable[..., Flask], opsjobs: OpsJobs, access: Access) -> Flask:
    @opsjobs.task(redact={"pin"})
    def sign_in(
        user: str = "", password: str = "", card: str = "", number: int = 0, pin: str = ""
    ) -> None: ...

    return make_app(opsjobs=opsjobs, access=access, display=HidesPasswords())


@pytest.fixture
def job(session: Session) -> Job:
    args = {"user": "u", "number": 1, "password": SECRET, "card": "4111-1111", "pin": SECRET}
    made = make_job(session, task="sign_in", args=args)
    session.commit()
    return made


def fields(text: str) -> dict[str, str]:
    form = soup(text).select_one("#main form[action$='/edit']")
    return {
        field["name"]: field.get("value", field.text.strip())
        for field in form.select("input:not([type=hidden]), textarea")
    }


@pytest.mark.parametrize("state", STATES)
def test_a_job_that_waits_has_the_form(
    state: str, get: Get, access: Access, jobs: dict[str, Job]
) -> None:
    path, href = f"/jobs/{jobs[state].id}", f"/ops/jobs/edit/jobs/{jobs[state].id}"
    can_be_edited = state in sources_of("edit")
    links = soup(get(path).text).select(f"#part a[href='{href}']")
    assert [link.text.strip() for link in links] == ["Edit…"] * can_be_edited
    page = soup(get(f"/edit{path}").text)
    assert (page.select_one("#main form[action$='/edit']") is not None) == can_be_edited
    if not can_be_edited:
        assert f"job {jobs[state].id}: " in page.select_one("#main p.empty").text
    access.held -= {"job.edit"}
    shown = " ".join(soup(get(path).text).select_one("#part .actions").text.split())
    assert ("Edit needs job.edit" in shown) == can_be_edited


def test_it_shows_what_may_be_shown_and_names_the_rest(get: Get, job: Job) -> None:
    text = get(f"/edit/jobs/{job.id}").text
    assert fields(text) == {
        "queue": job.queue,
        "priority": "5",
        "args": '{\n  "user": "u",\n  "number": 1\n}',
    }
    assert "kept as they are: card, password, pin" in text
    assert SECRET not in text
    assert "4111-1111" not in text


def test_without_payload_it_shows_no_argument(get: Get, access: Access, job: Job) -> None:
    access.held -= {"payload.view"}
    text = get(f"/edit/jobs/{job.id}").text
    assert fields(text)["args"] == ""
    assert "kept as they are: card, number, password, pin, user" in text


def test_what_is_hidden_stays_as_it_is(get: Get, post: Post, session: Session, job: Job) -> None:
    typed = fields(get(f"/edit/jobs/{job.id}").text) | {"priority": "1", "args": '{"user": "anna"}'}
    answer = post(f"/jobs/{job.id}/edit", 303, **typed)
    path = answer.location.removeprefix("/ops/jobs").partition("?")[0]
    page = get(path)
    assert SECRET not in page.text
    rows = [" ".join(row.text.split()) for row in soup(page.text).select("table.diff tbody tr")]
    assert rows == [
        "priority 5 1",
        'args { "user": "u" } { "user": "anna" }',
    ]
    token = soup(page.text).select_one("input[name=token]")["value"]
    post(f"{path}/execute", 303, token=token, reason="because it is a test")
    session.expire_all()
    edited = session.get(Job, job.id)
    assert edited is not None
    assert (edited.priority, edited.args) == (1, {**job.args, "user": "anna"})


@pytest.mark.parametrize(
    ("typed", "field", "says"),
    [
        ({"queue": "my queue"}, "queue", "queue 'my queue' is not a name"),
        ({"priority": "12"}, "priority", "priority must be a whole number from 0"),
        ({"args": "{"}, "args", "args is JSON such as"),
        ({"args": '{"number": "many"}'}, "args", "number: Input should be a valid integer"),
        ({"args": '{"numbr": 3}'}, "args", "numbr: "),
        ({"args": '{"pin": "1"}'}, "args", "argument pin is redacted"),
    ],
)
def test_a_fault_stands_below_its_field_and_nothing_is_lost(
    post: Post, session: Session, job: Job, typed: dict[str, str], field: str, says: str
) -> None:
    sent = {"queue": "slow", "priority": "3", "args": "", **typed}
    answer = post(f"/jobs/{job.id}/edit", 422, **sent)
    page = soup(answer.text)
    assert fields(answer.text) == sent
    assert says in page.select_one(f"#r-{field}").text
    assert page.select_one("[role=alert]") is not None
    wrong = page.select("[aria-invalid=true]")
    assert [one["aria-describedby"] for one in wrong] == [f"r-{field}"]
    session.expire_all()
    assert session.get(Job, job.id).priority == 5

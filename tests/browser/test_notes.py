"""Notes in a real browser: no barrier on the pages that have them, and the keyboard alone adds one."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from flask_opsjobs import JobFilter
from flask_opsjobs.operations.operator import BulkOperator
from tests.browser.test_keyboard import go_to
from tests.browser.test_pages import noise
from tests.support.browser import faults
from tests.web.rows import make_failure, make_incident, make_job, make_run, make_worker

__all__ = ["noise"]

pytestmark = [pytest.mark.browser, pytest.mark.slow]

LONG = "a_name_of_eighty_characters_that_cannot_be_broken_anywhere_because_it_is_a_word_"
TEXT = "The vendor confirms it tomorrow.\nUntil then nobody retries it: see OPS-2291 " + LONG * 2


@pytest.fixture
def pages(app: Flask) -> dict[str, str]:
    """The page of a subject of each kind with two notes, a preview and a draft that can be handed on."""
    host = app.extensions["opsjobs"]
    with Session(host.engine) as session:
        job = make_job(session, "failed", task=LONG)
        run = make_run(session, {"first": make_job(session, "finished").id}, name=LONG)
        incident, failure = make_incident(session), make_failure(session, LONG)
        make_worker(session, name=LONG)
        session.commit()
        ids = {"job": job.id, "workflow": run.id, "incident": incident.id, "failure": failure.id}
    operator = BulkOperator(host)
    for subject in [*(f"{kind}/{id}" for kind, id in ids.items()), f"worker/{LONG}"]:
        operator.note(subject, TEXT, actor="tester")
        operator.note(subject, "<b>It answers again.</b>", actor=LONG)
    shown = operator.preview("job.retry", [f"job/{ids['job']}"], actor=LONG, via="page")
    draft = operator.draft("job.retry", JobFilter(state="failed"), actor=LONG)
    return {
        "job": f"/jobs/{ids['job']}",
        "workflow": f"/workflows/{ids['workflow']}",
        "incident": f"/lifeline/incidents/{ids['incident']}",
        "failure": f"/lifeline/failures/{ids['failure']}",
        "worker": f"/forensics/worker/{LONG}",
        "preview": f"/previews/{shown.id}",
        "draft": f"/operations/{draft.id}",
    }


@pytest.mark.parametrize(
    "names",
    [
        ("worker", "preview"),
        # The notes on them are drawn as those of a job, and the rest is on pages of other tests.
        pytest.param(
            ("job", "workflow", "incident", "failure", "draft"), marks=pytest.mark.variants
        ),
    ],
)
def test_no_barrier_and_nothing_sideways_at_any_size(
    page: Any, pages: dict[str, str], noise: list[str], names: tuple[str, ...]
) -> None:
    found = []
    for name in names:
        page.goto(f"/ops/jobs{pages[name]}")
        found += faults(page)
    assert not found, "\n".join(found)
    assert noise == []


def test_a_note_that_is_too_short_is_refused_without_a_barrier(
    page: Any, pages: dict[str, str], noise: list[str]
) -> None:
    page.goto(f"/ops/jobs{pages['job']}")
    page.eval_on_selector("#note", "field => field.removeAttribute('minlength')")
    page.fill("#note", "short")
    page.click("text=Add note")
    assert "Write a note, in at least 8 characters" in page.inner_text("#note-rule")
    assert faults(page) == []
    assert [line for line in noise if "422" not in line] == []


def test_the_form_stands_in_its_panel_as_the_notes_do(page: Any, pages: dict[str, str]) -> None:
    page.goto(f"/ops/jobs{pages['job']}")
    left = "one => one.getBoundingClientRect().left"
    assert page.eval_on_selector("#note", left) == page.eval_on_selector(".note", left)


def test_the_keyboard_alone_adds_a_note(either_page: Any, pages: dict[str, str]) -> None:
    either_page.goto(f"/ops/jobs{pages['job']}")
    go_to(either_page, "#note")
    either_page.keyboard.type("typed by hand, r and j included")
    either_page.keyboard.press("Tab")
    either_page.keyboard.press("Enter")
    either_page.wait_for_url("**#notes")
    shown = either_page.inner_text(".note blockquote >> nth=0")
    assert shown == "typed by hand, r and j included"

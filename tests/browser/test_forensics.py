"""Forensics in a real browser: the journey by keyboard alone, no barrier at any size, its file of HTML."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from flask_opsjobs import OpsJobs
from flask_opsjobs.cron import transitions
from flask_opsjobs.cron.declaration import EntryDeclaration
from flask_opsjobs.cron.expression import Schedule
from flask_opsjobs.forensics.html import write_bundle_html
from tests.browser.test_keyboard import go_to
from tests.forensics.bundles import make_bundle
from tests.support.browser import faults
from tests.support.policies import AllowAll
from tests.web.rows import ago, make_deploy, make_incident, make_job, make_loops, make_worker

pytestmark = [pytest.mark.browser, pytest.mark.slow]

REASON = "the CRM is moved tonight, OPS-311"
LONG = "marketplace-settlement-reconciliation-europe-west-priority-customers-overnight-1"


class _Demo(AllowAll):
    actor = "ops-demo"


@pytest.fixture
def app(make_app: Callable[..., Flask], opsjobs: OpsJobs) -> Flask:
    """A host whose operator is `ops-demo`, with the cron entry `nightly_sync`, and its loops."""
    app = make_app(access=_Demo(), opsjobs=opsjobs)
    with Session(app.extensions["opsjobs"].engine) as session:
        make_loops(session, started_at=ago(days=3))
        make_deploy(session)
        make_job(session, "failed", queue=LONG, task=LONG, error="out of memory")
        make_worker(session, "missing", name=LONG, queues=[LONG])
        make_incident(session)
        connection: Any = session.connection().connection.driver_connection
        schedule = Schedule("30 3 * * *", "Europe/Berlin")
        entry = EntryDeclaration("nightly_sync", "sync", schedule, "skip", "none", None, {})
        transitions.create(connection, entry, "code", "web-1", ago(days=2))
        session.commit()
    opsjobs.runbook(
        "cron/nightly_sync",
        title="Pause the nightly sync",
        url="https://wiki.example/nightly-sync",
        prerequisites={"the CRM answers": lambda _: True, LONG: lambda _: False, "a": None},
        cautions=["Contacts are a day late."],
    )
    return app


def test_an_entry_is_paused_and_found_in_forensics_and_audit_by_keyboard(page: Any) -> None:
    page.goto("/ops/jobs")
    page.keyboard.press("g")
    page.keyboard.press("e")
    page.wait_for_selector("h1:has-text('Forensics')")
    page.wait_for_load_state()
    page.keyboard.press("/")
    page.keyboard.type("nightly_sync")
    page.keyboard.press("Enter")
    page.wait_for_url("**/forensics/cron/nightly_sync")
    assert "OpsJobs-native" in page.inner_text(".paths li >> nth=0")
    go_to(page, ".paths [formaction$='/cron/nightly_sync/pause']")
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open] #reason:focus")
    page.keyboard.type(REASON)
    go_to(page, "dialog button.main")
    page.keyboard.press("Enter")
    page.wait_for_selector("#toast .say")
    page.wait_for_selector(f".line li:has-text('{REASON}')")
    assert "paused" in page.inner_text("h1 ~ .chip.big >> nth=0")
    go_to(page, ".line a.source")
    page.keyboard.press("Enter")
    page.wait_for_url("**/audit/*")
    said = page.inner_text("main")
    assert "ops-demo" in said
    assert "cron.pause" in said
    assert REASON in said
    # What was looked at is found again, in this browser.
    page.keyboard.press("g")
    page.keyboard.press("e")
    page.wait_for_selector("#looked:not([hidden])")
    assert page.inner_text("#looked a") == "cron/nightly_sync"
    go_to(page, "#looked a")
    page.keyboard.press("Enter")
    page.wait_for_url("**/forensics/cron/nightly_sync")


PAGES = (
    "/forensics",
    "/forensics/cron/nightly_sync",
    "/forensics/job/1",
    f"/forensics/worker/{LONG}",
)
# Their parts stand on pages above.
ALIKE = (f"/forensics/queue/{LONG}", "/forensics/incident/1", "/forensics/job/987654")


@pytest.mark.parametrize("paths", [PAGES, pytest.param(ALIKE, marks=pytest.mark.variants)])
def test_no_page_has_a_barrier_or_scrolls_sideways(page: Any, paths: tuple[str, ...]) -> None:
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    for path in paths:
        page.goto(f"/ops/jobs{path}")
        assert faults(page) == []
    assert complaints == []


def test_the_file_of_html_shows_itself_without_a_request(page: Any, tmp_path: Path) -> None:
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    file = tmp_path / "post-mortem.html"
    file.write_bytes(write_bundle_html(make_bundle(LONG), "ops-demo", "production"))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for width in (1440, 360):
        page.set_viewport_size({"width": width, "height": 800})
        page.goto(file.as_uri())
        assert page.evaluate("getComputedStyle(document.querySelector('main')).maxWidth") == "960px"
    assert faults(page) == []
    assert {url for url in asked if not url.startswith("file:")} == set()
    assert complaints == []

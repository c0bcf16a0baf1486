"""The page of an incident on a phone: what one needs at night is on the first screen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from flask_opsjobs.lifeline.detectors import DETECTORS
from flask_opsjobs.lifeline.finding import Detector
from tests.support.browser import barriers, is_sideways
from tests.web.rows import ago, make_incident, make_job, make_worker

pytestmark = [pytest.mark.browser, pytest.mark.slow]

LONG = "marketplace-settlement-reconciliation-europe-west-priority-customers-overnight-1"


@pytest.fixture
def incident(app: Flask, monkeypatch: pytest.MonkeyPatch) -> int:
    """An incident of a loop with a long name, whose repair cancels two jobs."""
    detector = replace(DETECTORS["loop_failing"], repairs=("job.cancel", "queue.pause"))
    monkeypatch.setitem(cast("dict[str, Detector]", DETECTORS), "loop_failing", detector)
    with Session(app.extensions["opsjobs"].engine) as session:
        jobs = [make_job(session, queue=LONG).id for _ in range(2)]
        facts = {"loop": LONG, "jobs": jobs, "queue": LONG}
        found = make_incident(session, facts=facts, affected=2, episode=3).id
        session.commit()
    return found


def test_repair_and_acknowledge_are_on_the_first_screen_of_a_phone(
    page: Any, live_url: str, incident: int
) -> None:
    page.set_viewport_size({"width": 360, "height": 640})
    path = f"/ops/jobs/lifeline/incidents/{incident}"
    page.goto(path)
    for name in ("Cancel 2 jobs…", "Acknowledge for 1 h…"):
        box = page.get_by_role("button", name=name, exact=True).bounding_box()
        assert box["y"] + box["height"] <= 640, name
    assert page.evaluate("scrollY") == 0
    for address in (path, "/ops/jobs/lifeline"):
        page.goto(address)
        assert not is_sideways(page)
        assert barriers(page) == []


def test_what_changed_on_another_day_is_readable(page: Any, live_url: str, app: Flask) -> None:
    """The date of a change stands above its time, and not over what changed."""
    with Session(app.extensions["opsjobs"].engine) as session:
        make_worker(session, started_at=ago(days=2, minutes=5))
        found = make_incident(session, first_at=ago(days=2), opened_at=ago(days=2)).id
        session.commit()
    page.goto(f"/ops/jobs/lifeline/incidents/{found}")
    for width in (1440, 360):
        page.set_viewport_size({"width": width, "height": 800})
        time, words = (page.locator(f".line li {part}").first for part in ("time", "p"))
        box = time.bounding_box()
        assert " " in time.text_content()
        assert box["x"] + time.evaluate("it => it.scrollWidth") <= words.bounding_box()["x"]


def test_an_incident_is_acknowledged_and_repaired_from_its_page(
    page: Any, live_url: str, incident: int
) -> None:
    page.goto(f"/ops/jobs/lifeline/incidents/{incident}")
    page.click("button:text('Acknowledge for 1 h…')")
    page.fill("#reason", "known, the vendor is away")
    page.click("dialog button.main")
    page.wait_for_selector("#part .lead:has-text('known, the vendor is away')")
    page.click("button:text('Cancel 2 jobs…')")
    page.wait_for_selector("dialog h1:text('Cancel 2 jobs')")

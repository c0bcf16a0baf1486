"""The pages of failures in a browser: no barriers, also on a phone with long names; decisions in a dialog."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from tests.support.browser import faults
from tests.web.rows import (
    TRACEBACK,
    make_attempt,
    make_counted_failure,
    make_deploy,
    make_job,
    make_numbers_of_task,
)

pytestmark = [pytest.mark.browser, pytest.mark.slow]

LONG = "marketplace_settlement_reconciliation_europe_west_priority_customers_overnight_1"


@pytest.fixture
def failure(app: Flask) -> int:
    """A failure of a task with a long name, in a deploy with a long version."""
    with Session(app.extensions["opsjobs"].engine) as session:
        args = {"signature": "v2", LONG: LONG, "receiver": 1180}
        jobs = [make_job(session, "failed", task=LONG, args=args) for _ in range(12)]
        for job in jobs:
            make_attempt(session, job, traceback=TRACEBACK)
        for _ in range(3):
            make_job(session, "finished", task=LONG, args=args | {"signature": "v1"})
        make_deploy(session, "2026.11.2")
        deploy = make_deploy(session, LONG)
        title, place = f"KeyError: '{LONG}'", f"{LONG} in shop/{LONG}.py"
        found = make_counted_failure(session, jobs, deploy, title=title, raised_in=place)
        make_numbers_of_task(session, LONG)
        session.commit()
        return found.id


def test_the_pages_have_no_barrier_and_no_sideways_scroll(
    page: Any, live_url: str, failure: int
) -> None:
    for path in ("failures", f"failures/{failure}"):
        page.goto(f"/ops/jobs/lifeline/{path}")
        assert faults(page) == []


def test_a_failure_is_resolved_and_ignored_from_its_page(
    page: Any, live_url: str, failure: int
) -> None:
    page.goto(f"/ops/jobs/lifeline/failures/{failure}")
    page.click("button:text('Resolve in next deploy…')")
    page.fill("#reason", "the next deploy has the fix")
    page.click("dialog button.main")
    page.wait_for_selector("#part .say:has-text('It is resolved in the next deploy.')")
    page.click("form button:text('in a day…')")
    page.fill("#reason", "the vendor is away until then")
    page.click("dialog button.main")
    page.wait_for_selector("#part .say:has-text('It is ignored until')")

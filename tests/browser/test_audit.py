"""The audit page in a real browser:
no barrier, nothing sideways, and the way from a row to its detail and back.
"""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from tests.browser.test_pages import SIZES, noise
from tests.support.browser import barriers, is_sideways
from tests.web.rows import make_event

__all__ = ["noise"]

pytestmark = [pytest.mark.browser, pytest.mark.slow]

LONG = "a_reason_without_any_space_that_could_be_broken_" * 4
PAGES = (
    "/audit",
    "/audit?row=2",
    "/audit/2",
    "/audit?q=nothing+like+it",
    "/audit?row=3&outcome=refused",
)


@pytest.fixture
def decided(app: Flask) -> None:
    """Decisions with long words, many targets, and a refusal."""
    jobs = [f"job/{number}" for number in range(40)]
    with Session(app.extensions["opsjobs"].engine) as session:
        make_event(session)
        make_event(
            session,
            action="job.retry",
            subject="40 jobs",
            targets=jobs,
            reason=LONG,
            before={job: {"state": "failed"} for job in jobs},
            after={job: {"state": LONG} for job in jobs},
        )
        make_event(
            session, outcome="refused", code="drifted", actor=LONG, subject=LONG, targets=(LONG,)
        )
        session.commit()


@pytest.mark.usefixtures("decided")
def test_no_barrier_and_nothing_sideways_in_either_theme_at_either_size(
    page: Any, noise: list[str]
) -> None:
    found = []
    for path in PAGES:
        page.goto(f"/ops/jobs{path}")
        for size, (width, height) in SIZES.items():
            page.set_viewport_size({"width": width, "height": height})
            found += [f"{path}, {size}, {barrier}" for barrier in barriers(page)]
            if is_sideways(page):
                found.append(f"{path}, {size}: scrolls sideways")
    assert not found, "\n".join(found)
    assert noise == []


@pytest.mark.usefixtures("decided")
def test_from_the_navigation_to_a_refusal_and_its_own_address(page: Any) -> None:
    page.goto("/ops/jobs")
    page.click("nav.side >> text=Audit")
    page.select_option("[name=outcome]", "refused")
    page.click("form.filter >> text=Filter")
    page.click("table.audit tbody a")
    assert "Refused as" in page.inner_text("#row .facts")
    page.click("#row header a")
    page.wait_for_url("**/audit/3")
    page.click(".crumbs >> text=Audit")
    page.wait_for_url("**/audit")
    assert page.locator("table.audit tbody tr").count() == 3

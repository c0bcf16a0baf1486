"""The page of a run with as many steps as a definition may have, on a phone."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from tests.support import host as site
from tests.support.browser import barriers, is_sideways

pytestmark = [pytest.mark.browser, pytest.mark.slow]

STEPS = 10_000


@pytest.fixture
def run(app: Flask) -> int:
    """A run of 10,000 steps, of which each tenth waits for nothing; its id."""
    with app.app_context():
        flow = site.opsjobs.workflow("large")
        before: list[Any] = []
        for number in range(STEPS):
            before = [flow.step(f"step_{number}", site.give, after=before if number % 10 else [])]
        started = flow.start().id
        site.db.session.commit()
    return started


def test_a_run_of_10000_steps_is_shown_at_360_px(page: Any, run: int) -> None:
    page.set_viewport_size({"width": 360, "height": 800})
    page.goto(f"/ops/jobs/workflows/{run}")
    assert "0 of 10,000 steps settled" in page.inner_text(".lead")
    assert page.locator("svg.dag a.node").count() <= 150
    assert page.locator("svg.gantt a").count() == 200
    assert page.locator("[aria-labelledby=steps] tbody tr").count() == 100
    assert len(page.content()) < 1_000_000
    assert not is_sideways(page)
    assert barriers(page) == []
    page.click("[aria-labelledby=steps] a:text-is('Next')")
    page.wait_for_selector(":text('page 2 of 100')")

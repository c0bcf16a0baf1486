"""The pages of failures in a browser: no barriers, also on a phone with long names; decisions in a dialog."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from flask import Flask
from PIL import Image
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


def test_a_row_of_charts_begins_at_one_height_and_no_hatching_follows_an_ellipsis(
    page: Any, live_url: str, failure: int
) -> None:
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(f"/ops/jobs/lifeline/failures/{failure}")
    page.evaluate("document.querySelector('.charts .now').append(' and more words'.repeat(20))")
    for part in (".charts svg", ".charts .now"):
        first, second = page.locator(part).all()[:2]
        assert first.bounding_box()["y"] == second.bounding_box()["y"], part
    cell = page.locator("[aria-labelledby=jobs] .fill").first
    hidden = (
        "(cell) => { cell.innerHTML = `note <span class='hid'>${'hidden '.repeat(80)}</span>` }"
    )
    cell.evaluate(hidden)
    cell.scroll_into_view_if_needed()
    box = cell.bounding_box()
    box |= {
        "x": box["x"] + box["width"] - 40,
        "y": box["y"] + 2,
        "width": 8,
        "height": box["height"] - 4,
    }
    with Image.open(BytesIO(page.screenshot(clip=box))) as seen:
        assert len(seen.convert("RGB").getcolors() or ()) == 1


def test_no_short_word_is_broken_in_a_table_of_forensics(
    page: Any, live_url: str, failure: int
) -> None:
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(f"/ops/jobs/lifeline/failures/{failure}")
    job = page.inner_text("[aria-labelledby=jobs] th a")
    page.goto(f"/ops/jobs/forensics/job/{job}")
    cells = page.locator("td.wrap:not(:has-text('raised'))")
    cells.evaluate_all(f"(cells) => cells.forEach((cell) => cell.append(' {LONG}'))")
    assert page.evaluate(_BROKEN_WORDS) == []


_BROKEN_WORDS = """[...document.querySelectorAll("td.wrap")].flatMap((cell) => {
    const walk = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT), found = [];
    for (let node; (node = walk.nextNode()); )
        for (const word of node.data.matchAll(/(?<![^ ])[a-z]{2,9}(?![^ ,.:])/g)) {
            const range = document.createRange();
            range.setStart(node, word.index);
            range.setEnd(node, word.index + word[0].length);
            if (range.getClientRects().length > 1) found.push(word[0]);
        }
    return found;
})"""


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

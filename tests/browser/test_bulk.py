"""Many rows at once in a real browser: the receipt, the pages beyond, a phone's bar, ticks that come back."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.orm import Session

from flask_opsjobs.host import Host
from flask_opsjobs.jobs.search import hit_queries
from tests.support.browser import barriers, is_sideways
from tests.web.rows import make_job

pytestmark = pytest.mark.browser

PICKED = "document.querySelectorAll('[data-pick]:checked').length"


@pytest.fixture
def failed(host: Host) -> list[str]:
    """The ids of 60 failed jobs, in the order of the list: the newest first."""
    with Session(host.engine) as session:
        ids = [str(make_job(session, "failed").id) for _ in range(60)]
        session.commit()
    return ids[::-1]


def _open(page: Any, path: str = "/jobs?state=failed") -> None:
    page.goto(f"/ops/jobs{path}")


def _shown(page: Any) -> list[str]:
    found: list[str] = page.locator("table.jobs tbody a.id").all_inner_texts()
    return found


def test_after_a_bulk_the_receipt_says_how_many_more_match_and_older_skips_none(
    page: Any, failed: list[str]
) -> None:
    _open(page)
    assert _shown(page) == failed[:25]
    page.check("thead [data-pick-all]")
    page.click("[data-bulk]:has-text('Retry')")
    page.fill("#reason", "the vendor answers again")
    page.click("dialog button.main")
    page.wait_for_selector("#toast a:text('35 more match')")
    page.wait_for_selector("#badge-jobs:has-text('35 need review')")
    page.wait_for_selector(f"table.jobs a.id:text-is('{failed[25]}')")
    assert page.url.endswith("/jobs?state=failed")
    assert _shown(page) == failed[25:50]
    page.click("a[rel=next]")
    page.wait_for_url("**before=*")
    # What moved up was on the first page for a moment only, with nobody having looked at it.
    assert _shown(page) == failed[25:50]


def test_on_a_phone_all_on_the_page_are_picked_in_the_bar(page: Any, failed: list[str]) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    _open(page)
    everyone = page.locator(".bulk [data-pick-all]")
    assert not everyone.is_visible()
    page.check("[data-pick] >> nth=0")
    assert everyone.is_visible()
    everyone.check()
    assert page.evaluate(PICKED) == 25
    assert page.inner_text("[data-picked]") == "25"
    # No button is narrower than its words: what has no room is scrolled to.
    assert page.evaluate(
        "[...document.querySelectorAll('.bulk .btn')].every((one) => one.scrollWidth <= one.clientWidth)"
    )
    page.set_viewport_size({"width": 1280, "height": 740})
    assert not everyone.is_visible()


def test_on_a_phone_an_order_that_cannot_be_had_is_one_line_too(
    page: Any, failed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hit_queries, "MOST_HITS", 3)
    page.set_viewport_size({"width": 360, "height": 800})
    _open(page)
    lines = "all => all.map(one => one.getClientRects()[0].height)"
    heights = page.eval_on_selector_all("[aria-label=Order] > .unsorted", lines)
    assert len(heights) == 4
    assert max(heights) < 40
    assert not is_sideways(page)


def test_ticks_that_the_browser_brings_back_are_counted(page: Any, failed: list[str]) -> None:
    _open(page)
    # As browsers do after going back or a reload, when the script has run already.
    page.evaluate(
        """document.querySelectorAll("[data-pick]").forEach((box, at) => { box.checked = at < 3; });
        dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true }));"""
    )
    assert page.inner_text("[data-picked]") == "3"
    assert page.inner_text("[data-bulk]:has-text('Retry') small") == "3"
    page.click(f"table.jobs a.id:text-is('{failed[9]}')")
    page.wait_for_url(f"**/jobs/{failed[9]}")
    page.go_back()
    assert page.inner_text("[data-picked]") == str(page.evaluate(PICKED))


@pytest.mark.slow
def test_all_that_match_are_selected_and_retried_from_the_keyboard(
    page: Any, failed: list[str]
) -> None:
    """Tick rows, select all that match, press Retry, and reach the draft of an operation."""
    _open(page, "/jobs?q=state:failed+created:<1d")
    page.keyboard.press("j")
    page.keyboard.press("x")
    page.keyboard.press("j")
    page.keyboard.press("x")
    assert page.inner_text("[data-picked]") == "2"
    assert page.inner_text(".bulk [data-select-all]") == "Select all 60 that match"
    assert "counted exactly" in page.inner_text(".bulk p")
    page.keyboard.press("a")
    page.wait_for_url("**selected=all**")
    assert "All 60 that match are selected" in page.inner_text(".bulk")
    assert page.evaluate("document.activeElement.id") == "selected"
    assert page.locator("tbody input:checked:disabled").count() == 25
    assert barriers(page) == []
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.locator(".bulk .btn.main").is_visible()
    assert not is_sideways(page)
    assert barriers(page) == []
    page.set_viewport_size({"width": 1280, "height": 740})
    # The bar has the focus: after the link that clears the selection comes its first button.
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Clear"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Retry 60…"
    page.keyboard.press("Enter")
    page.wait_for_url("**/operations/1")
    assert "Retry 60 jobs" in page.inner_text("h1")
    page.go_back()
    page.click("text=Clear")
    page.wait_for_url(lambda url: "selected" not in url)
    assert page.locator("tbody input:checked").count() == 0

"""The charts of a task in a browser: their steps by keyboard and pointer, with and without JavaScript."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.browser.conftest import Site
from tests.browser.test_keyboard import go_to
from tests.support.browser import faults
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.slow]

# Whether the text of the step is seen, and its frame.
_LOOKS = """(link) => [getComputedStyle(link.querySelector("text")).opacity,
    getComputedStyle(link.querySelector("path")).stroke !== "none"]"""


def _open(page: Any) -> None:
    """Open the page of a task once the minute in which its job failed is counted.

    No test retries this job, so that it has ended only once.
    """

    def is_counted() -> bool:
        page.goto("/ops/jobs/tasks/die")
        return page.locator(".chart:has(#c-failed) .bar-link").count() > 0

    wait_until(is_counted, 120, what="the failed job to be counted")


@pytest.mark.parametrize("has_script", [True, False])
def test_a_step_says_its_number_and_opens_its_jobs_by_keyboard(
    page: Any, live_url: str, running: Site, has_script: bool
) -> None:
    context = page.context.browser.new_context(base_url=live_url, java_script_enabled=has_script)
    page = context.new_page()
    _open(page)
    link = page.locator(".chart:has(#c-failed) .bar-link").first
    assert link.evaluate(_LOOKS) == ["0", False]
    link.locator("path").hover()
    assert link.evaluate(_LOOKS) == ["1", True]
    page.mouse.move(0, 0)
    go_to(page, ".chart:has(#c-failed) .bar-link")
    focused = page.locator(".bar-link:focus")
    assert focused.evaluate(_LOOKS) == ["1", True]
    says = re.fullmatch(r"\s*\d\d:\d\d: (\d+) failed", focused.text_content())
    assert says is not None
    page.keyboard.press("Enter")
    page.wait_for_selector("tr[data-row]")
    page.wait_for_load_state()
    assert page.locator("tr[data-row]").count() == int(says[1])
    context.close()


def test_the_table_leads_to_the_same_jobs_and_bars_nobody(page: Any, running: Site) -> None:
    _open(page)
    page.click("#numbers-table summary")
    assert faults(page) == []
    # A refresh may put the next minute first.
    link = page.locator("#numbers-table td a").first
    number, address = link.evaluate("(link) => [Number(link.textContent), link.href]")
    page.goto(address)
    page.wait_for_selector("tr[data-row]")
    assert page.locator("tr[data-row]").count() == number


def test_a_step_is_named_in_the_zone_that_is_shown(page: Any, live_url: str, running: Site) -> None:
    context = page.context.browser.new_context(base_url=live_url, timezone_id="Asia/Kolkata")
    page = context.new_page()
    _open(page)
    link = page.locator(".chart .bar-link").first
    utc, address = link.text_content(), link.get_attribute("href")
    page.select_option("#zone", "local")
    local = link.text_content()
    hours, minutes = (int(part) for part in utc.strip()[:5].split(":"))
    shown = (hours * 60 + minutes + 330) % 1440
    assert local.strip().startswith(f"{shown // 60:02}:{shown % 60:02}: ")
    # The search is the same moment wherever it is read.
    assert link.get_attribute("href") == address
    context.close()

"""A bulk repair in a browser: with the keyboard alone, without JavaScript, and on a phone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from flask_opsjobs import JobFilter, OpsJobs
from tests.browser.test_keyboard import REASON, go_to
from tests.operations.conftest import FAILED, OTHER, RETURNED, WHY, Operations, failure
from tests.operations.conftest import operations as operations
from tests.support.browser import barriers, is_sideways

pytestmark = [pytest.mark.browser, pytest.mark.slow]

LONG = "marketplace_settlement_reconciliation_europe_west_priority_customers_overnight_1"


@pytest.fixture
def app(make_app: Callable[..., Flask], opsjobs: OpsJobs) -> Flask:
    """A host whose loop and workers the test steps."""
    return make_app(opsjobs=opsjobs)


@pytest.fixture
def long_name(opsjobs: OpsJobs, operations: Operations) -> Operations:
    """The jobs are of a task with a long name."""

    def settle(text: str = "") -> None:
        """Takes a text."""

    settle.__name__ = LONG
    operations._note = opsjobs.task(settle)
    return operations


def _require_no_barrier(page: Any) -> None:
    """Light and dark, wide and on a phone."""
    for width in (1280, 360):
        page.set_viewport_size({"width": width, "height": 800})
        assert not is_sideways(page), page.url
        assert barriers(page) == [], page.url


def test_all_that_failed_are_retried_with_the_keyboard(
    page: Any, live_url: str, long_name: Operations
) -> None:
    operations = long_name
    operations.fail(40)
    page.goto("/ops/jobs/jobs?state=failed")
    page.keyboard.press("a")
    page.wait_for_selector("#selected")
    go_to(page, "#selected button[value='job.retry']")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('Retry 40 jobs')")
    _require_no_barrier(page)
    go_to(page, "#reason")
    page.keyboard.type(REASON)
    go_to(page, "form.ack button.main")
    page.keyboard.press("Enter")
    page.wait_for_selector(".chip.big:has-text('running')")
    operations.pass_all()
    operations.perform(RETURNED)
    operations.pass_all()
    pause = "button[formaction$='/pause']"
    go_to(page, pause)
    page.keyboard.press("r")
    page.wait_for_selector(".stages [aria-current]:has-text('stage 2 of 3')")
    # The region was replaced; the focus has stayed where it was.
    assert page.evaluate("selector => document.activeElement.matches(selector)", pause)
    _require_no_barrier(page)
    for action, state in (("pause", "paused"), ("resume", "running"), ("cancel", "canceled")):
        go_to(page, f"button[formaction$='/{action}']")
        page.keyboard.press("Enter")
        page.wait_for_selector("dialog[open] #reason:focus")
        page.keyboard.type(REASON)
        go_to(page, "dialog button.main")
        page.keyboard.press("Enter")
        page.wait_for_selector(f".chip.big:has-text('{state}')")
        assert operations.operation()["state"] == state
    assert page.locator("#busy a").count() == 0


def test_the_same_without_javascript(page: Any, live_url: str, operations: Operations) -> None:
    operations.fail(12)
    context = page.context.browser.new_context(base_url=live_url, java_script_enabled=False)
    page = context.new_page()
    page.goto("/ops/jobs/jobs?state=failed&selected=all")
    page.click("#selected button[value='job.retry']")
    page.fill("#rate", "5")
    page.fill("#reason", REASON)
    page.click("form.ack button.main")
    assert page.locator(".chip.big").inner_text() == "running"
    operations.pass_all()
    operations.perform(failure(OTHER))
    operations.pass_all()
    page.reload()
    page.click(".parts a:has-text('failed, other error')")
    assert page.locator("[aria-labelledby=receipts] tbody tr").count() == 1
    page.click("button[formaction$='/pause']")
    page.fill("#reason", REASON)
    page.click("#dialog-page button.main")
    page.goto("/ops/jobs/operations")
    assert "paused" in page.locator("[aria-label=Operations] tbody tr").inner_text()
    assert "Operation 1" in page.locator("#busy").inner_text()
    context.close()


def test_what_stopped_and_what_finished_have_no_barrier(
    page: Any, live_url: str, long_name: Operations
) -> None:
    operations = long_name
    operations.fail(30)
    operations.operator.start("job.retry", FAILED, **WHY)
    operations.run(failure())
    operations.operator.start("job.delete", JobFilter(task=LONG), **WHY)
    operations.run()
    for path in ("operations", "operations/1", "operations/2"):
        page.goto(f"/ops/jobs/{path}")
        _require_no_barrier(page)

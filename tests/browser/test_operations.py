"""A bulk repair in a browser: with the keyboard alone, without JavaScript, and on a phone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from flask_opsjobs import OpsJobs
from flask_opsjobs.loops import roll_up
from flask_opsjobs.loops.loop import Runner
from tests.browser.test_keyboard import REASON, follow, go_to
from tests.operations.conftest import OTHER, RETURNED, Operations, failure
from tests.operations.conftest import operations as operations
from tests.support.browser import faults

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


def test_all_that_failed_are_retried_with_the_keyboard(
    page: Any, live_url: str, long_name: Operations
) -> None:
    operations = long_name
    operations.fail(40)
    page.goto("/ops/jobs/jobs?state=failed")
    page.keyboard.press("a")
    page.wait_for_selector("#selected")
    page.wait_for_load_state()
    go_to(page, "#selected button[value='job.retry']")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('Retry 40 jobs')")
    page.wait_for_load_state()
    assert faults(page) == []
    go_to(page, "#reason")
    page.keyboard.type(REASON)
    go_to(page, "form.ack button.main")
    page.keyboard.press("Enter")
    page.wait_for_selector(".chip.big:has-text('running')")
    page.wait_for_load_state()
    operations.pass_all()
    operations.perform(RETURNED)
    operations.pass_all()
    pause = "button[formaction$='/pause']"
    go_to(page, pause)
    page.keyboard.press("r")
    page.wait_for_selector(".stages [aria-current]:has-text('stage 2 of 3')")
    # The region was replaced; the focus has stayed where it was.
    assert page.evaluate("selector => document.activeElement.matches(selector)", pause)
    assert faults(page) == []
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


def test_a_failure_is_repaired_from_its_page_with_the_keyboard(
    page: Any, live_url: str, long_name: Operations
) -> None:
    """It is retried too soon and stops, is mended, goes on, finishes, and says why it cannot be undone."""
    operations = long_name
    operations.fail(3)
    Runner(roll_up.LOOP, operations.bench.host).run_once(
        operations.bench.connection, operations.now
    )
    page.set_viewport_size({"width": 360, "height": 800})
    page.goto("/ops/jobs/lifeline/failures")
    go_to(page, "a[href$='/failures/1']")
    page.keyboard.press("Enter")
    page.wait_for_url("**/failures/1")
    go_to(page, "[data-select-all]")
    page.keyboard.press("Enter")
    page.wait_for_selector("#selected")
    page.wait_for_load_state()
    go_to(page, "#selected button[value='job.retry']")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('Retry 3 jobs')")
    page.wait_for_load_state()
    go_to(page, "#reason")
    page.keyboard.type(REASON)
    go_to(page, "form.ack button.main")
    page.keyboard.press("Enter")
    page.wait_for_selector(".chip.big:has-text('running')")
    page.wait_for_load_state()
    # Nothing has been mended: the first job fails as before.
    assert operations.run(failure())["code"] == "same_failure"
    page.keyboard.press("r")
    page.wait_for_selector(".chip.big:has-text('stopped')")
    assert "1 same error" in " ".join(page.inner_text(".parts").split()).replace("failed, ", "")
    assert faults(page) == []
    # It is mended, and the rest goes on.
    go_to(page, "button[formaction$='/resume']")
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open] #reason:focus")
    page.keyboard.type(REASON)
    go_to(page, "dialog button.main")
    page.keyboard.press("Enter")
    page.wait_for_selector(".chip.big:has-text('running')")
    assert operations.run(RETURNED)["state"] == "finished"
    page.keyboard.press("r")
    page.wait_for_selector(".chip.big:has-text('finished')")
    assert "2 proven" in " ".join(page.inner_text(".parts").split())
    said = page.inner_text("main")
    assert "nothing that could be undone" in said, said
    assert faults(page) == []
    page.goto("/ops/jobs/operations")
    assert faults(page) == []


def test_a_queue_is_cleared_of_what_waits_with_the_keyboard(
    either_page: Any, operations: Operations
) -> None:
    (started,) = operations.enqueue(1)
    operations.bench.dispatch()
    operations.bench.claim(started)
    waiting = operations.enqueue(3)
    elsewhere = operations.enqueue(1, queue="reports")
    either_page.goto("/ops/jobs/queues/default")
    follow(either_page, "button[form=operate][value='job.cancel']", "h1:has-text('Cancel 3 jobs')")
    assert operations.states(waiting) == {"available"}
    go_to(either_page, "#reason")
    either_page.keyboard.type(REASON)
    follow(either_page, "form.ack button.main", ".chip.big:has-text('running')")
    operations.pass_all()
    either_page.reload()
    assert either_page.inner_text(".chip.big") == "finished"
    assert operations.states(waiting) == {"canceled"}
    assert operations.states([started]) == {"started"}
    assert operations.states(elsewhere) == {"available"}


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
    page.wait_for_load_state()
    assert page.locator("[aria-labelledby=receipts] tbody tr").count() == 1
    page.click("button[formaction$='/pause']")
    page.fill("#reason", REASON)
    page.click("#dialog-page button.main")
    page.goto("/ops/jobs/operations")
    assert "paused" in page.locator("[aria-label=Operations] tbody tr").inner_text()
    assert "Operation 1" in page.locator("#busy").inner_text()
    page.set_viewport_size({"width": 1000, "height": 800})
    assert page.locator("#jump").bounding_box()["width"] >= 120
    context.close()

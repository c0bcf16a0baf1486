"""The form that enqueues a job, in a real browser: no barrier, by keyboard alone, and without JavaScript."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, time
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from tests.browser.test_pages import noise
from tests.support import host as site
from tests.support.browser import faults

__all__ = ["noise"]

pytestmark = [pytest.mark.browser, pytest.mark.slow]

LONG = "n" * 80
FORM = f"/ops/jobs/enqueue/tasks/{LONG}"


@pytest.fixture
def task() -> Iterator[None]:
    """A task with a parameter of each kind, and with names as long as they are."""

    def call(
        account_id: Annotated[int, Field(description="Whose letters are sent")],
        kind: Literal["letters", "postcards"] = "letters",
        is_dry: bool = False,
        day: date | None = None,
        at: time | None = None,
        due: datetime | None = None,
        rows: list[int] | None = None,
        a_parameter_whose_name_is_as_long_as_names_of_parameters_are_and_even_longer: str = "x"
        * 80,
        token: str = "",
    ) -> None:
        """Send letters to all customers of an account, in the order in which they have come."""

    site.opsjobs.task(name=LONG, queue=LONG, redact={"token"}, enqueue_from_page=True)(call)
    yield
    site.opsjobs.tasks.pop(LONG)


@pytest.mark.usefixtures("task")
def test_no_barrier_and_nothing_sideways_at_any_size(page: Any, noise: list[str]) -> None:
    page.goto(FORM)
    found = faults(page)
    page.fill("#arg-1", "7")
    page.fill("#arg-7", "[1, 2")
    page.click("main form button.main")
    page.wait_for_selector("form [role=alert]")
    assert (page.input_value("#arg-1"), page.input_value("#arg-7")) == ("7", "[1, 2")
    found += faults(page)
    page.fill("#arg-7", "[1, 2]")
    page.fill("#arg-6", "2026-11-28T04:00")
    page.click("main form button.main")
    page.wait_for_selector("#reason")
    page.wait_for_load_state()
    assert "The job will wait" in page.inner_text("main")
    found += faults(page)
    page.goto(f"/ops/jobs/tasks/{LONG}")
    found += faults(page)
    assert not found, "\n".join(found)
    assert [line for line in noise if "status of 4" not in line] == []


@pytest.mark.usefixtures("task")
def test_a_double_click_enqueues_one_job(page: Any) -> None:
    page.goto(FORM)
    page.fill("#arg-1", "7")
    page.click("main form button.main")
    page.wait_for_selector("#reason")
    page.wait_for_load_state()
    page.fill("#reason", "because it is a test")
    page.dblclick("main form button.main")
    page.wait_for_selector("text=New: job")
    page.goto(f"/ops/jobs/jobs?q=task:{LONG}")
    assert page.locator("tr[data-row]").count() == 1


@pytest.mark.usefixtures("task")
@pytest.mark.parametrize("has_script", [True, False])
def test_by_keyboard_alone(page: Any, live_url: str, has_script: bool) -> None:
    context = page.context.browser.new_context(base_url=live_url, java_script_enabled=has_script)
    page = context.new_page()
    page.goto(f"/ops/jobs/tasks/{LONG}")
    page.focus("a:has-text('Enqueue…')")
    page.keyboard.press("Enter")
    page.wait_for_selector("#arg-1")
    page.wait_for_load_state()
    page.focus("#arg-1")
    page.keyboard.type("42")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    page.wait_for_selector("#reason")
    page.wait_for_load_state()
    page.focus("#reason")
    page.keyboard.type("because it is a test")
    page.focus("main form button.main")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=New: job")
    page.locator("a[href^='/ops/jobs/jobs/']:visible").first.click()
    page.wait_for_load_state()
    shown = page.inner_text("main")
    assert '"account_id": 42' in shown
    assert '"is_dry": true' in shown
    context.close()

"""The cron pages in a real browser with names as long as they may be: no barrier, and nothing sideways."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask

from flask_opsjobs.actions.operator import Operator
from tests.browser.test_pages import noise
from tests.support.browser import faults

__all__ = ["noise"]

pytestmark = pytest.mark.browser

LONG = "n" * 200


@pytest.fixture
def long_name(app: Flask) -> None:
    what = {
        "task": "add",
        "expression": "*/5 8-18 * * MON-FRI",
        "zone": "America/Argentina/Buenos_Aires",
    }
    what |= {"overlap": "cancel_previous", "catch_up": "latest", "args": '{"a": 1, "b": 2}'}
    Operator(app.extensions["opsjobs"]).create_cron(
        LONG, what, actor="tester", reason="because it is a test", authorize=False
    )


@pytest.mark.slow
@pytest.mark.usefixtures("long_name")
def test_no_barrier_and_nothing_sideways_at_any_size(page: Any, noise: list[str]) -> None:
    found = []
    for path in ("/cron", f"/cron/{LONG}", f"/edit/cron/{LONG}"):
        page.goto(f"/ops/jobs{path}")
        found += faults(page)
    page.fill("#entry-expression", "*/90 25 * * *")
    page.click("button.main")
    page.wait_for_selector("form [role=alert]")
    assert page.input_value("#entry-expression") == "*/90 25 * * *"
    found += faults(page)
    assert not found, "\n".join(found)
    assert [line for line in noise if "status of 4" not in line] == []


@pytest.mark.usefixtures("long_name")
def test_a_slot_says_in_which_zone_its_moment_is(page: Any, live_url: str) -> None:
    context = page.context.browser.new_context(base_url=live_url, timezone_id="Asia/Kolkata")
    page = context.new_page()
    page.goto(f"/ops/jobs/cron/{LONG}")
    slot = page.locator("ol.slots time[data-as=moment]").first
    in_utc = datetime.fromisoformat(slot.text_content().removesuffix(" UTC"))
    page.select_option("#zone", "local")
    there = datetime.fromisoformat(slot.text_content().removesuffix(" local time"))
    assert there - in_utc == timedelta(hours=5, minutes=30)
    context.close()

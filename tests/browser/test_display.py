"""How pages are displayed in a real browser: times in words and zones, choices, paper, forced colors."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from tests.browser.conftest import Site
from tests.support import host as site
from tests.support.browser import wait_for_script
from tests.support.polling import OpenPage
from tests.support.waiting import wait_until

pytestmark = pytest.mark.browser

ENDED = ".lead time[data-as=ago]"


def _open(page: Any, running: Site, path: str) -> None:
    page.goto("/ops/jobs" + path.format(**running.jobs))


def test_moments_become_words_that_run_on_also_after_an_answer_that_nothing_changed(
    page: Any, running: Site
) -> None:
    running.enqueue("failed lately", site.fail)
    running.wait_until("failed lately", "failed")
    page.clock.install()
    _open(page, running, "/jobs/{failed lately}")
    assert re.fullmatch(r"now|\d+ s ago", page.inner_text(ENDED))
    page.clock.run_for(1_000)
    first = page.inner_text(ENDED)
    page.clock.run_for(2_000)
    assert page.inner_text(ENDED) != first

    def poll() -> int:
        with page.expect_response("**/live") as found:
            page.clock.run_for(6_000)
        status: int = found.value.status
        return status

    # The loops have just begun, and what they find changes the badges of the page.
    wait_until(lambda: poll() == 304, 30, what="an answer that nothing has changed")
    # The tag of that answer is sent from now on: it says what was looked at, and when.
    wait_for_script(page, "document.querySelector('#live').dataset.etag.split('.').length === 5")
    page.clock.fast_forward("05:00")
    assert re.fullmatch(r"[56] min ago", page.inner_text(ENDED))


@pytest.mark.slow(40)
def test_while_loops_and_workers_only_live_on_every_poll_is_answered_304(own: Site) -> None:
    client = own.app.test_client()
    own.gate.touch()
    own.wait_until("started", "finished")
    for path in ("/live", "/workers/live", "/live/queues/default"):

        def is_unchanged(path: str = f"/ops/jobs{path}") -> bool:
            tag, passes = client.get(path).headers["ETag"], _signs_of_life()
            wait_until(lambda: _signs_of_life() > passes, 30)
            return client.get(path, headers={"If-None-Match": tag}).status_code == 304

        wait_until(is_unchanged, 60, what=f"{path} to answer 304")
        polling = OpenPage(client, own.app.extensions["opsjobs"], f"/ops/jobs{path}")
        what = f"a poll of {path} to cost one statement"
        wait_until(lambda polling=polling: polling.is_cheap, 60, every=0.5, what=what)


def _signs_of_life() -> list[datetime]:
    """When the workers and the loops were heard of last."""
    found = site.db.session.execute(
        text(
            "SELECT (SELECT min(heartbeat_at) FROM opsjobs.workers WHERE ended_at IS NULL),"
            " (SELECT max(last_at) FROM opsjobs.loop_runs)"
        )
    ).one()
    site.db.session.rollback()
    return list(found)


@pytest.mark.slow
def test_what_is_swapped_in_is_worded_too(page: Any, running: Site, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    running.enqueue("swapped in", site.progress_then_hold, gate=str(gate))
    running.wait_until("swapped in", "started")
    _open(page, running, "/jobs/{swapped in}")
    assert re.fullmatch(r"for \d+ s", page.inner_text(".lead time[data-as=for]"))
    gate.touch()
    page.wait_for_selector(".chip.big[data-is=finished]", timeout=20_000)
    assert re.fullmatch(r"now|\d+ s ago", page.inner_text(ENDED))


def test_a_due_time_that_passes_is_said_to_have_passed(page: Any, running: Site) -> None:
    _open(page, running, "/jobs/{scheduled}")
    assert re.search(r"It is due in \d+ min\.", page.inner_text(".say"))
    due = page.locator(".say time[data-as=due]")
    due.evaluate("(time) => { time.dateTime = new Date(Date.now() - 90_000).toISOString() }")
    page.wait_for_selector(".say :text('has been due for 1 min')")


def test_times_follow_the_zone_in_texts_titles_and_charts(
    page: Any, live_url: str, running: Site
) -> None:
    context = page.context.browser.new_context(base_url=live_url, timezone_id="Asia/Kolkata")
    page = context.new_page()
    _open(page, running, "")
    tick = page.locator(".chart svg > text > [data-at]").first
    utc = (tick.get_attribute("data-at"), tick.text_content())
    assert utc[0].endswith("Z")
    assert utc[1] == utc[0][11:16]
    page.select_option("#zone", "local")
    minutes = [int(text[:2]) * 60 + int(text[3:]) for text in (utc[1], tick.text_content())]
    assert (minutes[1] - minutes[0]) % 1440 == 330
    assert page.locator(".zone").all_text_contents()[0] == "local"
    assert "UTC" not in page.locator(".zone").all_text_contents()
    page.select_option("#zone", "UTC")
    assert tick.text_content() == utc[1]
    context.close()


def test_a_choice_of_the_display_keeps_the_page_where_it_is(page: Any, running: Site) -> None:
    page.set_viewport_size({"width": 1280, "height": 300})
    _open(page, running, "/jobs/{failed}")
    page.evaluate("scrollTo(0, 200)")
    for name, value in (("theme", "dark"), ("zone", "local"), ("refresh", "off")):
        with page.expect_response("**/display"):
            page.select_option(f"#{name}", value)
        assert page.get_attribute("html", f"data-{name}") == value
        assert page.evaluate("scrollY") == 200
    assert "refresh is off" in page.inner_text("#fresh")
    page.reload()
    assert [page.input_value(f"#{name}") for name in ("theme", "zone", "refresh")] == [
        "dark",
        "local",
        "off",
    ]
    page.route("**/display", lambda route: route.fulfill(status=403, body="no"))
    page.select_option("#theme", "light")
    page.wait_for_selector("#toast:has-text('did not keep it')")


def test_paper_has_what_is_read_and_nothing_to_press(page: Any, running: Site) -> None:
    _open(page, running, "/jobs/{failed}")
    assert page.is_visible("nav.side")
    page.emulate_media(media="print", color_scheme="dark")
    for pressed in ("nav.side", ".prefs", ".top", ".head .actions", ".btn"):
        assert page.locator(f"{pressed}:visible").count() == 0, pressed
    assert page.is_visible(".err h2")
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light"
    frames = "document.querySelector('.frames')"
    assert page.evaluate(f"getComputedStyle({frames}).overflowX") == "visible"


def test_forced_colors_show_what_is_chosen(page: Any, running: Site) -> None:
    page.emulate_media(forced_colors="active")
    _open(page, running, "/jobs?state=failed")
    page.check("[data-pick] >> nth=0")
    for chosen in (
        ".side [aria-current]",
        ".tabs [aria-current]",
        ".seg [aria-current]",
        "tr:has(:checked)",
    ):
        outline = f"getComputedStyle(document.querySelector('{chosen}')).outlineStyle"
        assert page.evaluate(outline) == "solid", chosen


def test_all_tabs_are_in_one_row_and_the_last_column_keeps_its_distance_from_the_edge(
    page: Any, running: Site
) -> None:
    page.set_viewport_size({"width": 1280, "height": 800})
    _open(page, running, "/jobs")
    page.evaluate(
        "document.querySelectorAll('.tabs b').forEach((b) => b.textContent = '1,234,567')"
    )
    assert (
        page.evaluate(
            "(({ scrollWidth, clientWidth }) => scrollWidth - clientWidth)"
            "(document.querySelector('.tabs ul'))"
        )
        == 0
    )
    tops = "[...document.querySelectorAll('.tabs li')].map((li) => li.getBoundingClientRect().top)"
    assert len(set(page.evaluate(tops))) == 1
    _open(page, running, "/jobs/{failed}")
    hidden = "[aria-labelledby=attempts] thead th:has(+ .less)"
    assert (
        page.evaluate(f"getComputedStyle(document.querySelector('{hidden}')).paddingRight")
        == "16px"
    )

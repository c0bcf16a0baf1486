"""Acting in a real browser: dialogs, reasons, drift, denial, selection and keys;
and the same without JavaScript.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_opsjobs.actions.operator import Operator
from tests.browser.conftest import Site
from tests.support import host as site
from tests.support.browser import barriers
from tests.support.policies import AllowAll

pytestmark = [pytest.mark.browser, pytest.mark.slow]

REASON = "the vendor answers again, OPS-2291"
Open = Callable[..., None]


@pytest.fixture
def noise(page: Any) -> Iterator[list[str]]:
    """What the page complained of. Chromium notes each answer of 4xx by itself: those are left out."""
    said: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(str(error)))
    yield said
    assert [line for line in said if "status of 4" not in line] == []


@pytest.fixture
def visit(page: Any, noise: list[str]) -> Open:
    """Opens a page of ours."""

    def visit(path: str) -> None:
        page.goto(f"/ops/jobs{path}")

    return visit


@pytest.fixture
def operator(app: Flask) -> Operator:
    """Somebody else's door."""
    return Operator(app.extensions["opsjobs"])


def test_a_failed_job_is_retried_with_a_reason_and_found_in_the_audit(
    page: Any, visit: Open, running: Site, tmp_path: Path
) -> None:
    running.enqueue("to be retried", site.fail)
    running.wait_until("to be retried", "failed")
    # No worker is free, so that the retried job waits.
    gate = tmp_path / "gate"
    running.enqueue("in its way", site.progress_then_hold, gate=str(gate))
    running.wait_until("in its way", "started")
    visit(f"/jobs/{running.jobs['to be retried']}")
    page.click("button:text('Retry…')")
    page.wait_for_selector("dialog[open] h1:text('Retry job')")
    assert page.evaluate("document.activeElement.id") == "reason"
    assert barriers(page) == []
    page.fill("#reason", " " * 30)
    page.click("dialog button.main")
    page.wait_for_selector("dialog [aria-invalid]")
    page.fill("#reason", REASON)
    page.click("dialog button.main")
    page.wait_for_selector("#toast .say")
    assert page.locator("dialog[open]").count() == 0
    assert page.get_attribute("#toast", "aria-live") == "polite"
    # The page behind tells the new state at once, not with its next refresh.
    page.wait_for_selector(".chip.big:not([data-is=failed])")
    assert page.evaluate("scrollY") == 0
    assert barriers(page) == []
    page.click("#toast a")
    page.wait_for_url("**/audit/*")
    assert REASON in page.inner_text("main")
    gate.touch()
    running.wait_until("to be retried", "failed")


def test_a_due_time_that_is_being_typed_outlives_a_refresh(
    page: Any, visit: Open, running: Site
) -> None:
    running.enqueue("later", site.add.options(delay=3600), a=1, b=1)
    visit(f"/jobs/{running.jobs['later']}")
    page.fill("#due_at", "2999-01-01T09:00:30")
    page.evaluate("document.activeElement.blur()")
    # Without an ETag the answer is a whole fragment.
    page.evaluate("document.getElementById('live').dataset.etag = ''")
    page.evaluate("document.getElementById('history').id = 'before'")
    page.keyboard.press("r")
    page.wait_for_selector("#history")
    assert page.input_value("#due_at") == "2999-01-01T09:00:30"
    _carry_out(page, "Reschedule…")
    page.wait_for_selector("[aria-labelledby=facts] time:text('2999-01-01 09:00:30')")
    _carry_out(page, "Make due now…")
    page.wait_for_selector(".chip.big[data-is=finished]", timeout=20_000)
    assert page.locator("#due_at").count() == 0


def _carry_out(page: Any, button: str) -> None:
    page.click(f"button:text('{button}')")
    page.fill("#reason", REASON)
    page.click("dialog button.main")
    page.wait_for_selector("#toast .say")


@pytest.mark.usefixtures("running")
def test_a_dialog_is_left_as_it_was_entered(page: Any, visit: Open) -> None:
    visit("/queues/default")
    page.click("button:text('Pause…')")
    page.wait_for_selector("dialog[open]")
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    assert page.evaluate("document.activeElement.textContent") == "Pause…"
    for way in ("dialog a[data-close]", "dialog button[data-close]"):
        page.click("button:text('Pause…')")
        page.wait_for_selector("dialog[open]")
        page.click(way)
        assert page.locator("dialog[open]").count() == 0
    assert page.url.endswith("/queues/default")


@pytest.mark.usefixtures("running")
def test_on_a_phone_each_button_of_a_dialog_is_one_line(page: Any, visit: Open) -> None:
    page.set_viewport_size({"width": 360, "height": 780})
    visit("/queues/default")
    page.click("button:text('Pause…')")
    page.wait_for_selector("dialog[open]")
    buttons = page.locator("dialog .foot .btn")
    assert buttons.count() == 2
    assert all(button.bounding_box()["height"] < 45 for button in buttons.all())


@pytest.mark.usefixtures("own")
def test_drift_is_said_and_the_reason_is_kept(page: Any, visit: Open, operator: Operator) -> None:
    visit("/queues/default")
    page.click("button:text('Pause…')")
    page.fill("#reason", REASON)
    operator.run("queue.drain", ["queue/default"], actor="l.brandt", reason=REASON)
    page.click("dialog button.main")
    page.wait_for_selector("dialog h1:text('Nothing was done')")
    assert "l.brandt" in page.inner_text("dialog tbody")
    assert barriers(page) == []
    page.click("dialog button.main")
    page.wait_for_selector("dialog h1:text('Pause queue default')")
    assert page.input_value("#reason") == REASON
    page.click("dialog button.main")
    page.wait_for_selector("#toast .say")
    page.wait_for_selector(".say:has-text('default is paused')")
    page.click("#toast button")
    assert page.inner_text("#toast") == ""


def test_rows_are_picked_and_discarded_with_two_skipped(
    page: Any, visit: Open, running: Site
) -> None:
    later = site.add.options(delay=3600)
    running.enqueue("has ended", site.add, a=1, b=1)
    running.wait_until("has ended", "finished")
    waiting = [running.enqueue(f"waits {n}", later, a=n, b=n) for n in range(3)]
    visit("/jobs")
    assert page.is_disabled("[data-bulk] >> nth=0")
    boxes = [f"[data-pick][value='{running.jobs[name]}']" for name in ("has ended", "started")]
    page.click(f"[data-pick][value='{waiting[2]}']")
    page.click(f"[data-pick][value='{waiting[0]}']", modifiers=["Shift"])
    for box in boxes:
        page.click(box)
    assert page.inner_text("[data-picked]") == "5"
    assert page.inner_text("[data-bulk]:has-text('Discard') small") == "3"
    page.click("[data-bulk]:has-text('Discard')")
    page.wait_for_selector("dialog h1:text('Discard 5 jobs')")
    assert "2 are skipped" in page.inner_text("dialog")
    assert barriers(page) == []
    page.fill("#reason", REASON)
    page.click("dialog button:text('Discard 3 jobs')")
    page.wait_for_selector("#toast:has-text('2 skipped')")
    page.wait_for_selector("[data-pick]:checked", state="detached")
    assert [running.state(f"waits {n}") for n in range(3)] == ["failed"] * 3


@pytest.mark.usefixtures("running")
def test_nothing_refreshes_under_a_selection(page: Any, visit: Open) -> None:
    page.clock.install()
    visit("/jobs")
    page.click("[data-pick] >> nth=0")
    page.evaluate("document.activeElement.blur()")
    asked: list[str] = []
    # The browser asks for the icon when it likes.
    page.on("request", lambda request: "/static/" in request.url or asked.append(request.url))
    page.clock.run_for(30_000)
    assert asked == []
    assert "paused while you select" in page.inner_text("#fresh")
    page.keyboard.press("Escape")
    with page.expect_response("**/jobs/live"):
        page.clock.run_for(6_000)


def test_the_keys(page: Any, visit: Open, running: Site) -> None:
    visit("/jobs")
    rows = page.locator("[data-row] a.id").all_inner_texts()
    focused = "document.activeElement.textContent"
    for key, at in (("j", 0), ("j", 1), ("j", 2), ("k", 1)):
        page.keyboard.press(key)
        assert page.evaluate(focused) == rows[at]
    page.keyboard.press("x")
    assert page.locator("[data-pick]:checked").get_attribute("value") == rows[1]
    page.keyboard.press("Escape")
    assert page.locator("[data-pick]:checked").count() == 0
    with page.expect_response("**/jobs/live"):
        page.keyboard.press("r")
    page.wait_for_selector(f"a.id:focus:text-is('{rows[1]}')")  # what had the focus has it again
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "q"
    page.keyboard.type("gj?")
    assert page.input_value("#q") == "gj?"
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("?")
    page.wait_for_selector("dialog[open] h1:text('Keys and help')")
    assert barriers(page) == []
    page.keyboard.press("j")
    page.keyboard.press("Escape")
    for key, path in (
        ("w", "/workers"),
        ("q", "/queues"),
        ("k", "/tasks"),
        ("a", "/audit"),
        ("b", "/batches"),
        ("f", "/workflows"),
        ("j", "/jobs"),
        ("o", ""),
    ):
        page.keyboard.press("g")
        page.keyboard.press(key)
        page.wait_for_url(f"**/ops/jobs{path}")
    visit("/workflows")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url("**/workflows/*")
    visit("/jobs")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/jobs/{rows[0]}")
    page.keyboard.press("t")
    page.wait_for_selector("html[data-theme=dark]")


def test_a_job_at_work_is_stopped_from_the_workers_page(page: Any, visit: Open, own: Site) -> None:
    visit("/workers")
    page.wait_for_selector("button:text('Stop job…')", timeout=20_000)
    page.click("button:text('Stop job…')")
    page.fill("#reason", REASON)
    page.click("dialog button.main")
    page.wait_for_selector("#toast .say")
    own.wait_until("started", "canceled")


def test_a_denied_action_is_disabled_and_refused(
    page: Any, visit: Open, app: Flask, running: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    visit(f"/jobs/{running.jobs['failed']}")  # while it was still allowed
    monkeypatch.setattr(
        AllowAll, "can", lambda self, actor, what, subject=None: what.endswith("view")
    )
    page.click("button:text('Retry…')")
    page.wait_for_selector("dialog h1:text('Needs job.retry')")
    page.keyboard.press("Escape")
    visit(f"/jobs/{running.jobs['failed']}")
    assert "read-only" in page.inner_text(".who")
    assert "needs job.retry" in page.inner_text("button:disabled:has-text('Retry')")
    assert barriers(page) == []


@pytest.mark.usefixtures("running")
def test_a_server_that_is_away_is_said_where_it_is_heard(page: Any, visit: Open) -> None:
    visit("/queues/default")
    page.click("button:text('Pause…')")
    page.fill("#reason", REASON)
    page.route("**/execute", lambda route: route.fulfill(status=200, body="<h1>Sign in</h1>"))
    page.click("dialog button.main")
    page.wait_for_selector("dialog #toast:has-text('are you still signed in?')")
    assert page.input_value("#reason") == REASON


@pytest.mark.usefixtures("own")
def test_a_preview_at_its_own_address_is_answered_in_its_place(
    page: Any, visit: Open, operator: Operator
) -> None:
    queue = ["queue/default"]
    posts: list[str] = []
    page.on("request", lambda sent: sent.method == "POST" and posts.append(sent.url))
    drifted = operator.preview("queue.pause", queue, actor="l.brandt", via="page")
    operator.run("queue.drain", queue, actor="l.brandt", reason=REASON)
    preview = operator.preview("queue.pause", queue, actor="l.brandt", via="page")
    visit(f"/previews/{drifted.id}")
    page.fill("#reason", REASON)
    page.click("main button.main")
    page.wait_for_selector("main #preview-drift")
    assert page.locator("dialog[open]").count() == 0
    visit(f"/previews/{preview.id}")
    page.fill("#reason", REASON)
    posts.clear()
    page.dblclick("main button.main")
    page.wait_for_selector("main [data-done] .say a:has-text('Audit')")
    page.go_back()
    page.wait_for_selector("main [data-done] .say a:has-text('Audit')")
    assert len(posts) == 1


def _leave_and_restore(page: Any, button: str) -> None:
    """Send a form, and let its page be restored with its button as it was.

    Chromium without its windows restores no page. So an answer of 204 leaves the page where it is.
    """
    page.route("**", lambda route: route.fulfill(status=204), times=1)
    with page.expect_request(lambda sent: sent.method == "POST"):
        page.click(button)
    assert page.get_attribute(button, "aria-busy") == "true"
    page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))")


@pytest.mark.usefixtures("app")
def test_a_preview_that_back_restores_can_be_sent_again(
    page: Any, visit: Open, operator: Operator
) -> None:
    site.add.enqueue(a=1, b=1)
    site.db.session.commit()
    queue, button = ["queue/default"], "main button.main"
    drifted = operator.preview("queue.pause", queue, actor="l.brandt", via="page")
    operator.run("queue.drain", queue, actor="l.brandt", reason=REASON)
    visit(f"/previews/{drifted.id}")
    page.fill("#reason", REASON)
    _leave_and_restore(page, button)
    page.click(button)
    page.wait_for_selector("main #preview-drift")
    assert page.inner_text(button) == "Preview again"
    _leave_and_restore(page, button)
    page.click(button)
    page.wait_for_selector("main #reason")
    _leave_and_restore(page, button)
    page.click(button)
    page.wait_for_selector("main [data-done]")


def test_the_same_without_javascript(page: Any, live_url: str, own: Site) -> None:
    context = page.context.browser.new_context(base_url=live_url, java_script_enabled=False)
    page = context.new_page()
    page.goto(f"/ops/jobs/jobs/{own.jobs['failed']}")
    page.click("button:text('Retry…')")
    assert page.inner_text("h1").startswith("Retry job")
    page.fill("#reason", REASON)
    page.click("button.main")
    page.wait_for_selector("#dialog-page[data-done]")
    page.click("#dialog-page .say a")
    page.wait_for_load_state()
    assert REASON in page.inner_text("main")
    page.go_back()
    page.click("text=Go back")
    assert page.url.endswith(f"/jobs/{own.jobs['failed']}")
    page.goto("/ops/jobs/jobs")
    page.check(f"[data-pick][value='{own.jobs['nobody listens']}']")
    page.check(f"[data-pick][value='{own.jobs['finished']}']")
    page.click("button[formaction$='/jobs/cancel']")
    assert page.inner_text("h1") == "Cancel 2 jobs"
    page.fill("#reason", REASON)
    page.click("button:text('Cancel job')")
    page.wait_for_selector("#dialog-page[data-done]")
    assert own.state("nobody listens") == "canceled"
    page.goto("/ops/jobs/queues/default")
    page.fill("#prefetch", "9")
    page.click("button:text('Set prefetch…')")
    assert page.inner_text("h1") == "Set the prefetch of queue default"
    context.close()

"""Forms, buttons, heads of lists and *Hand over* with the keyboard alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text
from sqlalchemy.orm import Session

from flask_opsjobs.testing import perform_due
from tests.support import host as site
from tests.web.rows import make_worker

pytestmark = [pytest.mark.browser, pytest.mark.slow]

REASON = "the vendor answers again, OPS-2291"


@pytest.fixture
def app(database_url: str) -> Iterator[Flask]:
    """A host without Redis, whose jobs the tests perform."""
    config: dict[str, Any] = {"SQLALCHEMY_DATABASE_URI": database_url, "OPSJOBS_DISPATCH": False}
    app = site.create_app(**config)
    with app.app_context():
        yield app
        site.db.session.remove()
        site.db.engine.dispose()
    app.extensions["opsjobs"].spare.close()
    app.extensions["opsjobs"].pages.dispose()


def go_to(page: Any, selector: str) -> None:
    """Press Tab until this has the focus."""
    for _ in range(100):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"Tab does not reach {selector}")


def follow(page: Any, selector: str, then: str) -> None:
    """Press Tab until this has the focus, and Enter; wait for the page that it leads to."""
    go_to(page, selector)
    page.keyboard.press("Enter")
    page.wait_for_selector(then)
    page.wait_for_load_state()


def act(page: Any, path: str, button: str, *, field: str = "", typed: str = "") -> None:
    """Fill the field, press the button, leave the dialog, open it again, say why and carry it out."""
    page.goto(f"/ops/jobs{path}")
    if field:
        go_to(page, field)
        page.keyboard.type(typed)
    go_to(page, button)
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open] #reason")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog[open]", state="detached")
    assert page.evaluate("selector => document.activeElement.matches(selector)", button), button
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open] #reason:focus")
    page.keyboard.type(REASON)
    go_to(page, "dialog button.main")
    page.keyboard.press("Enter")
    page.wait_for_selector("#toast .say")


@pytest.mark.usefixtures("app")
def test_a_run_is_repaired_and_canceled(page: Any) -> None:
    flow = site.opsjobs.workflow("fulfil_order", on_end=None)
    flow.step("bill", site.fail, message="away")
    flow.step("ship", site.fail, message="away")
    for name in ("paid", "paid_twice"):
        flow.wait(name, signal="payment", key="order-1042")
    run = flow.start().id
    site.db.session.commit()
    perform_due()
    site.opsjobs.signal("payment", key="order-1042")
    site.db.session.commit()
    perform_due()
    ids, path = dict(look("SELECT name, job_id FROM opsjobs.steps")), f"/workflows/{run}"
    act(page, f"{path}?step={ids['paid']}", "[form=step-give_signal]", field="#step-signal")
    field, typed = "#step-result", '{"amount": 990}'
    act(page, f"{path}?step={ids['bill']}", "[form=step-skip]", field=field, typed=typed)
    assert look("SELECT value FROM opsjobs.outputs WHERE job_id = :id", id=ids["bill"]) == [
        ({"amount": 990},)
    ]
    act(page, path, "[formaction$='/retry']")
    act(page, path, "[formaction$='/cancel']")
    assert dict(
        look(
            "SELECT s.name, j.ended_by FROM opsjobs.steps s JOIN opsjobs.jobs j ON j.id = s.job_id"
        )
    ) == {
        "paid": "signaled",
        "paid_twice": "canceled",
        "bill": "skipped",
        "ship": "canceled",
    }


@pytest.mark.usefixtures("app")
def test_a_batch_is_retried_closed_and_canceled(page: Any) -> None:
    batch = site.opsjobs.batch("import_prices").open()
    batch.enqueue(site.fail, message="away")
    site.db.session.commit()
    perform_due()
    path = f"/batches/{batch.id}"
    for action, state in (("retry", "open"), ("close", "running"), ("cancel", "canceled")):
        act(page, path, f"[formaction$='{path}/{action}']")
        assert look("SELECT state FROM opsjobs.batches") == [(state,)]


@pytest.mark.usefixtures("app")
def test_a_job_that_waits_is_edited(either_page: Any) -> None:
    job = site.add.enqueue(a=1, b=1).id
    site.db.session.commit()
    either_page.goto(f"/ops/jobs/jobs/{job}")
    follow(either_page, f"a[href$='/edit/jobs/{job}']", "#edit-priority")
    go_to(either_page, "#edit-priority")
    either_page.keyboard.type("2")
    follow(either_page, "main form button.main", "#reason")
    assert either_page.inner_text("table.diff tbody tr").split() == ["priority", "5", "2"]
    go_to(either_page, "#reason")
    either_page.keyboard.type(REASON)
    follow(either_page, "main form button.main", "[data-done]")
    assert look("SELECT priority, args FROM opsjobs.jobs") == [(2, {"a": 1, "b": 1})]


@pytest.mark.usefixtures("app")
def test_a_task_is_paused_and_resumed(page: Any) -> None:
    for action, paused in (("pause", [("add",)]), ("resume", [])):
        act(page, "/tasks/add", f"[formaction$='/tasks/add/{action}']")
        assert look("SELECT task FROM opsjobs.task_pauses") == paused


def test_a_worker_is_drained(page: Any, app: Flask) -> None:
    with Session(app.extensions["opsjobs"].engine) as session:
        for name in ("shop-1", "shop-2"):
            make_worker(session, name=name)
        session.commit()
    act(page, "/workers", "[formaction$='/workers/shop-2/drain']")
    assert look("SELECT name FROM opsjobs.workers WHERE drain_requested_at IS NOT NULL") == [
        ("shop-2",)
    ]


@pytest.mark.usefixtures("app")
def test_a_head_orders_the_list_and_keeps_the_focus_when_that_is_read_again(page: Any) -> None:
    for queue, number in (("few", 1), ("many", 3), ("some", 2)):
        for _ in range(number):
            site.add.options(queue=queue).enqueue(a=1, b=1)
    site.db.session.commit()
    page.goto("/ops/jobs/queues")
    head, names = "thead a.sort[href*='due']", "tbody th a.name"
    follow(page, head, "[aria-sort=descending]:has-text('Due')")
    assert page.locator(names).all_inner_texts() == ["many", "some", "few"]
    follow(page, head, "[aria-sort=ascending]:has-text('Due')")
    assert page.locator(names).all_inner_texts() == ["few", "some", "many"]
    go_to(page, head)
    address = page.url
    for _ in range(3):
        site.add.options(queue="few").enqueue(a=1, b=1)
    site.db.session.commit()
    page.keyboard.press("r")
    page.wait_for_selector("tbody tr:nth-child(3):has-text('few')")
    assert page.locator(names).all_inner_texts() == ["some", "many", "few"]
    assert page.evaluate("selector => document.activeElement.matches(selector)", head)
    assert page.url == address


@pytest.mark.usefixtures("app")
def test_hand_over_opens_with_the_command_and_closes(either_page: Any) -> None:
    job = site.add.enqueue(a=1, b=1).id
    site.db.session.commit()
    either_page.goto(f"/ops/jobs/jobs/{job}")
    command = either_page.locator("#page-command")
    for key in ("Space", "Enter"):
        go_to(either_page, "#fresh summary")
        assert not command.is_visible()
        either_page.keyboard.press(key)
        assert command.is_visible()
        assert command.inner_text() == f"flask opsjobs why {job}"
        either_page.keyboard.press(key)
        assert not command.is_visible()


@pytest.mark.usefixtures("app")
def test_a_list_is_handed_over_as_a_command(page: Any) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto("/ops/jobs/jobs?state=failed")
    go_to(page, "#fresh summary")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("button:focus:has-text('Copied')")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == page.inner_text("#page-command") == "flask opsjobs jobs --search=state:failed"


def look(query: str, **values: Any) -> list[Any]:
    """What the database has."""
    site.db.session.rollback()
    return [tuple(row) for row in site.db.session.execute(text(query), values)]

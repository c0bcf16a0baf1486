"""The forms of a run and of a batch with the keyboard alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text

from flask_opsjobs.testing import perform_due
from tests.support import host as site

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


def look(query: str, **values: Any) -> list[Any]:
    """What the database has."""
    site.db.session.rollback()
    return [tuple(row) for row in site.db.session.execute(text(query), values)]

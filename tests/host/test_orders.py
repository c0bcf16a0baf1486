"""The shop's orders: a workflow that waits for the bank's webhook, and an order whose bank never answers."""

from __future__ import annotations

import json
import re
from types import ModuleType
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.workflows.checks import checks

from .conftest import Perform, sign_in

STEPS = """
    SELECT s.name, j.state, coalesce(j.ended_by, '')
    FROM opsjobs.steps s JOIN opsjobs.jobs j ON j.id = s.job_id
    WHERE s.workflow_id = :run ORDER BY s.job_id
"""


def steps_of(db: Any, run: int) -> dict[str, str]:
    """The state and the end of each step, by name."""
    found = db.session.execute(text(STEPS), {"run": run})
    return {name: f"{state} {ended_by}".strip() for name, state, ended_by in found}


def order_of(db: Any, shop: ModuleType, run: int) -> Any:
    """The order that a run delivers."""
    return db.session.scalars(db.select(shop.models.Order).filter_by(workflow_id=run)).one()


def bank_says(visitor: FlaskClient, app: Flask, shop: ModuleType, event: object) -> Any:
    """The answer to a webhook of the bank."""
    body = event if isinstance(event, bytes) else json.dumps(event).encode()
    signature = shop.vendors.sign(body, app.config["BANK_KEY"])
    headers = {"X-Signature": signature, "Content-Type": "application/json"}
    return visitor.post("/webhooks/payment", data=body, headers=headers)


def test_an_order_waits_for_the_webhook_of_its_payment_and_is_then_delivered(
    visitor: FlaskClient, app: Flask, db: Any, shop: ModuleType, perform: Perform
) -> None:
    run = shop.orders.place(parcels=2)
    perform()
    assert steps_of(db, run) == {
        "reserve": "finished returned",
        "pay": "finished returned",
        "paid": "deferred",
        "pack": "deferred",
        "notify": "deferred",
    }
    order = order_of(db, shop, run)
    event = {"id": "evt_1", "order": order.id, "cents": order.cents}
    assert bank_says(visitor, app, shop, event).json == {"is_repeated": False}
    assert bank_says(visitor, app, shop, event).json == {"is_repeated": True}
    perform()
    assert steps_of(db, run) == {
        "reserve": "finished returned",
        "pay": "finished returned",
        "paid": "finished signaled",
        "pack": "finished returned",
        "pack[0]": "finished returned",
        "pack[1]": "finished returned",
        "notify": "finished returned",
    }
    order = order_of(db, shop, run)
    assert (order.state, order.paid_at is not None) == ("finished", True)
    connection = connect_apart(app.extensions["opsjobs"].engine)
    assert checks(connection) == []
    connection.close()


def test_a_payment_that_comes_before_the_workflow_asks_for_it_is_kept(
    visitor: FlaskClient, app: Flask, db: Any, shop: ModuleType, perform: Perform
) -> None:
    run = shop.orders.place(parcels=1)
    db.session.commit()
    order = order_of(db, shop, run)
    event = {"id": "evt_1", "order": order.id, "cents": order.cents}
    assert bank_says(visitor, app, shop, event).status_code == 200
    perform()
    assert steps_of(db, run)["paid"] == "finished signaled"
    assert order_of(db, shop, run).state == "finished"


def test_an_order_whose_bank_never_answers_fails_in_its_middle(
    db: Any, shop: ModuleType, perform: Perform
) -> None:
    run = shop.orders.place_for_the_unlucky()
    perform()
    assert steps_of(db, run) == {
        "reserve": "finished returned",
        "pay": "failed exhausted",
        "paid": "canceled dependency",
        "pack": "canceled dependency",
        "notify": "canceled dependency",
    }
    assert order_of(db, shop, run).state == "failed"


def test_a_skip_of_the_step_that_failed_lets_the_order_go_on(
    visitor: FlaskClient, app: Flask, db: Any, shop: ModuleType, perform: Perform
) -> None:
    run = shop.orders.place_for_the_unlucky()
    perform()
    result = {"link": "told by phone"}
    operator = shop.extensions.opsjobs.operator
    operator.skip_step(run, "pay", result, actor="ops-demo", reason="He was told by phone")
    perform()
    assert steps_of(db, run)["paid"] == "deferred"
    order = order_of(db, shop, run)
    assert (order.state, order.paid_at) == ("failed", None)
    bank_says(visitor, app, shop, {"id": "evt_1", "order": order.id, "cents": order.cents})
    perform()
    steps = steps_of(db, run)
    assert (steps["pay"], steps["notify"]) == ("finished skipped", "finished returned")
    assert order_of(db, shop, run).state == "finished"


@pytest.mark.parametrize(
    "event",
    [b"no JSON", [], {"id": "evt_1"}, {"id": 1, "order": 1, "cents": 1}, {"id": "", "order": "1"}],
)
def test_a_webhook_that_is_no_payment_changes_nothing(
    visitor: FlaskClient, app: Flask, db: Any, shop: ModuleType, event: object
) -> None:
    assert bank_says(visitor, app, shop, event).status_code == 400
    assert db.session.scalar(text("SELECT count(*) FROM opsjobs.signals")) == 0


def test_a_webhook_of_somebody_else_changes_nothing(
    visitor: FlaskClient, app: Flask, db: Any, shop: ModuleType
) -> None:
    run = shop.orders.place()
    db.session.commit()
    order = order_of(db, shop, run)
    event = {"id": "evt_1", "order": order.id, "cents": 1}
    for signature in ("", "ä", shop.vendors.sign(b"", app.config["BANK_KEY"])):
        headers = {"X-Signature": signature}
        answer = visitor.post("/webhooks/payment", json=event, headers=headers)
        assert answer.status_code == 403
    assert bank_says(visitor, app, shop, {**event, "order": order.id + 1}).status_code == 404
    assert db.session.scalar(text("SELECT count(*) FROM opsjobs.signals")) == 0


def test_buttons_of_the_front_page_order_and_pay(
    visitor: FlaskClient, db: Any, shop: ModuleType, perform: Perform
) -> None:
    sign_in(visitor, "viewer")
    assert visitor.post("/orders").status_code == 403
    sign_in(visitor, "ops-demo")
    assert visitor.post("/orders/1/pay").status_code == 404
    place = visitor.post("/orders").headers["Location"]
    (run,) = re.findall(r"run=(\d+)", place)
    (button,) = re.findall(r'action="(/orders/\d+/pay)"', visitor.get(place).text)
    visitor.post(button)
    assert button not in visitor.get("/").text
    perform()
    (link,) = re.findall(r'href="(/ops/jobs/workflows/\d+)"', visitor.get("/").text)
    assert link == f"/ops/jobs/workflows/{run}"
    assert "finished" in visitor.get(link).text
    assert order_of(db, shop, int(run)).state == "finished"
    visitor.post("/orders", data={"unlucky": ""})
    assert order_of(db, shop, int(run) + 1).customer_id == shop.vendors.UNLUCKY_ACCOUNT


def test_somebody_pays_who_owes_and_else_somebody_orders(
    db: Any, shop: ModuleType, perform: Perform
) -> None:
    first = shop.orders.pay_first()
    assert order_of(db, shop, first).paid_at is None
    assert shop.orders.pay_first() == first
    assert order_of(db, shop, first).paid_at is not None
    perform()
    assert order_of(db, shop, first).state == "finished"


def test_an_order_and_its_workflow_are_all_or_nothing(db: Any, shop: ModuleType) -> None:
    shop.orders.place()
    db.session.rollback()
    for table in ("orders", "opsjobs.workflows", "opsjobs.jobs"):
        assert db.session.scalar(text(f"SELECT count(*) FROM {table}")) == 0

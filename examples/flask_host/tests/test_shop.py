"""What the shop enqueues, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from flask_host import happenings, tasks
from flask_host.extensions import db
from flask_host.models import Customer, Invoice
from flask_opsjobs import InvalidArgs
from flask_opsjobs.testing import (
    Performed,
    StoredJob,
    assert_enqueued,
    perform,
    refute_enqueued,
)
from flask_opsjobs.testing.plugin import Clock

PerformDue = Callable[..., Performed]


@pytest.fixture
def invoice(app: Any) -> Invoice:
    """A customer has bought something, and the jobs for it are enqueued."""
    happenings.order(db.session.get_one(Customer, 7))
    db.session.commit()
    return db.session.scalars(db.select(Invoice)).one()


def test_who_buys_is_charged_and_gets_a_receipt(
    invoice: Invoice, opsjobs_perform_due: PerformDue
) -> None:
    assert_enqueued(tasks.process_invoice, invoice_id=invoice.id)
    refute_enqueued(tasks.send_receipt)
    opsjobs_perform_due()
    db.session.refresh(invoice)
    assert invoice.paid_at is not None

    receipt = assert_enqueued(tasks.send_receipt, customer_id=7)
    # So one search finds what is done for a customer.
    assert "customer/7" in receipt.tags


def test_a_paid_invoice_is_not_reminded_of(
    invoice: Invoice, opsjobs_perform_due: PerformDue, opsjobs_clock: Clock
) -> None:
    opsjobs_perform_due()
    assert assert_enqueued(tasks.send_reminder).state == "scheduled"
    opsjobs_clock.forward(seconds=45)
    opsjobs_perform_due()
    assert assert_enqueued(tasks.send_reminder).state == "canceled"


def test_an_invoice_is_charged_once_in_an_hour(
    invoice: Invoice,
    opsjobs_clock: Clock,
    opsjobs_enqueued: Callable[..., list[dict[str, Any]]],
) -> None:
    call = {"account_id": 7, "invoice_id": invoice.id}
    opsjobs_clock.forward(minutes=59)
    assert tasks.process_invoice.enqueue(**call).conflict
    opsjobs_clock.forward(minutes=1)
    assert not tasks.process_invoice.enqueue(**call).conflict
    assert opsjobs_enqueued(tasks.process_invoice) == [call, call]


@pytest.mark.opsjobs(inline=True)
def test_a_press_of_a_button_resizes_a_picture(
    client: FlaskClient, opsjobs_jobs: Callable[..., list[StoredJob]]
) -> None:
    client.post("/sign-in", data={"name": "ops-demo", "password": "operate"})
    assert client.post("/happen/avatars").status_code == 303
    assert {job.state for job in opsjobs_jobs(tasks.resize_avatar)} == {"finished"}


def test_a_broken_line_fails_the_import_of_a_file(app: Any) -> None:
    call = perform(tasks.import_bank_file, name="march.mt940")
    assert (call.outcome, type(call.exception)) == ("raised", ValueError)
    assert "line 31" in str(call.error)
    perform(tasks.import_bank_file, name="march.csv").assert_returned()
    with pytest.raises(InvalidArgs, match="lines"):
        perform(tasks.import_bank_file, name="march.csv", lines="many")

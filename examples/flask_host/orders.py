"""Sells goods that are sent in parcels: an order is a run of a workflow, which waits until it is paid."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

from flask_opsjobs import Workflow

from . import happenings, tasks
from .extensions import db, opsjobs
from .models import Customer, Order
from .vendors import UNLUCKY_ACCOUNT

PAYMENT = "payment"


def make_workflow(order: Order) -> Workflow:
    """Reserve, ask for the payment, wait for it, pack each parcel, and write to the customer."""
    flow = opsjobs.workflow("order", context={"order_id": order.id}, on_end=tasks.close_order)
    reserved = flow.step("reserve", tasks.reserve_stock, order_id=order.id)
    asked = flow.step("pay", tasks.request_payment, order_id=order.id, after=reserved)
    paid = flow.wait(
        "paid", signal=PAYMENT, key=key_of(order.id), timeout=timedelta(days=14), after=asked
    )
    pack = flow.map(
        "pack", tasks.pack_parcel, over=reserved.result["parcels"], as_="parcel", after=paid
    )
    flow.step(
        "notify",
        tasks.announce_parcels,
        customer_id=order.customer_id,
        cents=paid.result["cents"],
        labels=pack.results,
    )
    return flow


def key_of(order_id: int) -> str:
    """The key of an order's signals."""
    return f"order-{order_id}"


def place(customer: Customer | None = None, parcels: int | None = None) -> int:
    """Somebody orders goods that fill some parcels. Returns the id of the run. The caller commits."""
    customer = customer or happenings.some_customer()
    order = Order(
        customer_id=customer.id,
        cents=random.randint(2_000, 40_000),
        parcels=parcels or random.randint(1, 4),
    )
    db.session.add(order)
    db.session.flush()
    run = make_workflow(order).start(unique=key_of(order.id))
    order.workflow_id = run.id
    return run.id


def place_for_the_unlucky() -> int:
    """The customer orders whose bank never answers: the step `pay` fails."""
    return place(db.session.get_one(Customer, UNLUCKY_ACCOUNT))


def pay_first() -> int:
    """The customer pays who has owed it for the longest time; when nobody owes, somebody orders."""
    order = db.session.scalars(
        db.select(Order)
        .where(Order.paid_at.is_(None), Order.customer_id != UNLUCKY_ACCOUNT)
        .order_by(Order.id)
        .limit(1)
    ).first()
    if order is None or order.workflow_id is None:
        return place()
    receive_payment(f"evt_{order.id}", order, order.cents)
    return order.workflow_id


def receive_payment(event: str, order: Order, cents: int) -> bool:
    """Note that an order was paid, and tell its workflow, all or nothing. The caller commits.

    The bank may send an event several times, or before the workflow asks for the payment. Returns whether
    this event has come before.
    """
    order.paid_at = order.paid_at or datetime.now(UTC)
    payload = {"cents": cents}
    return opsjobs.signal(PAYMENT, key=key_of(order.id), payload=payload, dedupe=event).conflict


# How often each happens by itself, in the shares of `happenings.SHARES`.
SHARES: dict[happenings.Happening, int] = {place: 3, place_for_the_unlucky: 0, pay_first: 3}

"""Lets things happen in the shop: each is one transaction that also enqueues jobs."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime

from . import tasks
from .extensions import db
from .models import Customer, Invoice
from .vendors import UNLUCKY_ACCOUNT

# The server that receives most webhooks, and is down once in a while.
RECEIVER = "hooks.example"
EVENTS = ("order.paid", "order.sent", "customer.changed")
Happening = Callable[[], int]


def some_customer() -> Customer:
    """Any customer except the unlucky one."""
    lucky = db.select(Customer).where(Customer.id != UNLUCKY_ACCOUNT)
    found: Customer = db.session.scalars(lucky.order_by(db.func.random()).limit(1)).one()
    return found


def order(customer: Customer | None = None) -> int:
    """Somebody buys: an invoice, the job that charges it and a reminder, all or nothing."""
    customer = customer or some_customer()
    invoice = Invoice(customer_id=customer.id, cents=random.randint(500, 90_000))
    db.session.add(invoice)
    db.session.flush()
    job = tasks.process_invoice.enqueue(
        account_id=customer.id, invoice_id=invoice.id, card_token="tok_" + "4" * 16
    )
    tasks.send_reminder.options(delay=45).enqueue(customer.id, invoice.id)
    return job.id


def order_of_the_unlucky() -> int:
    """The customer buys whose bank never answers."""
    return order(db.session.get_one(Customer, UNLUCKY_ACCOUNT))


def sync() -> int:
    """The CRM is asked for a customer's contacts."""
    return tasks.sync_customer.enqueue(some_customer().id).id


def orders() -> int:
    """An account's own shop is asked for its orders: more pages at once than it lets in."""
    account = random.randint(1, 3)
    tasks.fetch_orders.enqueue_many({"account_id": account, "page": page} for page in range(2, 9))
    return tasks.fetch_orders.enqueue(account_id=account, page=1).id


def report() -> int:
    """Somebody wants a report."""
    name = random.choice(("revenue", "churn", "stock"))
    return tasks.render_report.enqueue(name, rows=random.randint(30, 70)).id


def heavy_report() -> int:
    """A report that will take too much memory: its process dies at the first attempt."""
    return tasks.render_report.enqueue("every invoice ever", rows=45, memory_mb=900).id


def report_with_one_try() -> int:
    """The same with a single attempt: it stays failed until somebody retries it."""
    once = tasks.render_report.options(max_attempts=1)
    return once.enqueue("every invoice of this year", rows=15, memory_mb=900).id


def bank_file() -> int:
    """A bank sends a file."""
    name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}.csv"
    return tasks.import_bank_file.enqueue(name, bank_account="DE02 1203 0000 0000 2020 51").id


def broken_bank_file() -> int:
    """A bank sends a file with a typing error."""
    return tasks.import_bank_file.enqueue(f"{datetime.now(UTC):%Y%m%d}.mt940").id


def avatars() -> int:
    """A team signs up: many small jobs at once."""
    rows = ({"user_id": random.randint(1, 9_999), "width": 256} for _ in range(20))
    tasks.resize_avatar.enqueue_many(rows)
    return tasks.resize_avatar.enqueue(user_id=1).id


def search() -> int:
    """The catalogue changed; another rebuild that still waits will do."""
    return tasks.rebuild_search.enqueue("catalogue").id


def webhook() -> int:
    """A customer's server wants to know."""
    return _webhook(random.choice((RECEIVER, RECEIVER, RECEIVER, "maintenance.example")))


def webhook_to_nobody() -> int:
    """The same, for a customer whose server is gone for good."""
    return _webhook("gone.example")


def _webhook(host: str) -> int:
    return tasks.deliver_webhook.enqueue(
        f"https://{host}/in", random.choice(EVENTS), api_key="sk_live_0123456789abcdef"
    ).id


def newsletter() -> int:
    """The weekly newsletter goes out."""
    return tasks.send_newsletter.enqueue(f"{datetime.now(UTC):week %V of %G}").id


# How often each happens by itself, in shares: together they keep two workers busy about half of the time.
# A share of 0 means only by its button, because it fails for good or waits for a person.
SHARES: dict[Happening, int] = {
    order: 40,
    order_of_the_unlucky: 0,
    sync: 6,
    orders: 6,
    report: 4,
    heavy_report: 2,
    report_with_one_try: 0,
    bank_file: 5,
    broken_bank_file: 0,
    avatars: 4,
    search: 6,
    webhook: 20,
    webhook_to_nobody: 0,
    newsletter: 0,
}

"""Declares the tasks of the shop, each with the options that suit it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from flask import current_app

from flask_opsjobs import Cancel, Discard, Limit, RetryIn, Snooze, Unique, current_job

from . import vendors
from .extensions import db, opsjobs
from .models import Customer, Invoice, Order, Price, PriceList

log = logging.getLogger("shop")


def soon(attempt: int) -> float:
    """A short backoff, for people who watch: 2, 4, 8, … seconds."""
    return float(2**attempt)


def later(attempt: int) -> float:
    """A short backoff at first, and then an hour: what failed twice rarely helps itself."""
    return 3.0 if attempt == 1 else 3_600.0


def of_customer(args: dict[str, Any]) -> list[str]:
    """The tag by which all jobs of a customer are found, as by `tag:customer/42`."""
    return [f"customer/{args['customer_id' if 'customer_id' in args else 'account_id']}"]


@opsjobs.task(
    queue="billing",
    priority=1,
    backoff=soon,
    timeout=30,
    deadline=timedelta(hours=24),
    unique=Unique(by=["invoice_id"], within=timedelta(hours=1)),
    redact={"card_token"},
    record_output=True,
    tags=lambda args: ["eu", *of_customer(args)],
)
def process_invoice(account_id: int, invoice_id: int, card_token: str = "") -> dict[str, object]:
    """Charge an invoice once. The card's token is never stored."""
    invoice = db.session.get(Invoice, invoice_id)
    if invoice is None:
        raise Discard(f"invoice {invoice_id} does not exist")
    log.info("invoice %s: %.2f EUR", invoice_id, invoice.cents / 100)
    receipt = vendors.charge(account_id, invoice_id)
    invoice.paid_at = datetime.now(UTC)
    send_receipt.enqueue(customer_id=invoice.customer_id, invoice_id=invoice_id)
    db.session.commit()
    return {**receipt, "cents": invoice.cents}


@opsjobs.task(queue="mail", backoff=soon, max_attempts=5, tags=of_customer)
def send_receipt(customer_id: int, invoice_id: int) -> None:
    """Mail a receipt. A greylisting server accepts it at the second attempt."""
    address = vendors.address_of(customer_id)
    vendors.send_mail(address, f"Receipt {invoice_id}", current_job().attempt)


@opsjobs.task(queue="mail", priority=7, max_attempts=3, backoff=soon, tags=of_customer)
def send_reminder(customer_id: int, invoice_id: int) -> None:
    """Send a reminder of an invoice, unless it was paid in the meantime."""
    invoice = db.session.get_one(Invoice, invoice_id)
    if invoice.paid_at is not None:
        raise Cancel("paid in the meantime")
    vendors.send_mail(vendors.address_of(customer_id), f"Reminder {invoice_id}", 2)


@opsjobs.task(
    queue="crm",
    timeout=60,
    unique=Unique(by=["customer_id"], until="ended"),
    tags=of_customer,
)
def sync_customer(customer_id: int, pages: int = 40) -> None:
    """Copy a customer's contacts page by page; an overloaded CRM says when to come back."""
    job = current_job()
    for page in range(1, pages + 1):
        try:
            vendors.fetch_customer_page(customer_id, page, job.attempt)
        except vendors.HTTPError as error:
            raise RetryIn(5, str(error)) from error
        job.progress(page, pages, f"{page * 10} of {pages * 10} contacts")
    db.session.get_one(Customer, customer_id).synced_at = datetime.now(UTC)
    db.session.commit()


@opsjobs.task(
    queue="crm",
    limit=Limit("customer-api", rate=4, per=10, burst=3, concurrency=2, partition="account_id"),
    tags=of_customer,
)
def fetch_orders(account_id: int, page: int) -> None:
    """Ask an account's shop for a page of orders. It accepts four requests in ten seconds, two at a time."""
    log.info("account %s: orders, page %s", account_id, page)
    vendors.wait(0.4)


@opsjobs.task(
    queue="reports",
    max_attempts=3,
    backoff=soon,
    timeout=120,
    record_output=True,
    enqueue_from_page=True,
)
def render_report(report: str, rows: int = 60, memory_mb: int = 200) -> dict[str, object]:
    """Render a report. One with too much memory is killed at its first attempt, and succeeds at the next."""
    job = current_job()
    for row in range(1, rows + 1):
        vendors.wait(0.1)
        job.progress(row, rows, f"row {row}")
        if row == rows // 3 and job.attempt == 1:
            vendors.take_memory(memory_mb)
    return {"report": report, "rows": rows, "pages": rows // 20 + 1}


@opsjobs.task(queue="reports", max_attempts=4, backoff=later, timeout=120)
def archive_year(year: int) -> None:
    """Write the invoices of a year into one file. That takes too much memory at every attempt."""
    log.info("archiving %s", year)
    vendors.wait(0.5)
    vendors.take_memory(2_000)


@opsjobs.task(queue="billing", priority=8, max_attempts=2, backoff=soon)
def import_bank_file(name: str, lines: int = 50, bank_account: str = "") -> None:
    """Read a bank's file line by line. A broken line makes the job fail."""
    job = current_job()
    for line in range(1, lines + 1):
        vendors.wait(0.02)
        job.progress(line, lines)
        if name.endswith(".mt940") and line == 31:
            raise ValueError(f"{name}, line {line}: amount '12,5O' is not a number")


@opsjobs.task(max_attempts=3, record_output=True)
def resize_avatar(user_id: int, width: int = 128, picture: str = "me.png") -> dict[str, int]:
    """Cut a picture to size."""
    vendors.wait(0.05)
    vendors.read_picture(picture, current_app.config.get("OPSJOBS_VERSION"))
    return {"user": user_id, "bytes": width * width // 3}


@opsjobs.task(
    priority=9, unique=Unique(by=["index"], until="ended"), timeout=60, enqueue_from_page=True
)
def rebuild_search(index: str) -> None:
    """Rebuild a search index. Enqueued twice while one job waits or runs, it runs once."""
    for step in range(1, 21):
        vendors.wait(0.1)
        current_job().progress(step, 20, "building")


@opsjobs.task(backoff=soon, max_attempts=4)
def deliver_webhook(url: str, event: str, api_key: str = "") -> None:
    """Tell a customer's server about an event. While it is in maintenance, snooze."""
    job = current_job()
    log.info("POST %s %s, api_key=%s", url, event, api_key)
    if "maintenance" in url and (datetime.now(UTC) - job.created_at) < timedelta(seconds=15):
        raise Snooze(5, "the receiver is in maintenance")
    vendors.deliver(urlsplit(url).hostname or "", url)


@opsjobs.task(queue="newsletter", timeout=60)
def send_newsletter(issue: str) -> None:
    """Mail an issue to all customers."""
    for step in range(1, 61):
        vendors.wait(0.05)
        current_job().progress(step, 60, "mails")


# --- the steps of an order: see orders.py


@opsjobs.task(queue="shipping", backoff=soon, record_output=True)
def reserve_stock(order_id: int) -> dict[str, list[str]]:
    """Reserve the goods of an order; returns the numbers of the parcels that they fill."""
    vendors.wait(0.1)
    order = db.session.get_one(Order, order_id)
    return {"parcels": [f"P-{order_id:05d}-{number}" for number in range(1, order.parcels + 1)]}


@opsjobs.task(queue="billing", priority=1, max_attempts=2, backoff=soon, record_output=True)
def request_payment(order_id: int) -> dict[str, str]:
    """Ask the customer's bank for the payment. Whether it is paid, the bank's webhook says later."""
    order = db.session.get_one(Order, order_id)
    return {"link": vendors.ask_for_payment(order.customer_id, order_id, order.cents)}


@opsjobs.task(queue="shipping", backoff=soon, max_attempts=5, record_output=True)
def pack_parcel(parcel: str) -> str:
    """Pack a parcel; returns the label of its carrier."""
    vendors.wait(0.3)
    return f"L{sum(parcel.encode()):06d}"


@opsjobs.task(queue="mail", backoff=soon, max_attempts=5)
def announce_parcels(customer_id: int, cents: int, labels: list[str]) -> None:
    """Write to the customer what was paid, and which parcels come."""
    subject = f"{cents / 100:.2f} EUR paid, {len(labels)} parcels: {', '.join(labels)}"
    vendors.send_mail(vendors.address_of(customer_id), subject, current_job().attempt)


@opsjobs.task(queue="shipping")
def close_order(workflow_id: int, state: str, context: dict[str, int]) -> None:
    """Note on the order how its workflow has ended. It may end again, after a repair."""
    db.session.get_one(Order, context["order_id"]).state = state
    db.session.commit()
    log.info("workflow %s is %s", workflow_id, state)


# --- the rows of a price list: see prices.py

HIGHEST_ARTICLE = 9_999


# No other queue comes after it in the alphabet: a long list holds up nothing else. A wrong row stays wrong.
@opsjobs.task(queue="supply", priority=9, max_attempts=1)
def import_price(row: int, article: int, price: str) -> None:
    """Note what an article costs."""
    vendors.wait(0.01)
    try:
        cents = round(float(price) * 100)
    except ValueError:
        raise ValueError(f"row {row}: the price {price!r} is not a number") from None
    if article > HIGHEST_ARTICLE:
        raise LookupError(f"row {row}: there is no article {article}")
    db.session.merge(Price(article=article, cents=cents))
    db.session.commit()


@opsjobs.task(queue="mail", backoff=soon, max_attempts=5)
def warn_buyer(batch_id: int, meta: dict[str, int]) -> None:
    """Write to the buyer as soon as one row of a price list is wrong."""
    subject = f"Price list {meta['price_list']} has a wrong row: see batch {batch_id}"
    vendors.send_mail("buyer@example.com", subject, current_job().attempt)


@opsjobs.task(queue="supply")
def close_price_list(
    batch_id: int, state: str, counts: dict[str, int], meta: dict[str, int]
) -> None:
    """Note on the price list how its import has ended. It may end again, after a repair."""
    result = f"{state}: {counts['finished']} of {counts['enqueued']} rows imported"
    db.session.get_one(PriceList, meta["price_list"]).result = result
    db.session.commit()
    log.info("batch %s is %s", batch_id, result)


# --- by the clock


@opsjobs.cron("30 3 * * *", zone="Europe/Berlin", name="nightly_sync")
@opsjobs.task(queue="crm", record_output=True)
def sync_all_customers(most: int = 5) -> int:
    """Enqueue a sync for the customers whose contacts were copied longest ago."""
    oldest = db.select(Customer.id).order_by(Customer.synced_at.nulls_first()).limit(most)
    ids = list(db.session.scalars(oldest))
    for customer_id in ids:
        sync_customer.enqueue(customer_id, pages=5)
    db.session.commit()
    return len(ids)


def is_everybody_copied(_subject: str) -> bool:
    """Whether no customer waits for the first copy of its contacts."""
    waiting = db.select(Customer.id).where(Customer.synced_at.is_(None)).limit(1)
    return db.session.scalar(waiting) is None


# The page of its forensics shows it, and asks the first of the two.
opsjobs.runbook(
    "cron/nightly_sync",
    title="Pause the nightly sync",
    prerequisites={
        "every customer was copied once": is_everybody_copied,
        "the CRM team knows": None,
    },
    cautions=["Contacts that change meanwhile are a night late."],
)


@opsjobs.cron("*/10 * * * *", name="close_day", overlap="queue_one", args={"seconds": 2})
@opsjobs.cron(
    "*/15 * * * *", name="close_day_twice", zone="Europe/Berlin", overlap="allow", catch_up=3
)
@opsjobs.task(queue="reports", timeout=60)
def close_day(seconds: int = 1) -> None:
    """Add up what was sold."""
    for step in range(1, seconds * 10 + 1):
        vendors.wait(0.1)
        current_job().progress(step, seconds * 10, "adding up")

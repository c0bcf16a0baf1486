"""Simulates the vendors of the shop: they answer, answer late, or do not answer."""

from __future__ import annotations

import logging
import os
import signal
import time
from datetime import datetime

from .extensions import db
from .models import Customer, Outage

# How vendors wait. The demo's history replaces it, because there a day passes in seconds.
wait = time.sleep

log = logging.getLogger("shop")

# Only this customer's bank never answers, so that its failures have the same error.
UNLUCKY_ACCOUNT = 42
MEMORY_MB = 512


class GatewayTimeout(Exception):
    """The payment gateway did not answer."""


class HTTPError(Exception):
    """A vendor answered with an error."""


class SMTPError(Exception):
    """The mail server refuses a mail for now."""


def charge(account_id: int, invoice_id: int) -> dict[str, object]:
    """Charge an invoice; never confirmed for one unlucky account."""
    log.info("POST https://customer-api.example/v2/invoices, idempotency key inv-%s", invoice_id)
    if account_id == UNLUCKY_ACCOUNT:
        wait(1.5)
        log.warning("no answer, giving up")
        raise GatewayTimeout(
            f"customer-api did not answer in 1.5 s (POST /v2/invoices, account {account_id})"
        )
    wait(0.1)
    log.info("charged")
    return {"receipt": f"R-{invoice_id:06d}", "account": account_id}


def send_mail(address: str, subject: str, attempt: int) -> None:
    """Send a mail; every seventh is greylisted once."""
    log.info("MAIL TO %s: %s", address, subject)
    wait(0.05)
    if attempt == 1 and sum(subject.encode()) % 7 == 0:
        raise SMTPError("421 4.7.0 greylisted, try again later")


def fetch_customer_page(customer_id: int, page: int, attempt: int) -> None:
    """Fetch a page of a customer's contacts from the CRM, which is sometimes overloaded."""
    wait(0.12)
    if attempt == 1 and customer_id % 4 == 0 and page == 12:
        raise HTTPError("503 Service Unavailable from https://api:s3cr3t@crm.example/contacts")
    log.debug("page %s of customer %s", page, customer_id)


def take_memory(megabytes: int) -> None:
    """Use memory; a process that uses too much is killed, as by the out-of-memory killer."""
    if megabytes > MEMORY_MB:
        log.warning("%s MB of %s MB", megabytes, MEMORY_MB)
        os.kill(os.getpid(), signal.SIGKILL)


def address_of(customer_id: int) -> str:
    """A customer's e-mail address."""
    customer = db.session.get_one(Customer, customer_id)
    return customer.email


def deliver(host: str, url: str) -> None:
    """Deliver an event to a customer's server; raises `HTTPError` when it is down or gone."""
    if host == "gone.example":
        raise HTTPError(f"410 Gone: {url}")
    if is_down(host):
        raise HTTPError(f"503 Service Unavailable: {url}")
    wait(0.1)


def is_down(host: str) -> bool:
    """Whether a server is down now."""
    lasting = db.select(Outage.id).where(Outage.host == host, Outage.ended_at.is_(None))
    return db.session.scalar(lasting.limit(1)) is not None


def go_down(host: str) -> None:
    """Begin an outage of a server. The caller commits."""
    db.session.add(Outage(host=host))


def come_back(at: datetime) -> int:
    """End all outages, and return their number. The caller commits."""
    lasting = db.session.scalars(db.select(Outage).where(Outage.ended_at.is_(None))).all()
    for outage in lasting:
        outage.ended_at = at
    return len(lasting)

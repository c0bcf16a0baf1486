"""Defines the functions of the plain RQ jobs. RQ's worker imports this module, which makes an app."""

from __future__ import annotations

from . import create_app, vendors
from .exports import FILES

app = create_app()


def collect(customer_id: int) -> str:
    """Store what is known of a customer in a file; returns its name. Fails while the file store is down."""
    with app.app_context():
        return vendors.store(FILES, f"customer-{customer_id}.json")


def pack(customer_id: int) -> str:
    """Pack the file; returns the name of the archive."""
    vendors.wait(0.3)
    return f"customer-{customer_id}.zip"


def announce(customer_id: int) -> str:
    """Write to the customer where the archive is; returns the subject."""
    subject = f"Your data: customer-{customer_id}.zip"
    with app.app_context():
        vendors.send_mail(vendors.address_of(customer_id), subject, attempt=2)
    return subject

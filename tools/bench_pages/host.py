"""Makes the host of the pages' bench: the shop's tasks without waits, each of which ends as it is told."""

from __future__ import annotations

import logging
import os
from datetime import timedelta

from flask import Flask
from flask_sqlalchemy import SQLAlchemy

from examples.flask_host.opsjobs_display import HostDisplay
from flask_opsjobs import OpsJobs, Unique, current_job
from tests.support.policies import AllowAll
from tools.bench_pages.paths import METRICS_TOKEN

db = SQLAlchemy()
opsjobs = OpsJobs()
log = logging.getLogger("shop")
# By a job's id, what its attempt shall raise.
planned_errors: dict[int, Exception] = {}


class GatewayTimeout(Exception):
    """The payment gateway did not answer."""


def create_app() -> Flask:
    """A host on the servers named in the environment."""
    app = Flask(__name__)
    app.config.update(
        SECRET_KEY="only for the bench",
        SQLALCHEMY_DATABASE_URI=os.environ["BENCH_DATABASE_URL"],
        OPSJOBS_REDIS_URL=os.environ["BENCH_REDIS_URL"],
        OPSJOBS_PREFETCH=20,
        OPSJOBS_ENVIRONMENT="bench",
        OPSJOBS_METRICS_TOKEN=METRICS_TOKEN,
    )
    db.init_app(app)
    opsjobs.init_app(app, access=AllowAll(), display=HostDisplay())
    log.setLevel(logging.INFO)
    return app


def _raise_planned_error() -> None:
    log.info("begun")
    if (planned_error := planned_errors.get(current_job().id)) is not None:
        log.warning("POST https://customer-api.example/v2/invoices: %s, giving up", planned_error)
        raise planned_error


@opsjobs.task(
    queue="billing",
    priority=1,
    max_attempts=3,
    backoff=0,
    timeout=30,
    deadline=timedelta(hours=24),
    unique=Unique(by=["invoice_id"], within=timedelta(hours=1)),
    record_output=True,
    tags=["eu"],
)
def process_invoice(account_id: int, invoice_id: int) -> dict[str, object]:
    """Charge an invoice."""
    _raise_planned_error()
    return {"receipt": f"R-{invoice_id}", "account": account_id, "cents": 12_50}


@opsjobs.task(queue="mail", backoff=3600)
def send_receipt(customer_id: int, invoice_id: int) -> None:
    """Mail a receipt."""
    _raise_planned_error()


@opsjobs.task(queue="mail", priority=7, max_attempts=3)
def send_reminder(customer_id: int, invoice_id: int) -> None:
    """Remind of an invoice."""
    _raise_planned_error()


@opsjobs.task(queue="crm", timeout=60, enqueue_from_page=True)
def sync_customer(customer_id: int, pages: int = 40) -> None:
    """Copy a customer's contacts page by page."""
    _raise_planned_error()
    current_job().progress(pages, pages, "400 of 400 contacts")


@opsjobs.task(queue="reports", max_attempts=1, timeout=120, record_output=True)
def render_report(report: str, rows: int = 60) -> dict[str, object]:
    """Render a report."""
    _raise_planned_error()
    return {"report": report, "rows": rows, "sections": ["totals", "by region", "by month"]}


@opsjobs.task(queue="billing", priority=8, max_attempts=1)
def import_bank_file(name: str, lines: int = 50, bank_account: str = "") -> None:
    """Read a bank's file line by line."""
    _raise_planned_error()


@opsjobs.task(max_attempts=3, record_output=True)
def resize_avatar(user_id: int, width: int = 128) -> dict[str, int]:
    """Cut a picture to size."""
    _raise_planned_error()
    return {"user": user_id, "bytes": width * width // 3}


@opsjobs.task(priority=9, timeout=60)
def rebuild_search(index: str) -> None:
    """Build a search index anew."""
    _raise_planned_error()


@opsjobs.task(max_attempts=4, backoff=0)
def deliver_webhook(url: str, event: str, api_key: str = "") -> None:
    """Tell a customer's server of an event."""
    _raise_planned_error()

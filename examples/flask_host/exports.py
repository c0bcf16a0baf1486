"""Exports what is stored of a customer by plain RQ jobs, as this shop did before it had OpsJobs.

OpsJobs shows these jobs too. `rq_settings.py` says how RQ's own worker runs them.
"""

from __future__ import annotations

from flask import current_app
from redis import Redis
from rq import Queue

from .extensions import db
from .models import Customer

QUEUE = "exports"
# Where the finished files are stored. It is down once in a while.
FILES = "files.example"
_STEPS = ("collect", "pack", "announce")


def export(customer: Customer | None = None) -> str:
    """A customer wants a copy of their data: three RQ jobs, of which each waits for the one before.

    Returns RQ's id of the first. RQ knows no transactions, so they are enqueued at once.
    """
    customer = (
        customer
        or db.session.scalars(db.select(Customer).order_by(db.func.random()).limit(1)).one()
    )
    with Redis.from_url(current_app.config["OPSJOBS_REDIS_URL"]) as redis:
        jobs = []
        for step in _STEPS:
            function = f"{__package__}.plain_jobs.{step}"
            before = jobs[-1:] or None
            jobs.append(
                Queue(QUEUE, connection=redis).enqueue(function, customer.id, depends_on=before)
            )
    return str(jobs[0].id)


# How often it happens by itself, in the shares of `happenings.SHARES`.
SHARE = 2

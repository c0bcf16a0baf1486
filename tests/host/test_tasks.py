"""The shop's tasks, called as plain functions and performed as jobs: each ends as its story says."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text

from flask_opsjobs import Discard
from tests.support.processes import Children
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

# Each job with its state, how its attempts ended, and its error.
ENDS = """
    SELECT id, state, coalesce(ended.outcomes, ''), coalesce(jobs.error, '')
    FROM opsjobs.jobs, LATERAL (
        SELECT string_agg(outcome, ' ' ORDER BY dispatch_no) AS outcomes
        FROM opsjobs.attempts WHERE job_id = jobs.id) AS ended
    WHERE id = ANY (:jobs)
"""


def test_a_worker_is_still_a_function(db: Any, shop: ModuleType) -> None:
    assert shop.tasks.resize_avatar(7, width=30) == {"user": 7, "bytes": 300}
    with pytest.raises(Discard, match="invoice 99 does not exist"):
        shop.tasks.process_invoice(account_id=1, invoice_id=99)


def test_the_stories_use_every_worker(shop: ModuleType, app: Flask, db: Any) -> None:
    for happening in [*shop.happenings.SHARES, *shop.orders.SHARES, shop.prices.import_list]:
        happening()
    db.session.commit()
    used = set(db.session.scalars(text("SELECT DISTINCT task FROM opsjobs.jobs")))
    host = app.extensions["opsjobs"]
    by_the_clock = {entry.task for entry in host.cron_entries.values()}
    # A receipt is enqueued by the job that charges; maps become jobs, and runs and batches call back, later.
    later = {"send_receipt", "pack_parcel", "close_order", "close_price_list", "warn_buyer"}
    assert used - {"opsjobs.wait", "opsjobs.map"} | later | by_the_clock == set(host.tasks)
    queues = set(db.session.scalars(text("SELECT DISTINCT queue FROM opsjobs.jobs")))
    declared = {"billing", "mail", "crm", "reports", "newsletter", "shipping", "supply", "default"}
    # No task declares the queue of letters, so no worker of the shop serves it.
    assert queues == declared | {"letters"}
    assert {task.declared.queue for task in host.tasks.values()} == declared


def test_some_versions_of_the_shop_cannot_read_all_pictures(
    app: Flask, db: Any, shop: ModuleType
) -> None:
    for version, can_read in (("v2.41", False), ("v2.42", True), ("v2.43", False), (None, True)):
        app.config["OPSJOBS_VERSION"] = version
        assert shop.tasks.resize_avatar(7, width=30, picture="me.png") == {"user": 7, "bytes": 300}
        if can_read:
            shop.tasks.resize_avatar(7, picture="me.heic")
        else:
            with pytest.raises(shop.vendors.UnknownFormat, match="no decoder for HEIC"):
                shop.tasks.resize_avatar(7, picture="me.heic")


def test_what_is_asked_twice_waits_once(db: Any, shop: ModuleType) -> None:
    first = shop.happenings.search()
    db.session.commit()
    assert shop.happenings.search() == first


@pytest.mark.chaos
def test_they_end_as_their_stories_say(
    shop: ModuleType, db: Any, database_url: str, redis_url: str, children: Children
) -> None:
    env = {"FLASK_SQLALCHEMY_DATABASE_URI": database_url, "FLASK_OPSJOBS_REDIS_URL": redis_url}
    flask = ("-m", "flask", "--app", "examples/flask_host")
    up = children.python(*flask, "opsjobs", "up", "--workers", "2", env=env)
    # Some stories end differently when nobody works in their first seconds.
    for words in ("runs the loops", "worker.1 | ", "worker.2 | "):
        up.wait_for(words, 60)
    stories = {
        shop.happenings.order: ("finished", "returned", ""),
        shop.happenings.order_of_the_unlucky: (
            "retryable",
            "raised",
            "GatewayTimeout: customer-api",
        ),
        shop.happenings.broken_bank_file: ("retryable", "raised", "ValueError: "),
        shop.happenings.heavy_report: ("finished", "died returned", ""),
        shop.happenings.archive: ("retryable", "died died", "its process died: killed by SIGKILL"),
        shop.happenings.report_with_one_try: (
            "failed",
            "died",
            "its process died: killed by SIGKILL",
        ),
    }
    jobs = {happening(): expected for happening, expected in stories.items()}
    hook = shop.tasks.deliver_webhook
    jobs[hook.enqueue("https://gone.example/in", "x").id] = (
        "retryable",
        "raised",
        "HTTPError: 410",
    )
    jobs[hook.enqueue("https://maintenance.example/", "x").id] = ("scheduled", "snoozed", "")
    mail = shop.tasks.send_receipt
    jobs[mail.enqueue(customer_id=1, invoice_id=0).id] = ("finished", "returned", "")
    jobs[mail.enqueue(customer_id=1, invoice_id=2).id] = ("finished", "raised returned", "")
    unpaid = shop.tasks.send_reminder
    jobs[unpaid.enqueue(customer_id=1, invoice_id=1).id] = ("canceled", "canceled", "")
    db.session.commit()
    missing = dict(jobs)

    def all_were_seen() -> bool:
        for job, state, outcomes, error in db.session.execute(text(ENDS), {"jobs": list(jobs)}):
            if job in missing and (state, outcomes) == missing[job][:2]:
                assert error.startswith(missing.pop(job)[2])
        db.session.rollback()
        return not missing

    try:
        wait_until(all_were_seen, 60)
    except AssertionError as error:
        now = db.session.execute(text(ENDS), {"jobs": list(missing)}).all()
        raise AssertionError(f"{missing} did not come about; now it is {now}") from error

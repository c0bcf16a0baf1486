"""Makes the two days before the demo begins, with the shop's own jobs, in a few seconds."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from flask import Flask, current_app
from flask_host import create_app, happenings, orders, prices, vendors
from flask_host.extensions import db, opsjobs
from flask_host.models import Invoice, Order
from flask_host.vendors import UNLUCKY_ACCOUNT

from flask_opsjobs import JobFilter
from flask_opsjobs.failures.models import Failure
from flask_opsjobs.lifeline.models import IncidentRecord

from .past import STEP, Past, past

# So long that the night without loops ended more than a day ago, at any hour of day: so nothing is wrong now.
LENGTH = timedelta(hours=51)
# In the first half the shop is closed, and only cron entries run.
OPEN, CLOSED = timedelta(hours=26), timedelta(minutes=2)
LAST_HOUR, MINUTE = timedelta(minutes=65), timedelta(minutes=1)
HOME = ZoneInfo("Europe/Berlin")
# In the first night no loop ran between these times, which include the slot of `nightly_sync` at 3:30.
ASLEEP_FROM, ASLEEP_UNTIL = "03:10", "03:55"
# How long before now the receiver of webhooks goes down and comes back, and the failed jobs are retried.
DOWN, BACK, RETRIED = timedelta(hours=5), timedelta(hours=4, minutes=35), timedelta(hours=4)
# Goods are ordered after the shop has closed, so that nobody has paid them when the demo begins.
PAUSED, ORDERED = timedelta(hours=2), timedelta(minutes=1)
LISTED = timedelta(hours=6)
# How long before now versions of the shop are deployed, pictures fail in the first one, an operator retries
# them too soon, says that the second one mends it, and retries them. A stopped operation is an incident for a
# day. All this is while the shop is open: earlier, at some hours of day, no worker would run.
WITH_BUG, UPLOADED, TOO_SOON = (
    timedelta(hours=32),
    timedelta(hours=25, minutes=50),
    timedelta(hours=25, minutes=20),
)
TO_BE_MENDED, MENDED = timedelta(hours=21), timedelta(hours=20)
PICTURES_RETRIED = timedelta(hours=19, minutes=30)
# How long before now finished reports are deleted, as far as nobody objects.
DELETED = timedelta(hours=1, minutes=30)
# A supplier begins a price list and never ends it. When it has been open for a day, an operator acknowledges
# the incident.
BEGUN, ACKNOWLEDGED = timedelta(hours=49), timedelta(hours=23)
# How long before now an order fails, and an operator skips its step.
BANK_SILENT, SKIPPED = timedelta(hours=3, minutes=30), timedelta(hours=3)
# How long before now an operator enqueues a job from the page of its task.
REBUILT = timedelta(hours=2, minutes=10)
# The number of happenings between two passes of the loops at noon.
BUSIEST = 0.8

Act = Callable[[Past], None]


def write_history(app: Flask) -> None:
    """Make a history of the two days before now, once, with the library's own statements at past times.

    Needs the app's context.
    """
    if db.session.scalar(db.select(Invoice.id).limit(1)) is not None:
        return
    db.session.remove()
    end = datetime.now(UTC)
    random.seed(1)
    left = dict(to_come)
    with past(app, end - LENGTH) as time, waiting_by(time), deployed(None):
        for moment in moments(end):
            time.move_to(moment)
            if is_watched(moment, end):
                time.loop()
                if moment.minute % 5 == 0:
                    time.perform(app)
                # Half as often while the shop is closed.
                if moment.minute % (30 if end - moment < OPEN else 60) == 0:
                    time.watch()
            decide(moment, end, time, left)
            if CLOSED < end - moment < OPEN:
                buy(moment, time, app)
        # Run the last jobs that wait for a retry before the demo begins.
        time.move_to(end)
        time.perform(app)


@contextmanager
def waiting_by(time: Past) -> Iterator[None]:
    """In this block, vendors wait by the simulated clock."""
    before, vendors.wait = vendors.wait, time.wait
    try:
        yield
    finally:
        vendors.wait = before


@contextmanager
def deployed(version: str | None) -> Iterator[None]:
    """In this block the shop has this version, until another one is deployed."""
    before = current_app.config.get("OPSJOBS_VERSION")
    current_app.config["OPSJOBS_VERSION"] = version
    try:
        yield
    finally:
        current_app.config["OPSJOBS_VERSION"] = before


def moments(end: datetime) -> Iterator[datetime]:
    """The times of the loops' passes, just after cron slots: each `STEP`, in the last hour each minute."""
    moment = (end - LENGTH).replace(minute=0, second=1, microsecond=0)
    while moment < end:
        yield moment
        moment += STEP if end - moment > LAST_HOUR else MINUTE


def is_watched(moment: datetime, end: datetime) -> bool:
    """Whether workers and loops run at this moment."""
    if end - moment < OPEN:
        return True
    return not ASLEEP_FROM <= f"{moment.astimezone(HOME):%H:%M}" < ASLEEP_UNTIL


def decide(moment: datetime, end: datetime, time: Past, left: dict[timedelta, Act]) -> None:
    """Let happen what happens once, and what people decide, as far as it is left."""
    for before, act in list(left.items()):
        if moment >= end - before:
            del left[before]
            act(time)


def buy(moment: datetime, time: Past, app: Flask) -> None:
    """Let things happen in the shop until the next pass of the loops."""
    hour = moment.astimezone(HOME).hour
    share = max(0.15, math.sin((hour - 6) / 16 * math.pi))
    for _ in range(round(BUSIEST * share + random.random())):
        random.choices(CHOICES, [SHARES[each] for each in CHOICES])[0]()
        db.session.commit()
        db.session.remove()
        time.perform(app)
        time.move_to(time.now + timedelta(seconds=random.uniform(5, 25)))


def receiver_goes_down(_time: Past) -> None:
    """Take down the server that receives most webhooks, and send it some."""
    vendors.go_down(happenings.RECEIVER)
    for _ in range(8):
        happenings.webhook()
    db.session.commit()


def receiver_comes_back(time: Past) -> None:
    """Bring that server back."""
    vendors.come_back(time.now)
    db.session.commit()


def failed_are_retried(time: Past) -> None:
    """Retry all failed jobs by an operation, and say that such failures may go on while they are few."""
    _retry(JobFilter(state="failed"), "The receiver has answered again for 35 minutes", time)
    _ignore_failures("Receivers are down now and then")


def bug_is_deployed(time: Past) -> None:
    """Deploy a version that cannot read all pictures."""
    _deploy(time, "v2.41", "avatars are cut by the new library")


def pictures_fail(_time: Past) -> None:
    """Upload pictures that this version cannot read."""
    for _ in range(4):
        happenings.picture()
    db.session.commit()


def pictures_are_retried_too_soon(time: Past) -> None:
    """Retry them while the bug is there: the operation stops when the first one fails as before."""
    pictures = JobFilter(state="failed", task="resize_avatar")
    _retry(pictures, "Perhaps the disk was full when they came", time)


def bug_is_to_be_mended(_time: Past) -> None:
    """Say that the next deploy mends it, as an operator."""
    found = db.select(Failure.id).where(Failure.title.contains("HEIC"))
    reason = "v2.42 brings the decoder back"
    opsjobs.operator.resolve_failure(
        db.session.scalars(found).all(), "next", actor="ops-demo", reason=reason
    )


def bug_is_mended(time: Past) -> None:
    """Deploy the version that can read them."""
    _deploy(time, "v2.42", "the decoder for HEIC is back")


def pictures_are_retried(time: Past) -> None:
    """Retry the pictures, as an operator."""
    pictures = JobFilter(state="failed", task="resize_avatar")
    _retry(pictures, "v2.42 can read them", time)


def old_reports_are_deleted(time: Past) -> None:
    """Begin to delete finished reports, slowly, and pause when somebody objects."""
    # Chance made few or no reports so far.
    for _ in range(12):
        happenings.report()
    db.session.commit()
    time.perform(current_app)
    reports = JobFilter(state="finished", task="render_report")
    reason = "Reports are kept in the archive since Monday"
    deletion = opsjobs.operator.start("job.delete", reports, rate=1, actor="admin", reason=reason)
    time.operate(current_app, passes=4)
    reason = "The accountant still needs the rest this week"
    opsjobs.operator.pause_operation(deletion.id or 0, actor="ops-demo", reason=reason)


def _retry(jobs: JobFilter, reason: str, time: Past) -> None:
    opsjobs.operator.start("job.retry", jobs, actor="ops-demo", reason=reason)
    time.operate(current_app)


def _deploy(time: Past, version: str, note: str) -> None:
    current_app.config["OPSJOBS_VERSION"] = version
    time.deploy(version, actor="admin", note=note)


def search_is_rebuilt(_time: Past) -> None:
    """Enqueue the job that rebuilds a search index, as an operator."""
    reason = "Customers do not find the goods of this morning"
    opsjobs.operator.enqueue_task(
        "rebuild_search", {"index": "goods"}, actor="ops-demo", reason=reason
    )


def price_list_is_begun(_time: Past) -> None:
    """Open a batch for a price list, add its first part, and leave it open."""
    prices.begin_list(rows=40)
    db.session.commit()


def open_list_is_acknowledged(_time: Past) -> None:
    """Acknowledge that this list is open, as an operator."""
    found = db.select(IncidentRecord.id).filter_by(class_="batch_overdue")
    reason = "The supplier sends the second half next week"
    opsjobs.operator.acknowledge_incident(
        db.session.scalars(found).all(), "14d", actor="ops-demo", reason=reason
    )


def newsletter_is_paused(_time: Past) -> None:
    """Pause the queue of newsletters, as an operator."""
    reason = "Prices are being changed: no newsletter before Monday"
    opsjobs.operator.pause("newsletter", actor="admin", reason=reason)


def order_fails(_time: Past) -> None:
    """Order for the customer whose bank never answers."""
    orders.place_for_the_unlucky()
    db.session.commit()


def step_is_skipped(_time: Past) -> None:
    """Skip the step that failed, as an operator, and pay the order: it is delivered."""
    order = db.session.scalars(db.select(Order).filter_by(customer_id=UNLUCKY_ACCOUNT)).one()
    assert order.workflow_id is not None
    reason = "The customer was told by phone how to pay"
    opsjobs.operator.skip_step(
        order.workflow_id, "pay", {"link": "told by phone"}, actor="ops-demo", reason=reason
    )
    _ignore_failures("This bank is known to be slow")
    orders.receive_payment(f"evt_{order.id}", order, order.cents)
    db.session.commit()


def _ignore_failures(reason: str) -> None:
    found = db.select(Failure.id).where(Failure.state == "open", Failure.jobs > 0)
    if ids := db.session.scalars(found).all():
        opsjobs.operator.ignore_failure(ids, rate=20, actor="ops-demo", reason=reason)


def prices_are_listed(_time: Past) -> None:
    """Import a short price list without a mistake."""
    prices.import_list(rows=60, has_mistakes=False)
    db.session.commit()


def somebody_orders(_time: Past) -> None:
    """Order goods that nobody has paid when the demo begins."""
    orders.place(parcels=2)
    db.session.commit()


to_come: dict[timedelta, Act] = {
    DOWN: receiver_goes_down,
    BACK: receiver_comes_back,
    RETRIED: failed_are_retried,
    PAUSED: newsletter_is_paused,
    ORDERED: somebody_orders,
    BANK_SILENT: order_fails,
    SKIPPED: step_is_skipped,
    REBUILT: search_is_rebuilt,
    LISTED: prices_are_listed,
    WITH_BUG: bug_is_deployed,
    UPLOADED: pictures_fail,
    TOO_SOON: pictures_are_retried_too_soon,
    DELETED: old_reports_are_deleted,
    TO_BE_MENDED: bug_is_to_be_mended,
    MENDED: bug_is_mended,
    PICTURES_RETRIED: pictures_are_retried,
    BEGUN: price_list_is_begun,
    ACKNOWLEDGED: open_list_is_acknowledged,
}
SHARES = happenings.SHARES | orders.SHARES
# Without the job that kills its process, because here it would kill this process.
CHOICES = [each for each in SHARES if each is not happenings.heavy_report]


if __name__ == "__main__":
    shop = create_app()
    with shop.app_context():
        write_history(shop)

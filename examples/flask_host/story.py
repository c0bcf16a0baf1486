"""`flask history`: the two days before the demo begins, lived through by the shop's own jobs in a few seconds."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import click
from flask import Flask, current_app
from flask.cli import with_appcontext

# The demo's own way into the past, not one for hosts.
from flask_opsjobs.cli._demo_past import STEP, Past, past

from . import happenings, vendors
from .extensions import db, opsjobs
from .models import Invoice

# So long that the night in which nobody watched is over for more than a day, at any hour: all is well by now.
LENGTH = timedelta(hours=50)
# In the first half the shop is closed, and only cron runs.
OPEN, CLOSED = timedelta(hours=25), timedelta(minutes=2)
LAST_HOUR, MINUTE = timedelta(minutes=65), timedelta(minutes=1)
HOME = ZoneInfo("Europe/Berlin")
# In the first night nobody watched for so long, around the slot of `nightly_sync` at 3:30.
ASLEEP_FROM, ASLEEP_UNTIL = "03:10", "03:55"
# Before now: the receiver of webhooks goes down, comes back, and what failed is retried.
DOWN, BACK, RETRIED = timedelta(hours=5), timedelta(hours=4, minutes=35), timedelta(hours=4)
PAUSED = timedelta(hours=2)
# So many happenings between two looks of the loops, at noon.
BUSIEST = 0.8


@click.command("history")
@with_appcontext
def history() -> None:
    """Live through the two days before now, once, by the library's own statements at their own times."""
    if db.session.scalar(db.select(Invoice.id).limit(1)) is not None:
        return
    db.session.remove()
    app: Flask = current_app._get_current_object()
    end = datetime.now(UTC)
    random.seed(1)
    with past(app, end - LENGTH) as time, waiting_by(time):
        for moment in moments(end):
            time.move_to(moment)
            if is_watched(moment, end):
                time.loop()
                if moment.minute % 5 == 0:
                    time.perform(app)
            decide(moment, end, time)
            if CLOSED < end - moment < OPEN:
                buy(moment, time, app)
        # What the last customers left to be tried again is done before the demo begins.
        time.move_to(end)
        time.perform(app)


@contextmanager
def waiting_by(time: Past) -> Iterator[None]:
    """Vendors take their time of the past in this block."""
    before, vendors.wait = vendors.wait, time.wait
    try:
        yield
    finally:
        vendors.wait = before


def moments(end: datetime) -> Iterator[datetime]:
    """The moments at which the loops look, just after the slots of cron; each minute in the last hour."""
    moment = (end - LENGTH).replace(minute=0, second=1, microsecond=0)
    while moment < end:
        yield moment
        moment += STEP if end - moment > LAST_HOUR else MINUTE


def is_watched(moment: datetime, end: datetime) -> bool:
    """Whether workers and loops ran."""
    if end - moment < OPEN:
        return True
    return not ASLEEP_FROM <= f"{moment.astimezone(HOME):%H:%M}" < ASLEEP_UNTIL


def decide(moment: datetime, end: datetime, time: Past) -> None:
    """What happens once, and what people decide."""
    for before, act in list(to_come.items()):
        if moment >= end - before:
            del to_come[before]
            act(time)


def buy(moment: datetime, time: Past, app: Flask) -> None:
    """What happens in the shop until the loops look again."""
    hour = moment.astimezone(HOME).hour
    share = max(0.15, math.sin((hour - 6) / 16 * math.pi))
    for _ in range(round(BUSIEST * share + random.random())):
        random.choices(CHOICES, [happenings.SHARES[each] for each in CHOICES])[0]()
        db.session.commit()
        db.session.remove()
        time.perform(app)
        time.move_to(time.now + timedelta(seconds=random.uniform(5, 25)))


def receiver_goes_down(time: Past) -> None:
    vendors.go_down(happenings.RECEIVER)
    for _ in range(8):
        happenings.webhook()
    db.session.commit()


def receiver_comes_back(time: Past) -> None:
    vendors.come_back(time.now)
    db.session.commit()


def failed_are_retried(time: Past) -> None:
    if failed := time.failed():
        reason = "The receiver has answered again for 35 minutes"
        opsjobs.operator.retry(failed, actor="ops-demo", reason=reason)


def newsletter_is_paused(time: Past) -> None:
    reason = "Prices are being changed: no newsletter before Monday"
    opsjobs.operator.pause("newsletter", actor="admin", reason=reason)


to_come = {
    DOWN: receiver_goes_down,
    BACK: receiver_comes_back,
    RETRIED: failed_are_retried,
    PAUSED: newsletter_is_paused,
}
# Without the job whose process would be killed: there is only this one.
CHOICES = [each for each in happenings.SHARES if each is not happenings.heavy_report]

"""Adds the shop's commands: `flask seed` and `flask feed`."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import deque
from datetime import UTC, datetime

import click
from flask import Flask
from flask.cli import with_appcontext

from . import exports, happenings, orders, people, troubles, vendors
from .extensions import db
from .models import Customer

FIRST = ("Ada", "Bo", "Cleo", "Dan", "Eva", "Finn", "Gus", "Ida", "Jo", "Kim")
LAST = ("Abel", "Berg", "Cole", "Dorn", "Ekman", "Frey")
# What each happening makes.
_KINDS = (
    dict.fromkeys(happenings.SHARES, "job")
    | dict.fromkeys(orders.SHARES, "workflow")
    | {exports.export: "RQ job"}
)


@click.command("seed")
@with_appcontext
def seed() -> None:
    """Create the customers, once, and print who may sign in."""
    if db.session.get(Customer, 1) is None:
        names = [f"{first} {last}" for last in LAST for first in FIRST]
        for number, name in enumerate(names, 1):
            email = f"{name.replace(' ', '.').lower()}@example.com"
            db.session.add(Customer(id=number, name=name, email=email))
        db.session.commit()
    for person in people.PEOPLE.values():
        click.echo(f"{person.name} / {person.password}: {person.may}")


@click.command("feed")
@click.option("--every", default=1.0, show_default=True, help="Seconds between two happenings.")
@click.option(
    "--incident-after",
    default=60.0,
    show_default=True,
    help="Seconds until things go wrong, one after another.",
)
@click.option(
    "--apart", default=8.0, show_default=True, help="Seconds between two things that go wrong."
)
@with_appcontext
def feed(every: float, incident_after: float, apart: float) -> None:
    """Let things happen in the shop until stopped. After a while, things go wrong."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    vendors.come_back(datetime.now(UTC))
    db.session.commit()
    shares = happenings.SHARES | orders.SHARES | {exports.export: exports.SHARE}
    choices, weights = zip(*shares.items(), strict=True)
    to_come = deque(troubles.TROUBLES)
    trouble_at = time.monotonic() + incident_after
    while not stopped.wait(random.expovariate(1 / every)):
        if to_come and time.monotonic() >= trouble_at:
            trouble_at += apart
            said = to_come.popleft()()
        else:
            happening = random.choices(choices, weights)[0]
            # One export that waits for ever is enough.
            if happening is exports.export and vendors.is_down(exports.FILES):
                continue
            said = f"{happening.__name__.replace('_', ' ')}: {_KINDS[happening]} {happening()}"
        db.session.commit()
        db.session.remove()
        click.echo(said)


def add_commands(app: Flask) -> None:
    """Give the app its commands."""
    for command in (seed, feed):
        app.cli.add_command(command)

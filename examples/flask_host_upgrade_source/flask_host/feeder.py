"""Adds the shop's commands: `flask seed` and `flask feed`."""

from __future__ import annotations

import random
import signal
import threading
import time
from datetime import UTC, datetime

import click
from flask import Flask
from flask.cli import with_appcontext

from . import happenings, people, vendors
from .extensions import db
from .models import Customer

FIRST = ("Ada", "Bo", "Cleo", "Dan", "Eva", "Finn", "Gus", "Ida", "Jo", "Kim")
LAST = ("Abel", "Berg", "Cole", "Dorn", "Ekman", "Frey")


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
    help="Seconds until the server that receives most webhooks goes down.",
)
@with_appcontext
def feed(every: float, incident_after: float) -> None:
    """Let things happen in the shop until stopped. After a while, an incident begins."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    vendors.come_back(datetime.now(UTC))
    db.session.commit()
    choices, shares = zip(*happenings.SHARES.items(), strict=True)
    incident_at: float | None = time.monotonic() + incident_after
    while not stopped.wait(random.expovariate(1 / every)):
        if incident_at is not None and time.monotonic() >= incident_at:
            incident_at = None
            vendors.go_down(happenings.RECEIVER)
            click.echo(f"{happenings.RECEIVER} is down")
        happening = random.choices(choices, shares)[0]
        job_id = happening()
        db.session.commit()
        db.session.remove()
        click.echo(f"{happening.__name__.replace('_', ' ')}: job {job_id}")


def add_commands(app: Flask) -> None:
    """Give the app its commands."""
    for command in (seed, feed):
        app.cli.add_command(command)

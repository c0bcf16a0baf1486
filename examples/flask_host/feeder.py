"""`flask seed` and `flask feed`: the shop's first customers, and days that pass quickly."""

from __future__ import annotations

import itertools
import random
import signal
import threading

import click
from flask import Flask
from flask.cli import with_appcontext

from . import happenings, people
from .extensions import db
from .models import Customer

FIRST = ("Ada", "Bo", "Cleo", "Dan", "Eva", "Finn", "Gus", "Ida", "Jo", "Kim")
LAST = ("Abel", "Berg", "Cole", "Dorn", "Ekman", "Frey")


@click.command("seed")
@with_appcontext
def seed() -> None:
    """Make the customers, once, and say who may sign in."""
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
@with_appcontext
def feed(every: float) -> None:
    """Let things happen in the shop until stopped: at first each of them once, so all can be seen."""
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    choices, shares = zip(*happenings.SHARES.items(), strict=True)
    later = iter(lambda: random.choices(choices, shares)[0], None)
    for happening in itertools.chain(choices, later):
        job_id = happening()
        db.session.commit()
        db.session.remove()
        click.echo(f"{happening.__name__.replace('_', ' ')}: job {job_id}")
        if told.wait(random.expovariate(1 / every)):
            return


def add_commands(app: Flask) -> None:
    """Give the app both commands."""
    app.cli.add_command(seed)
    app.cli.add_command(feed)

"""Makes the host of the bench: tasks that do nothing, managed and plain."""

from __future__ import annotations

import os
import time
from functools import cache

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import text
from sqlalchemy.orm import Mapped, mapped_column

from flask_opsjobs import Limit, OpsJobs
from tests.support.policies import AllowAll, ShowAll
from tools.bench import telemetry

db = SQLAlchemy()
opsjobs = OpsJobs()
# What a large host keeps in its memory: many small objects.
_ballast: list[dict[str, object]] = []


def create_app() -> Flask:
    """A host on the servers named in the environment."""
    telemetry.prepare(os.environ.get("BENCH_TELEMETRY", "absent"))
    app = Flask(__name__)
    app.config.update(
        SECRET_KEY="only for the bench",
        SQLALCHEMY_DATABASE_URI=os.environ["BENCH_DATABASE_URL"],
        OPSJOBS_REDIS_URL=os.environ["BENCH_REDIS_URL"],
        OPSJOBS_PREFETCH=int(os.environ["BENCH_PREFETCH"])
        if "BENCH_PREFETCH" in os.environ
        else None,
    )
    _ballast.extend(
        {"number": number, "text": f"row {number}"}
        for number in range(int(os.environ.get("BENCH_BALLAST", "0")))
    )
    db.init_app(app)
    opsjobs.init_app(app, access=AllowAll(), display=ShowAll())
    return app


@opsjobs.task
def noop(number: int = 0) -> None:
    """Nothing, managed."""


@opsjobs.task(record_output=True)
def keep(number: int = 0) -> int:
    """Return a number, which is kept."""
    return number


def _limit() -> Limit:
    """The limit named in the environment as `rate,per,burst,concurrency`, each of which may be left out."""
    said = os.environ.get("BENCH_LIMIT", ",,,1")
    rate, per, burst, concurrency = (int(word) if word else None for word in said.split(","))
    return Limit("api", rate, per, burst, concurrency, partition="account")


@opsjobs.task(limit=_limit())
def limited(account: int = 0) -> None:
    """Nothing, within a limit."""


@opsjobs.task
def stamp(path: str) -> None:
    """Write down when it started."""
    plain_stamp(path)


@opsjobs.task
def touch(number: int = 0) -> None:
    """Read and write a row of the host, managed."""
    plain_touch(number)


class HostRow(db.Model):  # type: ignore[name-defined,misc]
    """A model of the host, of the table that the bench makes."""

    __tablename__ = "host_rows"
    id: Mapped[int] = mapped_column(primary_key=True)
    note: Mapped[int | None]


@opsjobs.task
def touch_model(number: int = 0) -> None:
    """Read and write a row of the host by its model."""
    row = db.session.get_one(HostRow, number % 1000)
    row.note = (row.note or 0) + 1
    db.session.commit()


@opsjobs.task
def sleep(seconds: float) -> None:
    """Take so long."""
    time.sleep(seconds)


def plain_touch(number: int = 0) -> None:
    """Read and write a row of the host, by plain RQ inside an app context."""
    id = number % 1000
    note = db.session.scalar(text("SELECT note FROM host_rows WHERE id = :id"), {"id": id})
    statement = text("UPDATE host_rows SET note = :note WHERE id = :id")
    db.session.execute(statement, {"id": id, "note": (note or 0) + 1})
    db.session.commit()


def plain_touch_in_app(number: int = 0) -> None:
    """The same, as a host of plain RQ does it: its worker has made the app, each job pushes its context."""
    with app().app_context():
        plain_touch(number)


@cache
def app() -> Flask:
    """The app of this process, made once."""
    return create_app()


def plain_noop(number: int = 0) -> None:
    """Nothing, by plain RQ."""


def plain_stamp(path: str) -> None:
    """Write down when it started, by plain RQ. The clock is shared by all processes of a machine."""
    moment = time.monotonic()
    with open(path + ".new", "w") as file:
        file.write(repr(moment))
    os.rename(path + ".new", path)

"""The example host on the test's database and Redis."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Connection

from flask_opsjobs.testing import perform_due
from tests.support.sources import ROOT

Perform = Callable[[], None]
# The demo's passwords, as its sign-in page says them.
PASSWORDS = {"viewer": "look", "ops-demo": "operate", "admin": "rule"}


@pytest.fixture(scope="session")
def shop() -> Iterator[ModuleType]:
    """The package of the example, as `flask --app examples/flask_host` imports it."""
    sys.path.insert(0, str(ROOT / "examples"))
    yield import_module("flask_host")
    sys.path.remove(str(ROOT / "examples"))


@pytest.fixture
def app(shop: ModuleType, database_url: str, redis_url: str) -> Iterator[Flask]:
    """The shop with its customers."""
    app: Flask = shop.create_app(
        TESTING=True, SQLALCHEMY_DATABASE_URI=database_url, OPSJOBS_REDIS_URL=redis_url
    )
    db = app.extensions["sqlalchemy"]
    with app.app_context():
        db.create_all()
    seeded = app.test_cli_runner().invoke(args=["seed"])
    assert seeded.exit_code == 0, seeded.output
    yield app
    with app.app_context():
        db.engine.dispose()
    app.extensions["opsjobs"].spare.close()
    app.extensions["opsjobs"].pages.dispose()


@pytest.fixture
def db(app: Flask) -> Iterator[Any]:
    """The shop's SQLAlchemy, in an app context."""
    with app.app_context():
        yield app.extensions["sqlalchemy"]


@pytest.fixture
def visitor(app: Flask) -> FlaskClient:
    """Somebody who has not signed in."""
    return app.test_client()


@pytest.fixture
def connection(db: Any) -> Iterator[Connection]:
    """A connection beside the shop's own session."""
    with db.engine.connect() as connection:
        yield connection


def sign_in(client: FlaskClient, name: str) -> None:
    """Sign in with the password of the page."""
    answer = client.post("/sign-in", data={"name": name, "password": PASSWORDS[name]})
    assert answer.status_code == 303, answer.text


@pytest.fixture
def perform(db: Any, shop: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Perform:
    """`perform()`: all jobs of the next hour run, also second attempts. The vendors answer at once."""
    monkeypatch.setattr(shop.vendors, "wait", lambda seconds: None)

    def perform() -> None:
        db.session.commit()
        perform_due(at=datetime.now(UTC) + timedelta(hours=1))
        db.session.rollback()

    return perform

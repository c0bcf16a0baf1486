"""The shop on servers from wheels, migrated once, with one transaction around each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask_migrate import upgrade

from flask_host import create_app, vendors
from flask_host.extensions import db


@pytest.fixture(scope="session")
def migrated(opsjobs_postgres: str, opsjobs_redis: str) -> Flask:
    """The app with its tables and its customers."""
    app = create_app(
        TESTING=True, SQLALCHEMY_DATABASE_URI=opsjobs_postgres, OPSJOBS_REDIS_URL=opsjobs_redis
    )
    with app.app_context():
        upgrade()
    seeded = app.test_cli_runner().invoke(args=["seed"])
    assert seeded.exit_code == 0, seeded.output
    return app


@pytest.fixture
def app(migrated: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    """The app inside a transaction that is rolled back. Its vendors answer at once."""
    monkeypatch.setattr(vendors, "wait", lambda seconds: None)
    with migrated.app_context():
        engine = db.engine
        with engine.connect() as connection:
            transaction = connection.begin()
            db.session.configure(join_transaction_mode="create_savepoint")
            db.engines[None] = connection
            yield migrated
            db.session.remove()
            db.engines[None] = engine
            transaction.rollback()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """Somebody with a browser."""
    return app.test_client()

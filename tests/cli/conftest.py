"""The limited tasks that commands on limiters read, and the app of child processes in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask

from tests.limits.conftest import commit, limited  # noqa: F401 - fixtures
from tests.support import host as host_module


@pytest.fixture
def site(database_url: str, redis_url: str) -> Iterator[Flask]:
    """The app that `children` run, on the same database, with its context pushed."""
    app = host_module.create_app(SQLALCHEMY_DATABASE_URI=database_url, OPSJOBS_REDIS_URL=redis_url)
    with app.app_context():
        yield app
        host_module.db.session.remove()
        host_module.db.engine.dispose()
    app.extensions["opsjobs"].spare.close()
    app.extensions["opsjobs"].pages.dispose()

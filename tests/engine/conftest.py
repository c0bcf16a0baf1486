"""The host that enqueues in the test's process, while its workers are processes of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask

from tests.support import host as host_module


@pytest.fixture
def site(database_url: str, redis_url: str) -> Iterator[Flask]:
    """The app of tests/support/host.py on this test's servers, with its context pushed and its hook on."""
    app = host_module.create_app(SQLALCHEMY_DATABASE_URI=database_url, OPSJOBS_REDIS_URL=redis_url)
    with app.app_context():
        yield app
        host_module.db.session.remove()
        host_module.db.engine.dispose()
    app.extensions["opsjobs"].spare.close()
    app.extensions["opsjobs"].pages.dispose()

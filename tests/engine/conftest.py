"""The host that enqueues in the test's process, while its workers are processes of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask

from tests.engine.site import give_redis_time
from tests.support import host as host_module


@pytest.fixture
def site(database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    """The app of tests/support/host.py on this test's servers, with its context pushed and its hook on.

    Its Redis may be slow: no test with it depends on how fast Redis answers a push.
    """
    app = host_module.create_app(SQLALCHEMY_DATABASE_URI=database_url, OPSJOBS_REDIS_URL=redis_url)
    give_redis_time(app, monkeypatch)
    with app.app_context():
        yield app
        host_module.db.session.remove()
        host_module.db.engine.dispose()
    app.extensions["opsjobs"].spare.close()
    app.extensions["opsjobs"].pages.dispose()

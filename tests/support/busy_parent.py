"""The host of tests/support/host.py with a thread that is nearly always inside a lock."""

from __future__ import annotations

import threading
from typing import Any

from flask import Flask
from sqlalchemy import text

from flask_opsjobs.engine.redis.broker import broker_of

from . import host

__all__ = ["create_app", "enqueue_another"]


def create_app(**config: Any) -> Flask:
    """Make the app, and start the thread. A child that is forked has the locks and not the thread."""
    app = host.create_app(**config)
    threading.Thread(target=_take_locks, args=(app,), daemon=True).start()
    return app


def _take_locks(app: Flask) -> None:
    with app.app_context():
        engine = host.db.engine
    ours = app.extensions["opsjobs"]
    wires = broker_of(ours).connections
    # It never waits: it would do so outside the locks, and the fork would come then.
    while True:
        engine.pool.status()
        wires.wire("default")
        with ours.spare.one():
            pass


@host.opsjobs.task
def enqueue_another() -> None:
    """Use what the thread uses: the pool, and after the commit a spare connection and Redis."""
    host.db.session.execute(text("SELECT 1"))
    host.give.options(queue="other").enqueue()
    host.db.session.commit()

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
    wires = broker_of(app.extensions["opsjobs"]).connections
    # It never waits: it would do so outside the locks, and the fork would come then.
    while True:
        engine.pool.status()
        wires.wire("default")


@host.opsjobs.task
def enqueue_another() -> None:
    """Use what the thread uses: the pool, and Redis, to which the job is pushed after the commit."""
    host.db.session.execute(text("SELECT 1"))
    host.give.options(queue="other").enqueue()
    host.db.session.commit()

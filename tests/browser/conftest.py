"""A running host whose jobs were enqueued and run by real workers and loops."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text

from tests.support import host as site
from tests.support.processes import Children
from tests.support.waiting import wait_until


class Site:
    """The app, its jobs by what became of them, and the gate that a running one waits for."""

    def __init__(self, app: Flask, gate: Path) -> None:
        self.app = app
        self.gate = gate
        self.jobs: dict[str, int] = {}

    def enqueue(self, name: str, task: Any, **arguments: Any) -> int:
        """Record a call, committed, and remember it under `name`."""
        self.jobs[name] = task.enqueue(**arguments).id
        site.db.session.commit()
        return self.jobs[name]

    def state(self, name: str) -> str:
        """The state of one of its jobs."""
        found = site.db.session.execute(
            text("SELECT state FROM opsjobs.jobs WHERE id = :id"), {"id": self.jobs[name]}
        ).scalar_one()
        site.db.session.rollback()
        return str(found)


@pytest.fixture
def app(database_url: str, redis_url: str) -> Iterator[Flask]:
    """The host of tests/support/host.py, which knows the tasks that the child processes run."""
    app = site.create_app(SQLALCHEMY_DATABASE_URI=database_url, OPSJOBS_REDIS_URL=redis_url)
    with app.app_context():
        yield app
        site.db.session.remove()
        site.db.engine.dispose()
        app.extensions["opsjobs"].pages.dispose()
    app.extensions["opsjobs"].spare.close()
    app.extensions["opsjobs"].pages.dispose()


@pytest.fixture
def running(app: Flask, children: Children, tmp_path: Path) -> Site:
    """Jobs that finished, failed, run, wait and are scheduled; a worker and the loops still run."""
    found = Site(app, tmp_path / "gate")
    found.enqueue("finished", site.add, a=2, b=3)
    found.enqueue("failed", site.fail, message="the vendor's API timed out")
    found.enqueue("killed", site.die, attempts=2)
    found.enqueue("scheduled", site.add.options(delay=3600), a=1, b=1)
    found.enqueue("nobody listens", site.add.options(queue="reports"), a=1, b=1)
    children.flask("opsjobs", "run")
    children.flask("opsjobs", "worker")
    for name, state in (("finished", "finished"), ("failed", "failed"), ("killed", "failed")):
        wait_until(lambda n=name, s=state: found.state(n) == s, 30, what=f"{name} to be {state}")
    found.enqueue("started", site.progress_then_hold, gate=str(found.gate))
    wait_until(lambda: found.state("started") == "started", 30)
    return found

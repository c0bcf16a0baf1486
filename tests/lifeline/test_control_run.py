"""A run without faults: jobs of several kinds, a worker and all loops for a while, and no incident."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask

from tests.support import host as host_module
from tests.support.engine import Bench
from tests.support.processes import Children
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.processes, pytest.mark.slow(45)]
JOBS = 600


@pytest.fixture
def site(database_url: str, redis_url: str) -> Iterator[Flask]:
    app = host_module.create_app(SQLALCHEMY_DATABASE_URI=database_url, OPSJOBS_REDIS_URL=redis_url)
    yield app
    with app.app_context():
        host_module.db.engine.dispose()
    app.extensions["opsjobs"].spare.close()
    app.extensions["opsjobs"].pages.dispose()


def test_a_run_without_faults_has_no_incident(
    site: Flask, bench: Bench, children: Children
) -> None:
    bench.rows("DELETE FROM opsjobs.workers RETURNING id")  # the bench's own, which never beats
    loops = children.flask("opsjobs", "run")
    worker = children.flask("opsjobs", "worker", "default", "--processes", "2")
    worker.wait_for("listens to", 60)

    def passes() -> int:
        found = bench.rows(
            "SELECT coalesce(sum(passes), 0) AS n FROM opsjobs.loop_runs WHERE loop = 'detect'"
        )
        return int(found[0]["n"])

    with site.app_context():
        for _ in range(6):
            host_module.give.enqueue_many([{"value": number} for number in range(JOBS // 6)])
            host_module.db.session.commit()
            seen = passes()
            wait_until(lambda seen=seen: passes() > seen, 60)
    ended = "SELECT count(*) AS n FROM opsjobs.jobs WHERE state = 'finished'"
    wait_until(lambda: bench.row(ended)["n"] == JOBS, 120)
    seen = passes()
    wait_until(lambda: passes() > seen + 1, 60)
    assert bench.rows("SELECT class, subject, facts FROM opsjobs.incidents") == []
    errors = bench.rows("SELECT loop, error FROM opsjobs.loop_runs WHERE error IS NOT NULL")
    assert errors == []
    assert worker.terminate(60) == 0
    assert loops.terminate(30) == 0

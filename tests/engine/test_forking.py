"""What a child of a worker inherits from its parent's other threads: no lock that one of them holds."""

from __future__ import annotations

import pytest
from flask import Flask

from tests.engine.site import rows
from tests.support.busy_parent import enqueue_another
from tests.support.host import db
from tests.support.processes import Children

JOBS = 30
BURST = ("--burst", "--jobs-per-process", "1", "default")


@pytest.mark.processes
def test_no_child_hangs_in_a_lock_that_a_thread_of_the_host_held_at_the_fork(
    site: Flask, children: Children
) -> None:
    site.extensions["opsjobs"].dispatcher = None
    enqueue_another.enqueue_many({} for _ in range(JOBS))
    db.session.commit()
    app = ("-m", "flask", "--app", "tests.support.busy_parent")
    worker = children.python(*app, "opsjobs", "worker", *BURST)
    assert worker.wait(30) == 0
    assert rows("SELECT outcome, count(*) FROM opsjobs.attempts GROUP BY 1") == [("returned", JOBS)]
    assert rows("SELECT state, count(*) FROM opsjobs.jobs WHERE queue = 'other' GROUP BY 1") != []

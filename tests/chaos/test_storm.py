"""Everything is killed at random while jobs run, and what jobs did is compared with what the rows say.

The kills are some of those of tests/chaos/test_chaos_run.py, which compares more.
"""

from __future__ import annotations

import random
import time
from contextlib import closing

import pytest

from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.loops import check_integrity
from flask_opsjobs.loops.loop import Runner
from tests.support.host import db as host_db
from tests.support.host import witness
from tests.support.waiting import wait_until

from .conftest import Site
from .storm import Storm

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.variants]


def test_everything_is_killed_while_jobs_run(site: Site, jobs_of_pool: int) -> None:
    seed = random.randrange(10_000)
    dice, steps = random.Random(seed), max(2, jobs_of_pool // 250 - 4)
    print(f"seed {seed}")
    storm, began = Storm(site, dice), time.monotonic()
    first, count = dice.sample(storm.kills, len(storm.kills)), 40 * steps

    def ended() -> int:
        rows = site.rows("SELECT count(*) FROM opsjobs.jobs WHERE ended_at IS NOT NULL")
        return int(rows[0][0]) if rows else -1

    for step in range(1, steps + 1):
        with site.app.app_context():
            witness.options(max_attempts=100).enqueue_many([{}] * 40)
            host_db.session.commit()
            host_db.engine.dispose()
        for _ in range(3):
            before = ended()
            storm.strike(storm.kill_child)
            wait_until(
                lambda before=before, step=step: ended() not in (-1, before) or before == 40 * step,
                60,
                every=0.01,
            )
        storm.strike(first.pop() if first else dice.choice(storm.kills))
    site.wait_until_all("finished", count, 120)
    jobs = [id for (id,) in site.rows("SELECT id FROM opsjobs.jobs")]
    assert len(jobs) == count
    took = time.monotonic() - began
    site.assert_unharmed(jobs)
    twice = "SELECT job_id FROM opsjobs.attempts WHERE outcome = 'returned' GROUP BY 1 HAVING count(*) > 1"
    assert site.rows(twice) == [], "0 double ends"
    engine = site.app.extensions["opsjobs"].engine
    runner = Runner(check_integrity.LOOP, site.app.extensions["opsjobs"], "storm")
    with closing(connect_apart(engine)) as connection:
        for _ in range(3):
            runner.run_once(connection, read_clock(connection))
    checks = site.rows(
        "SELECT sum(enqueued - deleted - stored)::int,"
        " sum(queued_nowhere + started_unreserved + orphan_deliveries)::int FROM opsjobs.integrity_checks"
    )
    outcomes = site.rows("SELECT outcome, count(*) FROM opsjobs.attempts GROUP BY 1 ORDER BY 1")
    begun = site.rows("SELECT count(*) FROM public.begun")[0][0]
    print(
        f"{count} jobs in {took:.0f} s; {dict(storm.struck)}; attempts {dict(outcomes)};"
        f" functions begun {begun}; integrity check {checks}"
    )
    assert checks == [(0, 0)]

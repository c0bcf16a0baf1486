"""Everything is killed at random while jobs run, and what jobs did is compared with what the rows say."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress

import psutil
import pytest

from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.loops import check_integrity
from flask_opsjobs.loops.loop import Runner
from tests.support.host import db as host_db
from tests.support.host import witness
from tests.support.processes import Child
from tests.support.waiting import wait_until

from .conftest import Site

pytestmark = [pytest.mark.chaos, pytest.mark.slow]


class Storm:
    """Two workers and the loops of a site, whose processes are killed one after the other."""

    def __init__(self, site: Site, dice: random.Random) -> None:
        self._site, self._dice = site, dice
        self.workers = [self._worker(), self._worker()]
        self._loops = site.loops()
        self.killed: Counter[str] = Counter()
        self.faults: tuple[Callable[[], None], ...] = (
            self.kill_child,
            self.kill_worker,
            self.kill_loops,
            self.kill_redis,
            self.kill_postgres,
        )

    def _worker(self) -> Child:
        return self._site.worker("--processes", "2", "default")

    def kill_child(self) -> None:
        children = [child for worker in self.workers for child in worker.job_children()]
        if children:
            with suppress(psutil.NoSuchProcess):
                self._dice.choice(children).kill()

    def kill_worker(self) -> None:
        place = self._dice.randrange(2)
        self.workers[place].kill()
        self.workers[place] = self._worker()

    def kill_loops(self) -> None:
        self._loops.kill()
        self._loops = self._site.loops()

    def kill_redis(self) -> None:
        self._site.valkey.kill()
        self._site.valkey.start()

    def kill_postgres(self) -> None:
        self._site.postgres.kill()
        self._site.postgres.start()
        wait_until(lambda: self._site.rows("SELECT 1"), 30, what="Postgres is back")

    def strike(self, fault: Callable[[], None]) -> None:
        fault()
        self.killed[fault.__name__.removeprefix("kill_")] += 1


def test_everything_is_killed_while_jobs_run(site: Site, jobs_of_pool: int) -> None:
    seed = random.randrange(10_000)
    dice, steps = random.Random(seed), max(2, jobs_of_pool // 250 - 4)
    print(f"seed {seed}")
    storm, began = Storm(site, dice), time.monotonic()
    first, count = dice.sample(storm.faults, len(storm.faults)), 40 * steps

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
        storm.strike(first.pop() if first else dice.choice(storm.faults))
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
        f"{count} jobs in {took:.0f} s; killed {dict(storm.killed)}; attempts {dict(outcomes)};"
        f" functions begun {begun}; integrity check {checks}"
    )
    assert checks == [(0, 0)]

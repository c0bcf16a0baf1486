"""Limits, unique locks and cron slots keep their rules while children and whole workers are killed."""

from __future__ import annotations

import random
import time
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.cron.declaration import make_entry
from flask_opsjobs.loops import cron
from flask_opsjobs.loops.loop import Runner
from tests.support.host import db as host_db
from tests.support.host import note_one_of_four, note_only_one, note_slot
from tests.support.waiting import wait_until

from .conftest import Site

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

KEYS = 3
WORKER_SECONDS = 1.5
OPEN = "SELECT count(*) FROM opsjobs.jobs WHERE ended_at IS NULL"


class Storm:
    """Two workers, of which now a child is killed and now all."""

    def __init__(self, site: Site, dice: random.Random) -> None:
        self.site, self.dice = site, dice
        self.workers = [self._start() for _ in range(2)]
        self.killed_children = self.killed_workers = 0
        self._killed_at = time.monotonic()

    def _start(self) -> Any:
        return self.site.worker("--processes", "3", "limited", "default")

    def kill(self) -> None:
        place = self.dice.randrange(2)
        if time.monotonic() - self._killed_at > WORKER_SECONDS:
            self.workers[place].kill_all()
            self.workers[place] = self._start()
            self.killed_workers += 1
            self._killed_at = time.monotonic()
        elif children := self.workers[place].job_children():
            with suppress(psutil.NoSuchProcess):
                self.dice.choice(children).kill()
                self.killed_children += 1


def test_rules_hold_under_kills(
    site: Site, tmp_path: Path, jobs_of_pool: int, is_long: bool
) -> None:
    limited, turns = jobs_of_pool // 8, jobs_of_pool // 40
    folder, dice = str(tmp_path), random.Random(8)
    host = site.app.extensions["opsjobs"]
    host.cron_entries = {
        "note_slot": make_entry(note_slot, "* * * * *", args={"folder": folder}, overlap="skip")
    }
    # Without cron: the test makes its passes, and moves its time.
    site.moving_loops()
    storm = Storm(site, dice)
    with closing(connect_apart(host.engine)) as connection, site.app.app_context():
        note_one_of_four.enqueue_many([{"folder": folder, "seconds": 0.005}] * limited)
        host_db.session.commit()
        runner = Runner(cron.LOOP, host, "cron")
        # In the past, so that its jobs are due.
        start = read_clock(connection) - timedelta(days=2)
        runner.run_once(connection, start)
        conflicts = 0
        for turn in range(1, turns + 1):
            runner.run_once(connection, start + timedelta(minutes=turn))
            assert runner.last_error is None
            for _ in range(3):
                key = dice.randrange(KEYS)
                conflicts += note_only_one.enqueue(folder=folder, key=key).conflict
            host_db.session.commit()
            storm.kill()
        wait_until(
            lambda: storm.kill() or site.rows(OPEN) == [(0,)], 500 if is_long else 120, every=0.05
        )
        unique = turns * 3 - conflicts
        assert conflicts > 0
        assert min(storm.killed_children, storm.killed_workers) > 0
        assert not Path(folder, "over").exists(), "never two of a key, of an entry, or a fifth"
        assert site.states()["finished"] == sum(site.states().values()), "0 lost, 0 exhausted"
        jobs = dict(site.rows("SELECT task, count(*) FROM opsjobs.jobs GROUP BY task"))
        assert jobs["note_one_of_four"] == limited
        assert jobs["note_only_one"] == unique
        for left in ("leases", "unique_locks"):
            wait_until(
                lambda left=left: site.rows(f"SELECT count(*) FROM opsjobs.{left}") == [(0,)]
            )
        assert_each_slot_has_one_result(site, jobs["note_slot"], turns)
        print(f"killed {storm.killed_children} children and {storm.killed_workers} workers")


def assert_each_slot_has_one_result(site: Site, jobs: int, slots: int) -> None:
    """Each slot ran, or was skipped while the job of an earlier one had not ended."""
    found = site.rows(
        "SELECT s.result, sum(s.slots), count(s.job_id), count(DISTINCT j.id),"
        " count(*) FILTER (WHERE s.job_state = 'finished')"
        " FROM opsjobs.cron_slots s LEFT JOIN opsjobs.jobs j ON j.id = s.job_id GROUP BY s.result"
    )
    results = {result: tuple(map(int, counts)) for result, *counts in found}
    assert results.pop("ran") == (jobs, jobs, jobs, jobs)
    assert sum(number for number, *_ in results.values()) == slots - jobs
    assert set(results) <= {"skipped_overlap"}

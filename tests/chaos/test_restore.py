"""`flask opsjobs restore` after Redis was emptied or rewound: no job is lost, and none that ended runs again.

`--restore-jobs 100000` records 100,000 jobs, of which 1,000 are in Redis; the default is a fiftieth.
"""

from __future__ import annotations

import signal
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url

from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.engine.dispatch.dispatch import Dispatcher
from flask_opsjobs.engine.redis.broker import broker_of
from tests.support.guides import is_shown
from tests.support.host import db as host_db
from tests.support.host import note_run
from tests.support.waiting import wait_until

from .conftest import Site

GUIDE = "docs/redis-lost.md"
pytestmark = [pytest.mark.chaos, pytest.mark.slow]

STATES = "SELECT state, count(*) FROM opsjobs.jobs GROUP BY state"


class Shop:
    """A site whose queue has a prefetch of `share` jobs, and what its jobs wrote when they ran."""

    def __init__(self, site: Site, folder: Path, share: int) -> None:
        self.site, self.share, self._path = site, share, folder / "ran"
        self._path.touch()
        host = site.app.extensions["opsjobs"]
        host.settings = replace(host.settings, prefetch=share)
        self.host = host

    def enqueue(self, count: int) -> None:
        with self.site.app.app_context():
            note_run.enqueue_many({"path": str(self._path)} for _ in range(count))
            host_db.session.commit()

    def dispatch(self) -> None:
        """Dispatch as many as the prefetch allows, and wait until their dispatch counts as old."""
        with closing(connect_apart(self.host.engine)) as connection:
            now = read_clock(connection)
            Dispatcher(connection, broker_of(self.host), self.host.settings).dispatch_all(now)
        old = "SELECT max(dispatched_at) < clock_timestamp() - interval '1.1 s' FROM opsjobs.jobs"
        wait_until(lambda: self.site.rows(old) == [(True,)], 30)

    def restore(self, *words: str, code: int = 0) -> str:
        """Run the command; what it printed."""
        child = self.site.command("restore", *words, OPSJOBS_PREFETCH=self.share)
        assert child.wait(120) == code, child.log
        return child.log

    def work(self, *words: str) -> None:
        """Let a worker run until its queue is empty, or as long as `words` say."""
        worker = self.site.worker("--burst", *words, "default", OPSJOBS_PREFETCH=self.share)
        assert worker.wait(600) == 0, worker.log

    def in_redis(self) -> set[str]:
        with self.site.valkey.client() as redis:
            keys = {key.decode() for key in redis.scan_iter("rq:job:opsjobs-*")}
        return {key.removeprefix("rq:job:opsjobs-") for key in keys}

    def assert_all_ran_once(self, count: int) -> None:
        assert self.site.states() == {"finished": count}, "0 lost"
        runs = Counter(self._path.read_text().splitlines())
        assert (len(runs), set(runs.values())) == (count, {1}), "0 ended ones ran again"
        attempts = self.site.rows("SELECT count(*), count(DISTINCT job_id) FROM opsjobs.attempts")
        assert attempts == [(count, count)]


@pytest.fixture
def shop(site: Site, tmp_path: Path, request: pytest.FixtureRequest) -> Shop:
    count = request.config.getoption("--restore-jobs")
    return Shop(site, tmp_path, max(20, count // 100))


@pytest.fixture
def count(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--restore-jobs"))


def test_redis_lost_everything(shop: Shop, count: int) -> None:
    shop.enqueue(shop.share)
    shop.work()
    shop.enqueue(count)
    shop.dispatch()
    shop.site.valkey.flushall()
    before = dict(shop.site.rows(STATES))
    said = shop.restore("--dry-run")
    assert f"default: {shop.share:,} queued, {shop.share:,} of them not in Redis" in said
    assert is_shown(GUIDE, "flask opsjobs restore --dry-run", said)
    assert dict(shop.site.rows(STATES)) == before
    assert shop.in_redis() == set()
    said = shop.restore()
    assert f"recalled {shop.share:,} jobs, removed 0 outdated deliveries" in said
    assert f"dispatched {shop.share:,} jobs" in said
    assert is_shown(GUIDE, "flask opsjobs restore", said)
    assert dict(shop.site.rows(STATES)) == before, "the prefetch holds"
    assert len(shop.in_redis()) == shop.share
    shop.work("--processes", "2")
    shop.assert_all_ran_once(shop.share + count)
    assert "Redis lacks nothing" in shop.restore("--dry-run")


def test_redis_came_back_older_than_it_was(shop: Shop, count: int) -> None:
    """Its file has deliveries of jobs that have ended since, and lacks those of later dispatches."""
    shop.enqueue(count)
    shop.dispatch()
    with shop.site.valkey.client() as redis:
        redis.save()
    saved = shop.in_redis()
    assert len(saved) == shop.share
    shop.work("--max-jobs", str(count // 2))
    shop.dispatch()
    shop.site.valkey.kill()
    shop.site.valkey.start()
    assert shop.in_redis() == saved
    valid = "SELECT id || '-' || dispatch_no FROM opsjobs.jobs WHERE state = 'queued'"
    queued = {name for (name,) in shop.site.rows(valid)}
    lost, outdated = len(queued - saved), len(saved - queued)
    assert lost > 1
    assert outdated > 1
    said = shop.restore("--dry-run")
    assert f"{shop.share:,} queued, {lost:,} of them not in Redis" in said
    assert f"{outdated:,} outdated" in said
    said = shop.restore()
    assert f"recalled {lost:,} jobs, removed {outdated:,} outdated deliveries" in said
    assert not (shop.in_redis() & (saved - queued))
    shop.work("--processes", "2")
    shop.assert_all_ran_once(count)


KILLED = """
import sys
from contextlib import closing
from dataclasses import replace
from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.engine.reconcile import restore
from tests.support.dying import die_before
from tests.support.host import create_app
number, share = map(int, sys.argv[1:])
restore._AT_ONCE = share // 3
app = create_app()
with app.app_context():
    host = app.extensions["opsjobs"]
    host.settings = replace(host.settings, prefetch=share)
    with closing(connect_apart(host.engine)) as connection:
        now = read_clock(connection)
        die_before(number)
        restore.restore(host, connection, ["default"], now)
"""


@pytest.mark.parametrize("how", ["flushed", pytest.param("rewound", marks=pytest.mark.variants)])
def test_a_restore_that_is_killed_half_way_is_repeated(shop: Shop, how: str) -> None:
    """Killed before its first statement, then before its second, and so on, until one comes to its end."""
    count = shop.share * 4
    shop.enqueue(count)
    shop.dispatch()
    if how == "rewound":
        with shop.site.valkey.client() as redis:
            redis.save()
        shop.work("--max-jobs", str(shop.share))
        shop.dispatch()
    exit_code, number, ended = -signal.SIGKILL, 0, dict(shop.site.rows(STATES)).get("finished", 0)
    while exit_code == -signal.SIGKILL:
        number += 1
        if how == "flushed":
            shop.site.valkey.flushall()
        else:
            shop.site.valkey.kill()
            shop.site.valkey.start()
        exit_code = shop.site.python(KILLED, str(number), str(shop.share)).wait(60)
        states = dict(shop.site.rows(STATES))
        assert sum(states.values()) == count
        assert set(states) <= {"available", "queued", "finished"}
        assert states.get("finished", 0) == ended
    assert exit_code == 0
    assert number > 5
    shop.dispatch()
    shop.restore()
    assert "Redis lacks nothing" in shop.restore("--dry-run")
    shop.work("--processes", "2")
    shop.assert_all_ran_once(count)


# --- after Postgres was restored to an earlier time


class Backup:
    """A copy of the site's database, which can take the place of the database."""

    def __init__(self, site: Site) -> None:
        self._site, url = site, make_url(site.database_url)
        self._name, self._copy = str(url.database), f"{url.database}_backup"
        to = url.set(drivername="postgresql", database="postgres")
        self._session: psycopg.Connection[Any] = psycopg.connect(
            to.render_as_string(hide_password=False), autocommit=True
        )

    def take(self) -> None:
        self._copy_database(self._name, self._copy)

    def restore(self) -> None:
        self._end_sessions(self._name)
        self._session.execute(f'DROP DATABASE "{self._name}"')
        self._copy_database(self._copy, self._name)
        self._session.close()

    def _copy_database(self, source: str, target: str) -> None:
        self._end_sessions(source)
        self._session.execute(f'CREATE DATABASE "{target}" TEMPLATE "{source}"')

    def _end_sessions(self, name: str) -> None:
        with self._site.app.app_context():
            host_db.engine.dispose()
        self._session.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
        )
        gone = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
        wait_until(lambda: self._session.execute(gone, [name]).fetchone() == (0,), 30)


def test_postgres_came_back_older_than_it_was(shop: Shop) -> None:
    """Redis has deliveries with numbers that Postgres issues again: none of them may start another job."""
    shop.enqueue(shop.share)
    backup = Backup(shop.site)
    backup.take()
    shop.dispatch()
    shop.enqueue(shop.share)
    worker = shop.site.worker("--burst", "--max-jobs", "1", "default", OPSJOBS_PREFETCH=1000)
    assert worker.wait(60) == 0
    shop.host.settings = replace(shop.host.settings, prefetch=shop.share * 2)
    shop.dispatch()
    stale = shop.in_redis()
    assert len(stale) > shop.share
    backup.restore()
    shop.site.rows("SELECT 1")  # the session of before has ended
    # The ids of the jobs that the restored Postgres has forgotten are issued again. The host's hook may push
    # some of them, also the one that has run: its delivery is new.
    shop.enqueue(shop.share)
    ((last,),) = shop.site.rows("SELECT max(id) FROM opsjobs.jobs")
    assert any(name.startswith(f"{last}-") for name in stale)
    held = shop.in_redis()
    assert stale <= held
    running = shop.site.worker("idle", OPSJOBS_PREFETCH=shop.share)
    said = shop.restore("--after-postgres", code=1)
    ((name,),) = shop.site.rows("SELECT name FROM opsjobs.workers WHERE ended_at IS NULL")
    refused = said.replace(name, "web-1-7-c0ffee")
    assert is_shown(GUIDE, "flask opsjobs restore --after-postgres", refused)
    assert shop.in_redis() == held
    assert running.terminate() == 0
    said = shop.restore("--after-postgres")
    assert f"default: removed {len(held):,} deliveries" in said
    assert is_shown(GUIDE, "flask opsjobs restore --after-postgres", said)
    assert shop.in_redis() == set()
    assert shop.restore("--after-postgres").startswith("removed 0 deliveries")
    with shop.site.valkey.client() as redis:
        assert redis.llen("rq:queue:default") == 0
    assert shop.site.states() == {"available": shop.share * 2}
    shop.work("--processes", "2")
    assert shop.site.states() == {"finished": shop.share * 2}
    attempts = shop.site.rows("SELECT count(*), count(DISTINCT job_id) FROM opsjobs.attempts")
    assert attempts == [(shop.share * 2, shop.share * 2)]

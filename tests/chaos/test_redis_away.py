"""Redis is stopped, flushed, frozen and restarted empty while jobs run: ours go on, plain RQ jobs wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from rq import Queue

from flask_opsjobs.testing.valkey import Valkey
from tests.support.host import db as host_db
from tests.support.host import note_one_of_four, note_run
from tests.support.waiting import wait_until

from .conftest import Site

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

AWAY = "Redis is away"
FINISHED = "SELECT count(*) FROM opsjobs.jobs WHERE state = 'finished' AND origin = 'opsjobs'"
# In which the function was called. A child may leave after it claimed a limited job and before it gets it.
ATTEMPTS = """
    SELECT count(*), count(DISTINCT a.job_id)
    FROM opsjobs.attempts a JOIN opsjobs.jobs j ON j.id = a.job_id
    WHERE j.origin = 'opsjobs' AND a.outcome <> 'snoozed'
"""
REPEATED = """
    SELECT job_id, array_agg((dispatch_no, outcome, error)::text ORDER BY dispatch_no)
    FROM opsjobs.attempts GROUP BY job_id HAVING count(*) > 1 LIMIT 20
"""
PLAIN_RUNS = """
    SELECT j.rq_id, j.state, a.outcome, a.worker_id IS NOT NULL
    FROM opsjobs.jobs j JOIN opsjobs.attempts a ON a.job_id = j.id WHERE j.origin = 'rq'
"""
TROUBLES = ("flushed", "restarted empty", "stopped", "frozen")


def make_trouble(redis: Valkey, name: str, go_on: Callable[[], None]) -> None:
    """Do to Redis what the name says. While it is away, `go_on` waits for the end of some jobs."""
    match name:
        case "flushed":
            redis.flushall()
        case "restarted empty":
            redis.kill()
            redis.start()
        case "stopped":
            redis.kill()
            go_on()
            redis.start()
        case "frozen":
            redis.freeze()
            go_on()
            redis.thaw()


def test_jobs_run_once_each_whatever_happens_to_redis(
    site: Site, tmp_path: Path, jobs_of_pool: int, is_long: bool
) -> None:
    """One round of troubles, or five; in each of them jobs run."""
    troubles = TROUBLES * (5 if is_long else 1)
    share = jobs_of_pool // len(troubles) if is_long else 120
    count = share * len(troubles)

    def enqueue_share() -> None:
        limited = share // 10
        with site.app.app_context():
            note_run.enqueue_many(
                [{"path": str(tmp_path / "ran"), "seconds": 0.004}] * (share - limited)
            )
            note_one_of_four.enqueue_many([{"folder": str(tmp_path), "seconds": 0.004}] * limited)
            host_db.session.commit()

    def finished() -> int:
        ((number,),) = site.rows(FINISHED)
        return int(number)

    def wait_for(number: int) -> None:
        wait_until(lambda: finished() >= number, 60, what=f"{number} jobs have finished")

    def go_on_without_redis() -> None:
        wait_for(before + share * 3 // 4)
        wait_until(lambda: worker.log.count(AWAY) > outages, 20, what="the worker knows it")

    loops, plain_ids = site.loops(), []
    worker = site.worker("--processes", "2", "default", "limited")
    for name in troubles:
        before, outages = finished(), worker.log.count(AWAY)
        enqueue_share()
        wait_for(before + share // 10)
        make_trouble(site.valkey, name, go_on_without_redis)
        with site.valkey.client() as redis:
            plain = Queue("default", connection=redis).enqueue("os.getpid", result_ttl=60)
            plain_ids.append(plain.id)
            wait_until(
                lambda plain=plain: plain.get_status(refresh=True) == "finished",
                30,
                what=f"a plain job has run after Redis was {name}",
            )
    site.wait_until_all("finished", count, timeout=120)
    runs = Counter((tmp_path / "ran").read_text().splitlines())
    assert (len(runs), set(runs.values())) == (count, {1}), "each ran once"
    assert site.rows(ATTEMPTS) == [(count, count)], site.rows(REPEATED)
    of_plain = sorted((rq_id, "finished", "returned", True) for rq_id in plain_ids)
    wait_until(lambda: sorted(site.rows(PLAIN_RUNS)) == of_plain, 20, what="each plain run, once")
    assert not (tmp_path / "over").exists(), "never more than four of the limited ones at once"
    assert site.rows("SELECT count(*) FROM opsjobs.leases") == [(0,)]
    with site.valkey.client() as redis:
        wait_until(lambda: redis.scard("rq:workers") == 2, 20, what="RQ's records")
    assert worker.log.count(AWAY) == worker.log.count("Redis answers again")
    for process in (worker, loops):
        assert process.exit_code is None
        assert "Traceback" not in process.log
        assert process.terminate() == 0

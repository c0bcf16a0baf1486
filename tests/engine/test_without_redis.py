"""A worker without Redis: it starts, and runs what is due from Postgres, until Redis is back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rq import Queue
from rq.suspension import resume, suspend

from flask_opsjobs.testing.valkey import Valkey
from tests.engine.site import enqueue, rows, state_of
from tests.support.host import add, note_one_of_four
from tests.support.host import db as host_db
from tests.support.processes import Children
from tests.support.waiting import wait_until

FINISHED = "SELECT count(*) FROM opsjobs.jobs WHERE state = 'finished'"


@pytest.mark.slow
@pytest.mark.chaos
def test_a_worker_starts_and_runs_jobs_while_redis_is_away(
    site: Any, children: Children, own_valkey: Valkey
) -> None:
    url = own_valkey.url
    own_valkey.kill()
    site.extensions["opsjobs"].dispatcher = None
    add.enqueue_many({"a": number, "b": 0} for number in range(300))
    host_db.session.commit()
    worker = children.flask("opsjobs", "worker", "default", OPSJOBS_REDIS_URL=url)
    worker.wait_for("Redis is away", 20)
    wait_until(lambda: rows(FINISHED) == [(300,)], 30)
    later = enqueue(add, a=1, b=1)
    wait_until(lambda: state_of(later) == "finished", 10, what="the worker asks Postgres again")
    own_valkey.start()
    worker.wait_for("Redis answers again", 20)
    with own_valkey.client() as redis:
        plain = Queue("default", connection=redis).enqueue("os.getpid", result_ttl=60)
        wait_until(lambda: plain.get_status(refresh=True) == "finished", 20)
        wait_until(lambda: redis.scard("rq:workers") == 1, 20, what="its records are written anew")
    assert worker.log.count("Redis is away") == 1
    assert worker.terminate() == 0


@pytest.mark.slow
@pytest.mark.chaos
def test_limited_jobs_run_while_redis_is_away(
    site: Any, children: Children, own_valkey: Valkey, tmp_path: Path
) -> None:
    """They come past Redis, beside jobs without a limiter, and never more than four run at once."""
    url = own_valkey.url
    own_valkey.kill()
    site.extensions["opsjobs"].dispatcher = None
    note_one_of_four.enqueue_many({"folder": str(tmp_path), "seconds": 0.01} for _ in range(60))
    add.options(queue="limited").enqueue_many({"a": number, "b": 0} for number in range(60))
    host_db.session.commit()
    workers = [
        children.flask("opsjobs", "worker", "limited", "--processes", "3", OPSJOBS_REDIS_URL=url)
        for _ in range(2)
    ]
    wait_until(lambda: rows(FINISHED) == [(120,)], 60)
    assert not (tmp_path / "over").exists()
    ran = (tmp_path / "ran").read_text().splitlines()
    assert len(ran) == len(set(ran)) == 60
    assert rows("SELECT count(*) FROM opsjobs.leases") == [(0,)]
    for worker in workers:
        assert worker.log.count("Redis is away") == 1
        assert worker.terminate() == 0


def test_rq_suspend_stops_takes_too(site: Any, children: Children, redis_client: Any) -> None:
    suspend(redis_client)
    site.extensions["opsjobs"].dispatcher = None
    job_id = enqueue(add, a=1, b=1)
    worker = children.flask("opsjobs", "worker", "default")
    worker.wait_for("listens to", 20)
    wait_until(lambda: redis_client.scard("rq:workers") == 1, 20, what="its records")
    assert state_of(job_id) == "available"
    resume(redis_client)
    wait_until(lambda: state_of(job_id) == "finished", 20)

"""The shop's exports: plain RQ jobs that RQ's own worker runs, and of which OpsJobs shows what becomes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis
from rq import Queue
from rq.job import Job

from tests.support.processes import Child, Children
from tests.support.sources import ROOT

from .conftest import sign_in

Work = Callable[[], None]


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    """The Redis of the shop."""
    with Redis.from_url(redis_url) as redis:
        yield redis


@pytest.fixture
def work(children: Children, database_url: str, redis_url: str) -> Work:
    """`work()`: an `rq worker` runs all jobs of the shop's plain queue that wait, and leaves."""
    env = {"FLASK_SQLALCHEMY_DATABASE_URI": database_url, "FLASK_OPSJOBS_REDIS_URL": redis_url}
    options = ["--path", str(ROOT / "examples"), "-c", "flask_host.rq_settings", "--burst"]

    def work() -> None:
        worker: Child = children.python("-m", "rq.cli", "worker", *options, env=env)
        assert worker.wait(timeout=60) == 0, worker.log

    return work


def chain(redis: Redis, first: str) -> list[Job]:
    """The three jobs of an export, the first one first."""
    jobs = [Job.fetch(first, connection=redis)]
    while jobs[-1].dependent_ids:
        (next_id,) = jobs[-1].dependent_ids
        jobs.append(Job.fetch(next_id, connection=redis))
    return jobs


@pytest.mark.slow
def test_rqs_worker_runs_them_and_stops_behind_a_failed_one(
    visitor: FlaskClient, db: Any, shop: ModuleType, redis: Redis, work: Work
) -> None:
    shop.vendors.go_down(shop.exports.FILES)
    db.session.commit()
    jobs = chain(redis, shop.exports.export())
    work()
    assert [job.get_status(refresh=True).value for job in jobs] == [
        "failed",
        "deferred",
        "deferred",
    ]
    assert (
        "503 Service Unavailable: PUT https://files.example/" in jobs[0].latest_result().exc_string
    )

    sign_in(visitor, "ops-demo")
    said = visitor.post("/receiver-answers", follow_redirects=True).text
    assert "files.example answers again" in said
    jobs[0].requeue()
    work()
    work()
    assert [job.get_status(refresh=True).value for job in jobs] == ["finished"] * 3


def test_a_button_enqueues_three_plain_jobs(visitor: FlaskClient, redis: Redis) -> None:
    sign_in(visitor, "ops-demo")
    page = visitor.post("/exports", follow_redirects=True).text
    (first,) = Queue("exports", connection=redis).job_ids
    assert f"<code>{first}</code>" in page
    assert 'href="/ops/jobs/jobs?q=origin:rq"' in page
    functions = [job.func_name for job in chain(redis, first)]
    assert functions == [
        f"flask_host.plain_jobs.{step}" for step in ("collect", "pack", "announce")
    ]


def test_a_viewer_exports_nothing(visitor: FlaskClient, redis: Redis) -> None:
    sign_in(visitor, "viewer")
    assert visitor.post("/exports").status_code == 403
    assert Queue("exports", connection=redis).count == 0


def test_what_goes_wrong_is_said(db: Any, shop: ModuleType, redis: Redis) -> None:
    said = []
    for trouble in shop.troubles.TROUBLES:
        said.append(trouble())
        db.session.commit()
    assert shop.vendors.list_down() == ["files.example", "hooks.example"]
    (chained,) = Queue("exports", connection=redis).job_ids
    assert said[0] == "hooks.example is down"
    assert said[-1] == f"files.example is down, and an export begins: RQ job {chained}"

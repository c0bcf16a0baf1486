"""A payload that would run code when it is unpickled never does: on no page, export, command or loop pass."""

from __future__ import annotations

import pickle
import zlib
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis
from rq import Queue
from rq.cron import CronJob
from rq.job import Job as RQJob
from rq.registry import (
    BaseRegistry,
    CanceledJobRegistry,
    FailedJobRegistry,
    FinishedJobRegistry,
    StartedJobRegistry,
)
from rq.results import Result
from sqlalchemy.orm import Session

from flask_opsjobs.cli import opsjobs as group
from flask_opsjobs.jobs.models import Job
from flask_opsjobs.loops import LOOPS
from flask_opsjobs.loops.loop import Runner
from tests.cli.test_not_asked import REASON, WORDS
from tests.support.engine import Bench
from tests.support.plain import Canary, take_plain
from tests.web.every import good, reads

REGISTRIES: dict[str, type[BaseRegistry]] = {
    "started": StartedJobRegistry,
    "finished": FinishedJobRegistry,
    "failed": FailedJobRegistry,
    "canceled": CanceledJobRegistry,
}
_FAR = 4_000_000_000
# They start processes, or need Flask-Migrate.
_APART = ("install", "run", "up", "worker")


@pytest.fixture
def canary(tmp_path: Path) -> Canary:
    return Canary(tmp_path / "canary")


@pytest.fixture
def poisoned(redis_client: Redis, canary: Canary) -> list[str]:
    """RQ ids of jobs whose data, meta, result, error and cron arguments hold canaries, in every structure."""
    queue = Queue("mail", connection=redis_client)
    call: dict[str, Any] = {"args": (canary,), "kwargs": {"c": canary}, "meta": {"c": canary}}
    by_cron = CronJob("mail", func=take_plain, args=(canary,), kwargs={"c": canary}, interval=60)
    waiting = [
        queue.enqueue_call(take_plain, **call),
        by_cron.enqueue(redis_client),
        queue.enqueue_call(canary.__reduce__, args=(canary,)),  # its instance is one
    ]
    parent = queue.enqueue(take_plain, job_id="parent")  # RQ loads the meta of a parent
    waiting += [parent, queue.enqueue_call(take_plain, depends_on=parent, **call)]
    ended = [_put(queue, status, call, canary) for status in REGISTRIES]
    assert not canary.path.exists(), "RQ itself loads none of them here"
    return [job.id for job in (*waiting, *ended)]


def _put(queue: Queue, status: str, call: dict[str, Any], canary: Canary) -> RQJob:
    """A job in a registry, as after a run; its worker would have loaded the canary."""
    job = queue.create_job(take_plain, **call)
    job.started_at = job.ended_at = job.enqueued_at = job.created_at
    job.save()
    raw, folded = pickle.dumps(canary), zlib.compress(pickle.dumps(canary))
    fields: dict[Any, Any] = {"status": status, "result": raw, "exc_info": folded}
    queue.connection.hset(job.key, mapping=fields)
    entry = f"{job.id}:run" if status == "started" else job.id
    queue.connection.zadd(REGISTRIES[status](queue=queue).key, {entry: _FAR})
    kind = Result.Type.FAILED if status == "failed" else Result.Type.SUCCESSFUL
    stream: dict[Any, Any] = {
        "type": kind.value,
        "return_value": b64encode(raw),
        "exc_string": b64encode(folded),
        "execution_id": "run",
    }
    key: str = Result.get_key(job.id)
    queue.connection.xadd(key, stream)
    return job


@pytest.fixture
def adopted(bench: Bench, session: Session, poisoned: list[str]) -> dict[str, Job]:
    """The rows, by state, after three passes of all loops; the newest of several."""
    runners = [Runner(loop, bench.host, "one") for loop in LOOPS]
    for _ in range(3):
        for runner in runners:
            runner.run_once(bench.connection)
    assert bench.rows("SELECT loop, error FROM opsjobs.loop_runs WHERE error IS NOT NULL") == []
    rows = session.query(Job).order_by(Job.id).all()
    assert sorted(row.rq_id or "" for row in rows) == sorted(poisoned)
    return {row.state: row for row in rows}


@pytest.fixture
def never_fires(canary: Canary) -> Any:
    """At its end: the canary has not fired, and would have."""
    yield
    assert not canary.path.exists()
    pickle.loads(pickle.dumps(canary))
    assert canary.path.read_text() == "it ran"


pytestmark = pytest.mark.usefixtures("never_fires")


def test_every_page_and_export(client: FlaskClient, adopted: dict[str, Job]) -> None:
    assert {"queued", "deferred", "started", "finished", "failed", "canceled"} <= adopted.keys()
    for url, path in reads(adopted):
        # Pages about a preview, a batch or a run are of those that this database does not have.
        if "<job_id>" in url.rule or "<" not in url.rule:
            assert client.get(path).status_code == good(url), path
    for path in ("jobs.csv", "jobs.ndjson"):
        text = client.get(f"/ops/jobs/{path}?origin=rq").text
        assert text.count("tests.support.plain.take_plain") == 8
        assert "write_text" in text, "it is shown by name"


def test_every_command(app: Flask, adopted: dict[str, Job]) -> None:
    for name in WORDS.keys() - {*_APART}:
        words = list(WORDS[name])
        is_of_job = name.startswith(("job ", "why"))
        for job in adopted.values() if is_of_job else [None]:
            if job is not None:
                words[0] = str(job.id)
            done = app.test_cli_runner().invoke(group, [*name.split(), *words])
            is_told = done.exception is None or isinstance(done.exception, SystemExit)
            assert is_told, (name, done.output, done.exception)


@pytest.mark.parametrize("what", ["retry", "cancel", "discard", "delete"])
def test_every_question_to_rq(
    app: Flask, adopted: dict[str, Job], what: str, pass_again: Callable[[], None]
) -> None:
    ids = [str(job.id) for job in adopted.values()]
    done = app.test_cli_runner().invoke(group, ["job", what, *ids, *REASON])
    assert done.exit_code in (0, 3), done.output
    pass_again()


@pytest.fixture
def pass_again(bench: Bench) -> Callable[[], None]:
    """Makes two more passes of all loops."""

    def run() -> None:
        for runner in [Runner(loop, bench.host, "two") for loop in LOOPS] * 2:
            runner.run_once(bench.connection)

    return run

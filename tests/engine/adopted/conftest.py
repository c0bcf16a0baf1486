"""An adopting loop over real RQ, with time that the test moves, and jobs for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from redis import Redis
from rq import Queue, SimpleWorker
from rq.executions import Execution
from rq.job import Job as RQJob

from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.engine.adopted import adopting
from flask_opsjobs.engine.adopted.adopting import Adopted
from flask_opsjobs.engine.adopted.memory import Memory
from flask_opsjobs.engine.adopted.places import RedisPlace, list_places
from tests.support.engine import Bench


def return_it(value: Any = None) -> Any:
    return value


def fail(message: str = "no") -> None:
    raise ValueError(message)


def start_plain(queue: Queue, rq_id: str) -> RQJob:
    """A job that was started by a worker of RQ that is gone."""
    job = queue.enqueue(return_it, job_id=rq_id)
    queue.remove(job)
    start_run(job)
    return job


def start_run(job: RQJob) -> None:
    """Start a run of a job, as a worker of RQ does."""
    with job.connection.pipeline() as pipe:
        job.prepare_for_execution("gone", pipe)
        Execution.create(job, ttl=60, pipeline=pipe, worker_name="gone")
        pipe.execute()


@dataclass
class Adopter:
    """One copy of the adopt loop over the Redis `default`."""

    bench: Bench
    memory: Memory = field(default_factory=Memory)
    hides: Callable[[str], str | None] = lambda _: None
    now: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.now = read_clock(self.bench.connection)

    @property
    def place(self) -> RedisPlace:
        return list_places(self.bench.host, ["default"])[0]

    def step(self, after: float = 10) -> Adopted:
        """One pass, so many seconds later; never before the clock, since RQ's own stamps are the clock's."""
        self.now = max(self.now + timedelta(seconds=after), read_clock(self.bench.connection))
        return adopting.adopt_jobs(
            self.bench.connection, self.place, self.memory, self.hides, self.now
        )

    def job(self, rq_id: str) -> dict[str, Any]:
        """The row and the facts of a job of RQ; the newest when RQ has used the id again."""
        return self.jobs(rq_id)[-1]

    def jobs(self, rq_id: str) -> list[dict[str, Any]]:
        """All rows of an id of RQ, with their facts and their views."""
        return self.bench.rows(
            """SELECT * FROM opsjobs.jobs j JOIN opsjobs.rq_facts f ON f.job_id = j.id
               LEFT JOIN opsjobs.rq_views v ON v.job_id = j.id
               WHERE rq_id = %s ORDER BY j.id""",
            rq_id,
        )

    def runs(self, rq_id: str) -> list[dict[str, Any]]:
        """The attempts of a job of RQ."""
        return self.bench.rows(
            """SELECT a.* FROM opsjobs.attempts a JOIN opsjobs.jobs j ON j.id = a.job_id
               WHERE j.rq_id = %s ORDER BY a.dispatch_no""",
            rq_id,
        )


@pytest.fixture
def adopter(bench: Bench) -> Adopter:
    return Adopter(bench)


@pytest.fixture
def queue(redis_client: Redis) -> Queue:
    """RQ's queue `mail`."""
    return Queue("mail", connection=redis_client)


@pytest.fixture
def work(queue: Queue) -> Callable[[], None]:
    """Runs what waits in `mail` with RQ's own worker, in this process."""

    def run() -> None:
        worker = SimpleWorker([queue], connection=queue.connection)
        worker.work(burst=True, with_scheduler=False, logging_level="ERROR")

    return run

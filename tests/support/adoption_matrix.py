"""Puts plain jobs into RQ in every way, lets workers of a kind run them, and compares rows with RQ's words.

A process of its own, since RQ reads `RQ_KEY_PREFIX` when it is imported. Prints one JSON object.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from flask import Flask
from flask_rq import RQ
from flask_sqlalchemy import SQLAlchemy
from redis import Redis
from rq import Queue, Repeat, Retry
from rq.command import send_stop_job_command
from rq.cron import CronJob
from rq.group import Group
from rq.job import Dependency, JobStatus
from rq.job import Job as RQJob
from rq.rate_limit import RateLimit
from rq.serializers import DefaultSerializer, JSONSerializer

from flask_opsjobs import OpsJobs
from flask_opsjobs.core.db import Connection, connect_apart
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.engine.adopted.adopting import adopt_jobs
from flask_opsjobs.engine.adopted.memory import Memory
from flask_opsjobs.engine.adopted.places import list_places
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.adopted.seen import STATES_OF_WORDS
from tests.support.plain import fail_plain, hold_plain, take_plain
from tests.support.policies import AllowAll, ShowAll
from tests.support.waiting import wait_until
from tests.support.warm import WarmProcess

SERIALIZERS: dict[str, Any] = {"pickle": DefaultSerializer, "json": JSONSerializer}
# It imports what runs before it forks, as a host's worker does: else each child would do it anew.
_START = "import tests.support.plain; from rq.cli import main; main()"
_RQ = ["-c", _START, "worker", "--burst", "--logging_level", "CRITICAL"]
_FLASK = ["-m", "flask", "--app", "tests.support.adoption_matrix", "opsjobs"]
# What follows `python` in the command of each kind of worker.
WORKERS = {
    "rq": _RQ,
    "simple": [*_RQ, "--worker-class", "rq.SimpleWorker"],
    "ours": [*_FLASK, "worker", "--burst"],
}
_LATER = 3600

rq = RQ()


def create_app() -> Flask:
    """A host that uses Flask-RQ; the name of a queue says its serializer."""
    app = Flask("matrix")
    app.config.update(
        SECRET_KEY="only for tests",
        SQLALCHEMY_DATABASE_URI=os.environ["TEST_DATABASE_URL"],
        RQ_CONNECTION=os.environ["TEST_REDIS_URL"],
        RQ_QUEUES=["default", *(name for each in combinations() for name in each.queues)],
    )
    SQLAlchemy(app)
    rq.init_app(app)
    OpsJobs(app, access=AllowAll(), display=ShowAll())
    with app.app_context():
        for each in combinations():
            for name in each.queues:
                rq.queues[name].serializer = SERIALIZERS[each.serializer]
    return app


@dataclass(frozen=True)
class Combination:
    """A kind of worker and a serializer."""

    worker: str
    serializer: str

    @property
    def queues(self) -> tuple[str, str]:
        """The queue of the job that is held, which the worker serves first, and the queue of all others."""
        return f"{self.worker}-{self.serializer}-held", f"{self.worker}-{self.serializer}"


def combinations() -> Iterator[Combination]:
    """Each kind of worker with each serializer."""
    return (Combination(worker, serializer) for worker in WORKERS for serializer in SERIALIZERS)


Way = Callable[[Queue, Callable[..., Any], str], RQJob]


def _after(parent: RQJob, allow_failure: bool = False) -> Dependency:
    return Dependency(jobs=[parent], allow_failure=allow_failure)


def _in_group(queue: Queue, function: Callable[..., Any], id: str) -> RQJob:
    datas = [Queue.prepare_data(function, args=("x",), job_id=id)]
    return Group.create(queue.connection).enqueue_many(queue, datas)[0]


def _by_flask_rq(queue: Queue, function: Callable[..., Any], _id: str) -> RQJob:
    return rq.job(function, queue=queue.name).enqueue("x")


def _by_cron(queue: Queue, function: Callable[..., Any], _id: str) -> RQJob:
    return CronJob(queue.name, func=function, args=("x",), interval=60).enqueue(queue.connection)


# Every way in which a host may put a job into RQ.
WAYS: Mapping[str, Way] = {
    "enqueue": lambda q, f, id: q.enqueue(f, "x", job_id=id),
    "flask_rq": _by_flask_rq,
    "depends_on": lambda q, f, id: q.enqueue(
        f, "x", job_id=id, depends_on=_after(q.enqueue(take_plain))
    ),
    "depends_on_failed": lambda q, f, id: q.enqueue(
        f, "x", job_id=id, depends_on=_after(q.enqueue(fail_plain))
    ),
    "allow_failure": lambda q, f, id: q.enqueue(
        f, "x", job_id=id, depends_on=_after(q.enqueue(fail_plain), allow_failure=True)
    ),
    "scheduler": lambda q, f, id: q.enqueue_in(timedelta(seconds=_LATER), f, "x", job_id=id),
    "cron": _by_cron,
    "repeat": lambda q, f, id: q.enqueue(f, "x", job_id=id, repeat=Repeat(1, _LATER)),
    "repeat_at_once": lambda q, f, id: q.enqueue(f, "x", job_id=id, repeat=Repeat(1, 0)),
    "retry": lambda q, f, id: q.enqueue(f, "x", job_id=id, retry=Retry(1, _LATER)),
    "retry_at_once": lambda q, f, id: q.enqueue(f, "x", job_id=id, retry=Retry(1)),
    "group": _in_group,
    "rate_limit": lambda q, f, id: q.enqueue(
        f, "x", job_id=id, rate_limit=RateLimit(f"limit-{q.name}", 1)
    ),
    "unique": lambda q, f, id: q.enqueue(f, "x", job_id=id, unique=True),
    "created": lambda q, f, id: _save(q.create_job(f, args=("x",), job_id=id)),
    "ready": lambda q, f, id: _make_ready(
        q, q.enqueue(f, "x", job_id=id, depends_on=_after(q.enqueue(take_plain)))
    ),
}


def _save(job: RQJob) -> RQJob:
    job.set_status(JobStatus.CREATED)
    job.save()
    return job


def _make_ready(queue: Queue, job: RQJob) -> RQJob:
    with queue.connection.pipeline() as pipe:
        queue.ready_job_registry.register_jobs([job], pipe)
        pipe.execute()
    return job


@dataclass
class Matrix:
    """The jobs, and what was found of them."""

    host: Host
    connection: Connection
    worker: str
    folder: Path
    memory: Memory = field(default_factory=Memory)
    jobs: dict[str, tuple[RQJob, Any]] = field(default_factory=dict)
    compared: int = 0
    words: set[str] = field(default_factory=set)
    differences: list[str] = field(default_factory=list)

    @property
    def redis(self) -> Redis:
        return list_places(self.host, ["default"])[0].redis

    def enqueue(self) -> None:
        """A job of each way that returns, one that fails, and one that is canceled."""
        for each in self._combinations():
            queue = rq.get_queue(each.queues[1])
            for way, enqueue in WAYS.items():
                if way == "cron" and each.serializer == "json":
                    continue  # RQ's cron always pickles
                for function, end in ((take_plain, "ok"), (fail_plain, "bad"), (take_plain, "no")):
                    job = enqueue(queue, function, f"{queue.name}-{way}-{end}")
                    self.jobs[f"{queue.name} {way} {end}"] = (job, queue.serializer)
        self.compare("enqueued")

    def cancel(self) -> None:
        """Cancel a job of each way."""
        for name, (job, _) in self.jobs.items():
            if name.endswith(" no"):
                job.cancel()
        self.compare("canceled")

    def work(self) -> None:
        """Let both workers run, each with a job that holds it; stop one of these jobs, where RQ can."""
        gates = {}
        for each in self._combinations():
            queue = rq.get_queue(each.queues[0])
            gates[each] = str(self.folder / queue.name)
            job = queue.enqueue(hold_plain, gates[each], job_id=queue.name)
            self.jobs[f"{queue.name} held"] = (job, queue.serializer)
        workers = [self._start(each) for each in self._combinations()]
        for gate in gates.values():
            wait_until(Path(f"{gate}.begun").exists, 120, what=gate)
        self.compare("started")
        for each, gate in gates.items():
            job, serializer = self.jobs[f"{each.queues[0]} held"]
            # A SimpleWorker has no process that could be stopped.
            if each.serializer == "json" and each.worker != "simple":
                send_stop_job_command(self.redis, job.id, serializer=serializer)
            else:
                Path(gate).touch()
        for worker in workers:
            worker.wait(120)
        self.compare("worked")

    def _combinations(self) -> list[Combination]:
        return [Combination(self.worker, serializer) for serializer in SERIALIZERS]

    def _start(self, each: Combination) -> WarmProcess:
        words = list(WORKERS[each.worker])
        if each.worker != "ours":
            words += ["--url", os.environ["TEST_REDIS_URL"]]
            words += ["--serializer", f"rq.serializers.{SERIALIZERS[each.serializer].__name__}"]
        log = self.folder / f"{each.queues[1]}.log"
        log.touch()
        return WarmProcess([*words, *each.queues], log, os.environ, imported="app")

    def compare(self, when: str) -> None:
        """Make two passes, and as many as a walk needs; then compare each row with RQ's own words.

        Again when a word has changed meanwhile: RQ's maintenance queues what is ready at some moment.
        """
        said = self._fetch()
        while True:
            before = said
            for _ in range(2):
                self._adopt()
            while self.memory.cursor or self.memory.waiting:
                self._adopt()
            rows = self.connection.execute(
                "SELECT rq_id, state, rq_status, queue, created_at, started_at, ended_at, task, "
                "(SELECT count(*) FROM opsjobs.attempts a WHERE a.job_id = j.id), "
                "started_source, ended_source FROM opsjobs.jobs j "
                "JOIN opsjobs.rq_facts f ON f.job_id = j.id WHERE origin = 'rq'"
            ).fetchall()
            said = self._fetch()
            if all(_word(job) == _word(before[name]) for name, job in said.items()):
                break
        by_id = {row[0]: row for row in rows}
        for name, job in said.items():
            self.compared += 1
            self.words.add(_word(job))
            row = by_id.get(job.id)
            wanted = _describe(job, _word(job))
            found = None if row is None else _describe_row(row, wanted, job)
            if found != wanted:
                self.differences.append(f"{when}, {name}: RQ says {wanted}, the row {found}")

    def _fetch(self) -> dict[str, RQJob]:
        return {
            name: RQJob.fetch(job.id, self.redis, serializer)
            for name, (job, serializer) in self.jobs.items()
        }

    def _adopt(self) -> None:
        places = list_places(self.host, ["default"])
        now = read_clock(self.connection)
        adopt_jobs(self.connection, places[0], self.memory, lambda _: None, now)


def _word(job: RQJob) -> str:
    return job.get_status(refresh=False).value


def _describe(job: RQJob, word: str) -> dict[str, Any]:
    """What RQ says of a job, in our words."""
    state = STATES_OF_WORDS[word]
    was_tried = state == "scheduled" and job.started_at is not None and job.retries_left is not None
    # RQ's worker writes no end of a job that it stopped.
    has_end = word in ("finished", "failed", "stopped") and job.ended_at is not None
    return {
        "state": "retryable" if was_tried else state,
        "word": word,
        "queue": job.origin,
        "created": str(job.created_at),
        "task": job.func_name,
        "started": job.started_at if has_end else None,
        "ended": job.ended_at if has_end else None,
        "has_runs": True if has_end else None,
    }


def _describe_row(row: Any, wanted: Mapping[str, Any], job: RQJob) -> dict[str, Any]:
    _, state, word, queue, created, started, ended, task, runs, *sources = row
    has_end = wanted["ended"] is not None
    return {
        "state": state,
        "word": word,
        "queue": queue,
        "created": str(created),
        "task": task,
        "started": _as_rq_says(started, job.started_at, sources[0]) if has_end else None,
        "ended": _as_rq_says(ended, job.ended_at, sources[1]) if has_end else None,
        # RQ keeps no result of a run that it tries again, so there may be more runs than results.
        "has_runs": runs >= len(job.results()) > 0 if has_end else None,
    }


def _as_rq_says(time: Any, stamp: Any, source: str) -> Any:
    """RQ's stamp, when the row has it; a worker of ours reads its own clock, at the same moment."""
    is_near = source == "worker" and abs(time - stamp) < timedelta(seconds=10)
    return stamp if is_near else time


def main(worker: str, folder: str) -> None:
    """Print how many comparisons were made, RQ's words that were met, differences, and prefixes of keys."""
    app = create_app()
    with app.app_context():
        host = app.extensions["opsjobs"]
        matrix = Matrix(host, connect_apart(host.engine), worker, Path(folder))
        matrix.enqueue()
        matrix.cancel()
        matrix.work()
        keys: Any = matrix.redis.keys("*")
        found = {
            "compared": matrix.compared,
            "words": sorted(matrix.words),
            "differences": matrix.differences,
            "prefixes": sorted({key.decode().partition(":")[0] for key in keys}),
        }
        matrix.connection.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])

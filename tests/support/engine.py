"""Steps of the engine, called by tests as its processes call them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

from flask_opsjobs import endings
from flask_opsjobs.core import sql
from flask_opsjobs.core.db import Connection, connect_apart
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.endings import EndedAttempt, MovedJob
from flask_opsjobs.engine.dispatch.dispatch import Dispatcher, TakesDeliveries
from flask_opsjobs.engine.worker import claim as claiming
from flask_opsjobs.engine.worker.claim import NotClaimed
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.perform.current import Claimed
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.jobs.record.task import Task
from flask_opsjobs.settings import Settings
from flask_opsjobs.workers import transitions as workers


class Bench:
    """One app's engine on one connection: dispatch, claim and record without any process."""

    def __init__(
        self, host: Host, name: str = "worker-1", queues: tuple[str, ...] = ("default",)
    ) -> None:
        self.host = host
        self.name = name
        self.connection: Connection = connect_apart(host.engine)
        self.worker_id = workers.register(
            self.connection,
            workers.WorkerProcess(name=name, host="here", pid=1, version="0", queues=list(queues)),
            read_clock(self.connection),
        )

    def dispatch(self, lane: str = "default", *, prefetch: int | None = None) -> int:
        """Dispatch what the prefetch allows on a lane."""
        settings = replace(self.host.settings, prefetch=prefetch)
        dispatcher = self._dispatcher(settings)
        queue = lane.partition("|")[0]
        return dispatcher.dispatch_lane(lane, queue, read_clock(self.connection))

    def _dispatcher(self, settings: Settings) -> Dispatcher:
        # A test may have put something else in the broker's place.
        return Dispatcher(self.connection, cast(TakesDeliveries, self.host.broker), settings)

    def dispatch_all(self) -> int:
        """One pass of the dispatch loop."""
        return self._dispatcher(self.host.settings).dispatch_all(read_clock(self.connection))

    def claim(self, job_id: int, dispatch_no: int = 1) -> Claimed | NotClaimed:
        """Claim a delivery."""
        return claiming.claim(self.connection, (job_id, dispatch_no), self.worker_id, self.name)

    def record(self, job_id: int, dispatch_no: int, outcome: Outcome) -> list[MovedJob]:
        """Record how an attempt ended."""
        return self.record_all([(job_id, dispatch_no)], outcome)

    def record_all(self, deliveries: list[tuple[int, int]], outcome: Outcome) -> list[MovedJob]:
        """Record that the attempts of all these deliveries ended so."""
        found = [EndedAttempt(*each, self.worker_id, self.name, outcome) for each in deliveries]
        return endings.write_outcomes(self.connection, found, read_clock(self.connection))

    def job(self, job_id: int) -> dict[str, Any]:
        """The row as it is."""
        return self.row("SELECT * FROM opsjobs.jobs WHERE id = %s", job_id)

    def attempt(self, job_id: int, dispatch_no: int = 1) -> dict[str, Any]:
        """An attempt's row."""
        return self.row(
            "SELECT * FROM opsjobs.attempts WHERE job_id = %s AND dispatch_no = %s",
            job_id,
            dispatch_no,
        )

    def row(self, statement: str, *values: Any) -> dict[str, Any]:
        """The only row of a query."""
        (row,) = self.rows(statement, *values)
        return row

    def rows(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        """The rows of a query."""
        cursor = self.connection.execute(statement, values)
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def close(self) -> None:
        """Close its connection."""
        self.connection.close()


def take(
    bench: Bench,
    number: int = 10,
    *queues: str,
    most_bytes: int = 4_000_000,
    waited: timedelta | None = None,
) -> list[tuple[int, int]]:
    """Take jobs from Postgres, as a worker does."""
    parameters = {
        "queues": list(queues or ("default",)),
        "limit": number,
        "bytes": most_bytes,
        "waited": waited,
        "worker_id": bench.worker_id,
    }
    rows = bench.connection.execute(sql.load("take_jobs"), parameters).fetchall()
    return [(row[1], row[2]) for row in rows if row[1] is not None]


def begin(
    bench: Bench, *keys: tuple[int, int], ago: float = 0.0, pid: int | None = 7
) -> set[tuple[int, int]]:
    """Write that jobs have begun so many seconds ago, as a worker does."""
    parameters = {
        "ids": [job_id for job_id, _ in keys],
        "dispatch_nos": [number for _, number in keys],
        "ago": [ago for _ in keys],
        "pids": [pid for _ in keys],
        "worker_id": bench.worker_id,
        "worker": bench.name,
        "is_durable": False,
    }
    return set(bench.connection.execute(sql.load("begin_jobs"), parameters).fetchall())


def race(*calls: Callable[[], Any]) -> list[Any]:
    """Run all at the same moment in threads; what each returned, or the exception that it raised."""
    barrier = threading.Barrier(len(calls))
    answers: list[Any] = [None] * len(calls)

    def run(index: int, call: Callable[[], Any]) -> None:
        barrier.wait()
        try:
            answers[index] = call()
        except Exception as error:
            answers[index] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads), "a call had not returned after 120 s"
    return answers


def tasks_of(host: Host) -> dict[str, Task]:
    """The tasks that the host's code declared."""
    return cast(dict[str, Task], host.tasks)


def forget_tasks(host: Host) -> None:
    """Be as a new process, which declares its tasks anew."""
    tasks_of(host).clear()

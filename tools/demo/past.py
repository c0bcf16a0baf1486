"""Runs jobs, cron and decisions at past times, with the library's own statements, for the demo's history.

The statements ask Postgres for the time. In here every connection of the app finds another
`clock_timestamp()` before Postgres' own; it returns the time of `Past`.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from flask import Flask
from sqlalchemy import event

from flask_opsjobs.core.db import Connection, connect_apart
from flask_opsjobs.engine.inline_worker import InlineWorker
from flask_opsjobs.failures import deploys
from flask_opsjobs.failures.deploys import Marker
from flask_opsjobs.host import Host
from flask_opsjobs.loops import LOOPS
from flask_opsjobs.loops.loop import Loop, Runner, every
from flask_opsjobs.workers import transitions as workers

_CLOCK = """
    DROP SCHEMA IF EXISTS demo_clock CASCADE;
    CREATE SCHEMA demo_clock;
    CREATE TABLE demo_clock.moment (now timestamptz NOT NULL);
    CREATE FUNCTION demo_clock.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
        AS 'SELECT now FROM demo_clock.moment';
    CREATE FUNCTION demo_clock.statement_timestamp() RETURNS timestamptz LANGUAGE sql STABLE
        AS 'SELECT now FROM demo_clock.moment';
"""
_READ_CLOCK_FIRST = "SET search_path TO demo_clock, pg_catalog, public"
# After a crash the demo writes its history again, so commits need not wait for the disk. The last one does,
# for all: then the history is there.
_ASYNCHRONOUS = "SET synchronous_commit TO off"
# The loops that a history needs often: they decide slots and count minutes.
_LOOPS = ("cron", "roll_up")
# It would register this process with the version that the demo has now, and so mark that deploy in the past.
_LEFT_OUT = ("escalate",)
# The longest time between two calls of `loop`, and of `watch`; after a longer one the loops would count as
# silent.
STEP = timedelta(minutes=5)
WATCH = timedelta(hours=1)
_LOOK_AGAIN = timedelta(seconds=70)
_RUNNING = "SELECT id FROM opsjobs.operations WHERE state = 'running' LIMIT 1"
# Between two turns of an operation.
_NEXT_TURN = timedelta(seconds=1)


class Past:
    """A simulated clock for one app, and the work that happens at its time. `now` never goes back.

    Nobody else may use the database meanwhile. `perform` calls the tasks' functions in this process: a
    function that waits must call `wait` instead of sleeping.
    """

    def __init__(self, host: Host, clock: Connection, work: Connection, now: datetime) -> None:
        self._host = host
        self._clock = clock
        self._work = work
        self._worker = _register(host, work, now)
        self._heartbeat_no = 0
        self._waited = 0.0
        self._often = [_runner(host, loop, STEP) for loop in LOOPS if loop.name in _LOOPS]
        rarely = [loop for loop in LOOPS if loop.name not in _LOOPS + _LEFT_OUT]
        self._rarely = [_runner(host, loop, WATCH) for loop in rarely]
        self.now = now

    def move_to(self, moment: datetime) -> None:
        """Move the clock forward to `moment`; nothing when it is later already."""
        if moment > self.now:
            self.now = moment
            self._clock.execute("UPDATE demo_clock.moment SET now = %s", [moment])

    def wait(self, seconds: float) -> None:
        """The replacement for `time.sleep`. The clock moves when the job ends."""
        self._waited += seconds

    def loop(self) -> None:
        """Record a heartbeat, and run a pass of the loops that are needed often."""
        self._heartbeat_no += 1
        id, _ = self._worker
        workers.record_heartbeat(
            self._work, id, workers.HeartbeatReport(self._heartbeat_no), self.now
        )
        self._pass(self._often)

    def watch(self) -> None:
        """Run a pass of the other loops. Call it right after `perform`: nothing may be due.

        It looks for incidents twice, because some open only when a second look finds the same.
        """
        self._pass(self._rarely)
        self.move_to(self.now + _LOOK_AGAIN)
        self._pass([runner for runner in self._rarely if runner.loop.name == "detect"])

    def _pass(self, runners: Iterable[Runner]) -> None:
        for runner in runners:
            while runner.run_once(self._work, self.now):
                pass

    def deploy(self, version: str, *, actor: str, note: str) -> None:
        """Mark a deploy, and let a worker of this version take the place of the one before."""
        marker, _ = deploys.mark(self._work, version, self.now, actor=actor, note=note)
        self.end()
        self._worker = _register(self._host, self._work, self.now, marker)
        self._heartbeat_no = 0

    def perform(self, app: Flask) -> None:
        """Run all due jobs."""

        @contextmanager
        def surround() -> Iterator[None]:
            with app.app_context():
                yield
            self.move_to(self.now + timedelta(seconds=self._waited))
            self._waited = 0.0

        InlineWorker(self._host, self._work, surround, worker=self._worker).run()

    def operate(self, app: Flask, *, passes: int = 100) -> None:
        """Let operations change their jobs, and run these, until no operation goes on or after `passes`."""
        for _ in range(passes):
            self.loop()
            self._pass([runner for runner in self._rarely if runner.loop.name == "operate"])
            self.perform(app)
            if self._work.execute(_RUNNING).fetchone() is None:
                return
            self.move_to(self.now + _NEXT_TURN)

    def end(self) -> None:
        """Record the stop of the worker."""
        workers.stop(self._work, self._worker[0], self.now)


def _runner(host: Host, loop: Loop, interval: timedelta) -> Runner:
    return Runner(replace(loop, every_seconds=every(interval.total_seconds())), host)


def _register(
    host: Host, connection: Connection, now: datetime, deploy: Marker | None = None
) -> tuple[int, str]:
    version = "yesterday" if deploy is None else deploy.version
    name = f"worker-of-{version}-{os.getpid()}"
    queues = sorted({task.declared.queue for task in host.tasks.values()})
    id = workers.register(
        connection,
        workers.WorkerProcess(
            name=name,
            host=socket.gethostname(),
            pid=os.getpid(),
            version="demo",
            queues=queues,
            deploy_version=None if deploy is None else deploy.version,
            deploy_id=None if deploy is None else deploy.id,
        ),
        now,
    )
    return id, name


@contextmanager
def past(app: Flask, begin: datetime) -> Iterator[Past]:
    """The `Past` of `app` from `begin` on, until the block ends. Needs the app's context."""
    host: Host = app.extensions["opsjobs"]
    # Dispatch nothing to RQ, because due jobs run in this process.
    before, host.dispatcher = host.dispatcher, None
    with closing(connect_apart(host.engine)) as clock, _reading_clock(host):
        clock.execute(_CLOCK)
        clock.execute("INSERT INTO demo_clock.moment VALUES (%s)", [begin])
        clock.execute(_ASYNCHRONOUS)
        with closing(connect_apart(host.engine)) as work:
            found = Past(host, clock, work, begin)
            with _log_times(found):
                yield found
            found.end()
        clock.execute("RESET synchronous_commit")
        clock.execute("DROP SCHEMA demo_clock CASCADE")
    host.dispatcher = before


@contextmanager
def _reading_clock(host: Host) -> Iterator[None]:
    """In this block, every connection of the app's engine reads the clock of the past."""

    def prepare(connection: Any, _record: object) -> None:
        connection.execute(_READ_CLOCK_FIRST)
        connection.execute(_ASYNCHRONOUS)
        connection.commit()

    event.listen(host.engine, "connect", prepare)
    host.engine.dispose()
    host.spare.close()
    try:
        yield
    finally:
        event.remove(host.engine, "connect", prepare)
        host.engine.dispose()
        host.spare.close()


@contextmanager
def _log_times(past: Past) -> Iterator[None]:
    """In this block, log records have the time of the past, including the log tail of a job."""
    make = logging.getLogRecordFactory()

    def make_of_the_past(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        record.created = past.now.timestamp()
        record.msecs = past.now.microsecond // 1000
        return record

    logging.setLogRecordFactory(make_of_the_past)
    try:
        yield
    finally:
        logging.setLogRecordFactory(make)

"""Performs managed jobs on a plain `rq worker`: its work horse claims and performs the job and records it."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import psycopg
from rq import get_current_job

from ... import endings, signals
from ...core.db import Connection, is_away
from ...core.outage import Backoff, Outage
from ...core.reading import read_clock
from ...endings import EndedAttempt
from ...host import Host
from ...jobs.perform.current import Claimed
from ...jobs.perform.log_tail import Ring
from ...jobs.perform.perform import Report, perform
from ...workers import transitions as workers
from ..redis.broker import parse_rq_id
from .claim import Confirm, NotClaimed, claim
from .heartbeat import Progress, write_progress

if TYPE_CHECKING:
    from flask import Flask

_log = logging.getLogger("flask_opsjobs.worker")
_THREAD = "work horse"
T = TypeVar("T")


def perform_delivery() -> None:
    """Perform the delivery of the current RQ job. RQ calls this in a worker that is not ours.

    Finds the app as `flask` does, by `FLASK_APP`. Opens a connection per job. RQ notices when its work horse
    is killed; our loops notice when the key of its worker expires.
    """
    rq_job = get_current_job()
    delivery = parse_rq_id(rq_job.id) if rq_job is not None else None
    if delivery is None:
        raise RuntimeError(
            "perform_delivery is called by RQ, for a job with an id of flask_opsjobs"
        )
    app = _find_app()
    host: Host = app.extensions["opsjobs"]
    with app.app_context(), signals.sent_by(host):
        _perform(host, delivery, os.environ.get("RQ_WORKER_ID", "plain"))


def _perform(host: Host, delivery: tuple[int, int], name: str) -> None:
    def take(connection: Connection, is_retry: bool) -> tuple[int, Claimed | NotClaimed]:
        worker_id = workers.find_or_register_plain(
            connection,
            name=name,
            host=socket.gethostname(),
            pid=os.getppid(),
            now=read_clock(connection),
        )
        return worker_id, claim(connection, delivery, worker_id, name, is_retry=is_retry)

    def record(connection: Connection, _is_retry: bool) -> None:
        endings.write_outcomes(connection, [ending], read_clock(connection))

    postgres = _Postgres(host)
    try:
        worker_id, claimed = postgres.ask(take)
        if not isinstance(claimed, Claimed):
            _log.info("the delivery %s was not claimed: %s", delivery, claimed.reason)
            return
        time.sleep(claimed.wait_seconds)
        ring = Ring(memoryview(bytearray(host.settings.log_tail_bytes + Ring.HEAD_BYTES)))
        most = host.settings.max_output_bytes
        tell = partial(postgres.tell_progress, claimed)
        report = Report(ring, most, tell, host.spare.one, host)
        with host.telemetry.attempt(claimed, name) as watched:
            outcome = perform(
                host.performable, claimed, report, Confirm(host, claimed, worker_id, name)
            )
            ending = EndedAttempt(
                claimed.id, claimed.dispatch_no, worker_id, name, outcome, attempt=claimed.attempt
            )
            postgres.ask(record)
            watched.tell(outcome.kind, report.take_error(), report.connect)
        host.telemetry.finish()
    finally:
        host.spare.close()


class _Postgres:
    """The connection of this process to Postgres, which is made again after it broke."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._outage = Outage(_log, "the delivery is kept")

    def ask(self, act: Callable[[Connection, bool], T]) -> T:
        """Return the result of `act(connection, is_retry)`. Tries again while Postgres is away.

        RQ's time limit of the job bounds the retries.
        """
        backoff, is_retry = Backoff(), False
        while True:
            try:
                with self._connection() as connection:
                    return act(connection, is_retry)
            except psycopg.Error as error:
                if not is_away(error):
                    raise
            is_retry = True
            time.sleep(backoff.next_seconds())

    def tell_progress(
        self, claimed: Claimed, done: int | None, total: int | None, note: str | None
    ) -> None:
        """Write the progress of the job.

        Does nothing while Postgres is away: the outcome brings the newest progress.
        """
        row = Progress(claimed.id, claimed.dispatch_no, done, total, note)
        try:
            with self._connection() as connection:
                write_progress(connection, [row])
        except psycopg.Error as error:
            if not is_away(error):
                raise

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        asked_at = time.monotonic()
        try:
            with self._host.spare.one() as connection:
                yield connection
        except psycopg.Error as error:
            if is_away(error):
                self._outage.begin(_THREAD, error, asked_at)
            raise
        self._outage.end(_THREAD)


def _find_app() -> Flask:
    from flask import current_app, has_app_context

    if has_app_context():
        # Flask-RQ's worker has pushed an app context.
        return current_app._get_current_object()  # type: ignore[attr-defined,no-any-return]
    from flask.cli import ScriptInfo

    return ScriptInfo(os.environ.get("FLASK_APP")).load_app()

"""Managed jobs on a plain `rq worker`, as best it can be done: its horse claims, performs and records for itself."""

from __future__ import annotations

import logging
import os
import socket
import time
from functools import partial
from typing import TYPE_CHECKING

from psycopg.pq import TransactionStatus
from rq import get_current_job

from .. import endings
from ..db import Connection, connect_apart
from ..endings import Ending
from ..host import Host
from ..jobs.claimed import Claimed
from ..jobs.log_tail import Ring
from ..jobs.perform import Report, perform
from ..lifeline import executors
from .claim import claim
from .confirm import Confirm
from .delivery import parse
from .dispatch import read_clock
from .pulse import Progress, write_progress

if TYPE_CHECKING:
    from flask import Flask

_log = logging.getLogger("flask_opsjobs.worker")


def perform_delivery() -> None:
    """What RQ calls in a worker that is not ours. Finds the app as `flask` does, by `FLASK_APP`.

    Costs a connection per job. A killed horse is found by RQ, and by us when its worker's key expires.
    """
    rq_job = get_current_job()
    delivery = parse(rq_job.id) if rq_job is not None else None
    if delivery is None:
        raise RuntimeError(
            "perform_delivery is called by RQ, for a job with an id of flask_opsjobs"
        )
    app = _find_app()
    with app.app_context():
        _perform(app.extensions["opsjobs"], delivery, os.environ.get("RQ_WORKER_ID", "plain"))


def _perform(host: Host, delivery: tuple[int, int], name: str) -> None:
    connection = connect_apart(host.engine)
    try:
        executor_id = executors.find_or_register_plain(
            connection,
            name=name,
            host=socket.gethostname(),
            pid=os.getppid(),
            now=read_clock(connection),
        )
        claimed = claim(connection, delivery, executor_id, name)
        if not isinstance(claimed, Claimed):
            _log.info("the delivery %s was not claimed: %s", delivery, claimed.reason)
            return
        time.sleep(claimed.wait_seconds)
        ring = Ring(memoryview(bytearray(host.settings.log_tail_bytes + Ring.HEAD_BYTES)))
        report = Report(ring, partial(_tell_progress, connection, claimed))
        outcome = perform(host.workers, claimed, report, Confirm(host, claimed, executor_id, name))
        if connection.info.transaction_status != TransactionStatus.IDLE:
            # The connection broke, or the time limit came while progress was written.
            connection.close()
            connection = connect_apart(host.engine)
        ending = Ending(claimed.id, claimed.dispatch_no, executor_id, name, outcome)
        endings.record(connection, [ending], read_clock(connection))
    finally:
        connection.close()


def _tell_progress(
    connection: Connection,
    claimed: Claimed,
    done: int | None,
    total: int | None,
    note: str | None,
) -> None:
    # When the connection has broken, the end brings the newest progress.
    if not connection.closed:
        row = Progress(claimed.id, claimed.dispatch_no, done, total, note)
        write_progress(connection, [row])


def _find_app() -> Flask:
    from flask import current_app, has_app_context

    if has_app_context():
        # Flask-RQ's worker has pushed one.
        return current_app._get_current_object()  # type: ignore[attr-defined,no-any-return]
    from flask.cli import ScriptInfo

    return ScriptInfo(os.environ.get("FLASK_APP")).load_app()

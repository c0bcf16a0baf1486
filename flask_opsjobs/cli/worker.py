"""`flask opsjobs worker`: an OpsWorker on the queues named, or on all that the app's tasks use."""

from __future__ import annotations

import logging
import os
import socket
import sys

import click
from flask import Flask, current_app
from flask.cli import with_appcontext

from ..engine.worker.declare import declare_limiters
from ..engine.worker.forking_performer import ForkingPerformer
from ..engine.worker.in_process_performer import InProcessPerformer
from ..engine.worker.rq_worker import OpsSimpleWorker, OpsWorker
from ..engine.worker.runtime import WorkerRuntime
from ..host import Host
from . import current_host


@click.command("worker")
@click.argument("queues", nargs=-1)
@click.option("--simple", is_flag=True, help="Perform in this process, without a fork per job.")
@click.option("--burst", is_flag=True, help="Stop when the queues are empty.")
@click.option("--max-jobs", type=click.IntRange(min=1), help="Stop after so many jobs.")
@click.option(
    "--with-scheduler/--no-scheduler",
    default=True,
    show_default=True,
    help="Schedule plain RQ jobs of these queues, where no other scheduler of RQ does.",
)
@click.option(
    "--log-level", default="WARNING", show_default=True, help="How much RQ's own log says."
)
@with_appcontext
def worker(
    queues: tuple[str, ...],
    simple: bool,
    burst: bool,
    max_jobs: int | None,
    with_scheduler: bool,
    log_level: str,
) -> None:
    """Run jobs of QUEUES, the first named first; of all queues of this app's tasks when none is named."""
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    logging.basicConfig(format="%(asctime)s %(name)s %(levelname)s %(message)s")
    host = current_host()
    host.require_schema()
    names = (
        list(queues) or sorted({each.declared.queue for each in host.tasks.values()}) or ["default"]
    )
    exit_code = run(
        app,
        names,
        simple=simple,
        burst=burst,
        max_jobs=max_jobs,
        with_scheduler=with_scheduler,
        log_level=log_level,
    )
    sys.exit(exit_code)


def run(
    app: Flask, names: list[str], *, simple: bool, burst: bool = False, max_jobs: int | None = None,
    with_scheduler: bool = True, log_level: str = "WARNING",
) -> int:  # fmt: skip
    """Work until stopped; the exit code: 0 when that was wanted, 1 when the loop ended by itself."""
    host: Host = app.extensions["opsjobs"]
    host.broker.connections.require_answer(names[0])
    wire = host.broker.connections.wire(names[0])
    declare_limiters(host, f"{socket.gethostname()}-{os.getpid()}")
    runtime = WorkerRuntime(host, "simple" if simple else "forking", names)
    kind = OpsSimpleWorker if simple else OpsWorker
    rq_worker = kind(names, name=runtime.name, connection=wire.redis, serializer=wire.serializer)
    performer = (InProcessPerformer if simple else ForkingPerformer)(app, runtime, host.tasks)
    said = f"{runtime.name} listens to {', '.join(names)}"
    rq_worker.attach(app, runtime, performer, tell_ready=lambda: click.echo(said, err=True))
    try:
        rq_worker.work(
            burst=burst,
            max_jobs=max_jobs,
            with_scheduler=with_scheduler,
            logging_level=log_level,
        )
    finally:
        is_done = runtime.close()
    if not is_done:
        click.echo(
            "Postgres did not take the last outcomes in time; lifeline will find those jobs",
            err=True,
        )
    return 0 if is_done and not rq_worker.has_failed(burst, max_jobs) else 1

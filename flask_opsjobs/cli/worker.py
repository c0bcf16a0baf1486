"""Runs a worker on the named queues, or on all queues of the app's tasks: `flask opsjobs worker`."""

from __future__ import annotations

import logging
import sys

import click
from flask import Flask, current_app
from flask.cli import with_appcontext

from ..engine.redis.broker import broker_of
from ..engine.worker.performer import ForkingPerformer, InProcessPerformer
from ..engine.worker.rq_worker import OpsSimpleWorker, OpsWorker
from ..engine.worker.runtime import WorkerRuntime, declare_limiters, process_name
from ..host import Host
from . import current_host


@click.command("worker")
@click.argument("queues", nargs=-1)
@click.option("--simple", is_flag=True, help="Run jobs in this process, without a fork per job.")
@click.option("--burst", is_flag=True, help="Stop when the queues are empty.")
@click.option("--max-jobs", type=click.IntRange(min=1), help="Stop after this many jobs.")
@click.option(
    "--with-scheduler/--no-scheduler",
    default=True,
    show_default=True,
    help="Also schedule plain RQ jobs of these queues, unless another RQ scheduler does.",
)
@click.option(
    "--log-level", default="WARNING", show_default=True, help="The level of RQ's own log."
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
    """Run jobs of QUEUES, those of the first queue first. Without QUEUES: of all queues of the tasks."""
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
    app: Flask,
    names: list[str],
    *,
    simple: bool,
    burst: bool = False,
    max_jobs: int | None = None,
    with_scheduler: bool = True,
    log_level: str = "WARNING",
) -> int:
    """Work until stopped. Returns the exit code: 0 after a stop that was requested, else 1."""
    host: Host = app.extensions["opsjobs"]
    host.broker.require_answer(names[0])
    wire = broker_of(host).connections.wire(names[0])
    declare_limiters(host, process_name())
    runtime = WorkerRuntime(host, "simple" if simple else "forking", names)
    kind = OpsSimpleWorker if simple else OpsWorker
    rq_worker = kind(names, name=runtime.name, connection=wire.redis, serializer=wire.serializer)
    performer = (InProcessPerformer if simple else ForkingPerformer)(app, runtime)
    ready = f"{runtime.name} listens to {', '.join(names)}"
    rq_worker.attach(app, runtime, performer, tell_ready=lambda: click.echo(ready, err=True))
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
            "Postgres did not record the last outcomes in time; the watch loop will rescue those jobs",
            err=True,
        )
    return 0 if is_done and not rq_worker.has_failed(burst, max_jobs) else 1

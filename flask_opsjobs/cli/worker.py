"""Runs a worker on the named queues, or on all queues of the app's tasks: `flask opsjobs worker`."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import Any, NoReturn

import click
from flask import Flask, current_app
from flask.cli import with_appcontext

from ..engine.worker.parent import WorkerOptions
from ..engine.worker.runtime import WorkerRuntime, declare_limiters, process_name
from ..escalations.lifecycle import QUEUE
from ..host import Host
from . import current_host


@click.command("worker")
@click.argument("queues", nargs=-1)
@click.option(
    "--processes",
    default=1,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="How many child processes perform jobs at once.",
)
@click.option(
    "--jobs-per-process",
    default=1000,
    show_default=True,
    type=click.IntRange(min=0),
    help="After about so many jobs a child is replaced. 1: a fresh process per job. 0: no limit.",
)
@click.option(
    "--max-memory",
    "max_memory_mb",
    type=click.IntRange(min=1),
    metavar="MB",
    help="A child that has gained so much memory is replaced after its job.",
)
@click.option("--burst", is_flag=True, help="Stop when the queues are empty.")
@click.option("--max-jobs", type=click.IntRange(min=1), help="Stop after this many jobs.")
@click.option(
    "--with-scheduler/--no-scheduler",
    default=True,
    show_default=True,
    help="Also schedule plain RQ jobs of these queues, unless another RQ scheduler does.",
)
@click.option(
    "--log-level",
    default="WARNING",
    show_default=True,
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], case_sensitive=False),
    help="The level of RQ's own log.",
)
@with_appcontext
def worker(queues: tuple[str, ...], log_level: str, **options: Any) -> None:
    """Run jobs of QUEUES, those of the first queue first. Without QUEUES: of all queues of the tasks."""
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    if "" in queues:
        raise click.UsageError("the name of a queue is empty")
    if QUEUE in queues:
        raise click.UsageError(
            f"the queue {QUEUE} is served by `flask opsjobs run`, for escalations"
        )
    logging.basicConfig(format="%(asctime)s %(name)s %(levelname)s %(message)s")
    for name in ("rq.worker", "rq.job"):
        logging.getLogger(name).setLevel(log_level)
    host = current_host()
    host.require_schema()
    names = (
        list(queues) or sorted({each.declared.queue for each in host.tasks.values()}) or ["default"]
    )
    sys.exit(run(app, names, WorkerOptions(**options)))


def run(app: Flask, names: list[str], options: WorkerOptions) -> int:
    """Work until stopped. Returns the exit code: 0 after a stop that was requested, else 1.

    After SIGHUP it does not return: the process starts anew.
    """
    host: Host = app.extensions["opsjobs"]
    folder = _start_folder()
    declare_limiters(host, process_name())
    runtime = WorkerRuntime(app, names, options)
    ready = f"{runtime.name} listens to {', '.join(names)}"
    has_recorded = runtime.run(tell_ready=lambda: click.echo(ready, err=True))
    if not has_recorded:
        click.echo(
            "Postgres did not record the last outcomes in time; the watch loop will rescue those jobs",
            err=True,
        )
    if runtime.wants_restart:
        click.echo(f"{runtime.name} starts anew", err=True)
        try:
            _start_anew(folder)
        except OSError as error:
            click.echo(f"{runtime.name} cannot start anew: {error}", err=True)
            return 1
    return 0 if has_recorded else 1


def _start_folder() -> str:
    """Return the folder of this process as the shell calls it: a deploy may move a symbolic link in it."""
    logical = os.environ.get("PWD", "")
    with suppress(OSError):
        if os.path.samefile(logical, "."):
            return logical
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was removed
        return logical


def _start_anew(folder: str) -> NoReturn:
    """Replace this process by one of the same command line, which imports the code that is there now."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # it was closed when this process started
            stream.flush()
    os.chdir(folder)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])

"""Runs every background loop in one process: `flask opsjobs run`."""

from __future__ import annotations

import logging
import sys

import click
from flask import Flask, current_app
from flask.cli import with_appcontext

from ..engine.worker.runtime import process_name
from ..loops.process import LoopsProcess
from . import current_host


@click.command("run")
@with_appcontext
def run() -> None:
    """Run all background loops in one process.

    They are dispatch, advance, cron, watch and the others. Any number of copies may run. Stops on SIGTERM or
    Ctrl-C, after the current passes have ended.
    """
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    logging.basicConfig(format="%(asctime)s %(name)s %(levelname)s %(message)s")
    loops = LoopsProcess(current_host(), surround=app.app_context)
    ready = f"{process_name()} runs the loops"
    sys.exit(loops.run(on_start=lambda: click.echo(ready, err=True)))

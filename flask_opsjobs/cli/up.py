"""Runs workers and loops together, for development: `flask opsjobs up`."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from flask.cli import ScriptInfo

from ..processes.supervisor import Supervisor
from . import current_host


@click.command("up")
@click.option(
    "--workers", default=1, show_default=True, type=click.IntRange(min=0), help="How many workers."
)
@click.option(
    "--processes",
    default=1,
    show_default=True,
    type=click.IntRange(min=1),
    help="How many child processes of each worker perform jobs at once.",
)
@click.option(
    "--queue",
    "queues",
    multiple=True,
    help="A queue to work on; by default all queues of the app's tasks.",
)
@click.pass_context
def up(ctx: click.Context, workers: int, processes: int, queues: tuple[str, ...]) -> None:
    """Run workers and the loops until Ctrl-C, and show their logs.

    A child that dies is started again. In production run `flask opsjobs worker` and `flask opsjobs run` under
    the supervisor of the machine instead.
    """
    require_servers(ctx, queues)
    children = Supervisor()
    children.add("loops", again(ctx, "opsjobs", "run"))
    options = ["--processes", str(processes)]
    for number in range(1, workers + 1):
        children.add(f"worker.{number}", again(ctx, "opsjobs", "worker", *options, "--", *queues))
    sys.exit(children.run())


def require_servers(ctx: click.Context, queues: tuple[str, ...]) -> None:
    """Raise an error of the app or its servers now, instead of letting each child fail repeatedly."""
    with ctx.ensure_object(ScriptInfo).load_app().app_context():
        host = current_host()
        host.require_schema()
        host.pages.dispose()
        for queue in queues or ("default",):
            host.broker.require_answer(queue)


def again(ctx: click.Context, *words: str) -> list[str]:
    """The command line of `flask words…` for the app of this command. The environment is inherited."""
    flask = [sys.executable, "-m", "flask"]
    info = ctx.ensure_object(ScriptInfo)
    if info.app_import_path is not None:
        return [*flask, "--app", info.app_import_path, *words]
    script = Path(sys.argv[0])
    if info.create_app is not None and script.stem not in ("flask", "__main__") and script.exists():
        # A host's own script, made with FlaskGroup(create_app=…).
        return [sys.executable, str(script), *words]
    # The app comes from FLASK_APP, or from an app.py that Flask finds by itself.
    return [*flask, *words]

"""Tells a supervisor whether the worker or the loops of this machine are alive: `flask opsjobs alive`."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import closing

import click
import psycopg
from flask.cli import with_appcontext

from ..core.db import connect_apart, is_away, say_cause
from ..host import Host
from ..lifeline.alive import ProcessHere, list_processes_here
from . import current_host, plain

# Postgres gets so long to answer.
_PATIENCE_SECONDS = 2.0


@click.command(
    "alive", short_help="Tell whether the worker or the loops of this machine are alive."
)
@click.option(
    "--worker",
    metavar="NAME",
    help="Ask about this worker; the random end of its name may be left out.",
)
@click.option("--loops", "is_loops", is_flag=True, help="Ask about the process of the loops.")
@with_appcontext
def alive(worker: str | None, is_loops: bool) -> None:
    """Exit with 0 while a worker or the loops of this machine or container send heartbeats, with 1 if not.

    A probe for containers and supervisors. It asks Postgres once and waits 2 s at most. Postgres that is away
    is said, and exits with 0 too: to restart the process would not help.
    """
    if worker is not None and is_loops:
        raise click.UsageError("--worker and --loops exclude each other")
    host = current_host()
    kind = "loops" if is_loops else "worker" if worker is not None else None
    found = _within(_PATIENCE_SECONDS, lambda: _ask(host, kind, worker))
    if isinstance(found, str):
        click.echo(plain(f"{found}: that is no reason to restart a process, so this exits with 0"))
        return
    well = next((process for process in found if process.is_alive), None)
    if well is not None:
        click.echo(plain(well.sentence))
        return
    subject = {"loops": "process of the loops", "worker": f"worker {worker}"}.get(
        kind or "", "worker and no process of the loops"
    )
    nothing = f"no {subject} is known on this machine or in this container"
    click.echo(plain(found[0].sentence if found else nothing))
    sys.exit(1)


def _ask(host: Host, kind: str | None, worker: str | None) -> Sequence[ProcessHere] | str:
    """The processes; a sentence when Postgres is away."""
    try:
        with closing(connect_apart(host.engine)) as connection:
            return list_processes_here(connection, kind, worker, host.settings.late_seconds)
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
        host.require_schema()
        raise
    except psycopg.Error as error:
        # A statement that waited too long counts too, as for a lock that a migration holds.
        if not (is_away(error) or isinstance(error, psycopg.OperationalError)):
            raise
        return f"the database did not answer ({say_cause(error)})"


def _within(
    seconds: float, ask: Callable[[], Sequence[ProcessHere] | str]
) -> Sequence[ProcessHere] | str:
    """What `ask` returns or raises; a sentence when it takes longer, as on a frozen server."""
    answers: list[Sequence[ProcessHere] | str | Exception] = []

    def note() -> None:
        try:
            answers.append(ask())
        except Exception as error:
            answers.append(error)

    thread = threading.Thread(target=note, daemon=True)
    thread.start()
    thread.join(seconds)
    answer = answers[0] if answers else f"the database did not answer within {seconds:g} s"
    if isinstance(answer, Exception):
        raise answer
    return answer

"""Takes flask_opsjobs out of a host's migrations, and says what is lost: `flask opsjobs uninstall`."""

from __future__ import annotations

import click
from flask import Flask
from sqlalchemy import Connection

from ..errors import ConfigError
from ..install import losses, removal, steps
from ..install.database import find_database
from ..settings import read_settings
from . import plain, require_app
from ._operate import cannot_write

# So many lines of the host's own files are printed.
_MOST_LINES = 50


@click.command("uninstall")
@click.option(
    "--dry-run", is_flag=True, help="Print what is lost and what changes, and write nothing."
)
@click.option("--force", is_flag=True, help="Go on while something runs or jobs have not ended.")
@click.option(
    "--head",
    metavar="NAME",
    help="The head that the new revision follows, if there are several: its id, or the label of its branch.",
)
@click.pass_context
def uninstall(context: click.Context, dry_run: bool, force: bool, head: str | None) -> None:
    """Take this package out of the app's migrations.

    Afterwards they run without it. Changes files only: the revision that it writes drops the schema when
    `flask db upgrade` runs it. Refused while a worker or the loops run, or while jobs have not ended. With
    --dry-run it says so last, and exits with 1.
    """
    app = require_app(context)
    try:
        with app.app_context():
            settings = read_settings(app.config)
            _, engine = find_database(app, settings.bind)
            planned = removal.plan_removal(app, head)
            with engine.connect() as connection:
                _say_what_is_lost(connection)
                refusal = None if force else _find_refusal(connection, settings.late_seconds)
            if refusal and not dry_run:
                raise ConfigError(f"refused: {refusal}")
            if dry_run:
                lines = [f"would be {line}" for line in removal.say_planned(planned)]
            else:
                lines = [f"written  {line}" for line in _write(planned, settings.bind)]
            click.echo(plain("", *lines))
            _say_what_is_left(app, planned)
            if refusal:
                raise ConfigError(f"would be refused: {refusal}")
    except ConfigError as error:
        raise click.ClickException(str(error)) from error


def _write(planned: removal.Removal, bind: str | None) -> list[str]:
    try:
        return removal.write_removal(planned, bind)
    except OSError as error:
        raise cannot_write(error, "uninstall") from error


def _say_what_is_lost(connection: Connection) -> None:
    if steps.version(connection) == 0:
        click.echo("This database has no schema opsjobs.")
        return
    lost = list(removal.list_lost(connection))
    click.echo("This is lost when the new revision runs:")
    click.echo(plain(*(f"    {line}" for line in lost)))


def _find_refusal(connection: Connection, late_seconds: float) -> str | None:
    """Why the schema is in use, and what to do; None when it is not."""
    version = steps.version(connection)
    if version == 0:
        return None
    if version != steps.latest():
        return (
            f"the database has opsjobs schema {version}, and this release knows {steps.latest()}, so it "
            "cannot tell what runs: see that nothing does, then run `flask opsjobs uninstall --force`"
        )
    running = [
        f"{who} sent a heartbeat just now"
        for who in losses.list_running(connection, late_seconds, can_see_gone=True)
    ]
    unfinished = list(removal.list_unfinished(connection))
    if not (running or unfinished):
        return None
    fixes = ["let the jobs end or cancel them"] if unfinished else []
    fixes += [f"stop workers and loops and wait {late_seconds:g} s"] if running else []
    force = ", or with --force to lose these jobs" if unfinished else ""
    return (
        f"{'; '.join([*running, *unfinished])}: {', '.join(fixes)}, "
        f"then run `flask opsjobs uninstall` again{force}"
    )


def _say_what_is_left(app: Flask, planned: removal.Removal) -> None:
    lines = removal.list_lines_of_host(app, planned)
    if lines:
        click.echo("\nRemove these lines yourself:\n")
        click.echo(plain(*(f"    {line}" for line in lines[:_MOST_LINES])))
        if len(lines) > _MOST_LINES:
            click.echo(f"    and {len(lines) - _MOST_LINES:,} more")
    click.echo(
        "\nYour policies, opsjobs_access.py and opsjobs_display.py, are left where they are.\n"
        f"Then run `{planned.found.upgrade_command}` on each database, and `pip uninstall flask-opsjobs`."
    )

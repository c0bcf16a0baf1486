"""Writes the files that a host needs, and prints the lines to add: `flask opsjobs install`."""

from __future__ import annotations

import sys

import click
from flask import Flask

from ..errors import ConfigError
from ..install import plan
from . import require_app
from ._operate import cannot_write

DONE = """
Then run `{upgrade}`. On your machine `flask opsjobs up` starts a worker and the loops. In production
`flask opsjobs worker` and `flask opsjobs run` are services, and `flask opsjobs doctor` says what is wrong.

It is installed only when all of this is true:
  - `flask opsjobs install --check` exits with 0
  - `{upgrade}` has run
  - the app starts
  - one action with a reason stands in the audit: pause an entry of cron, as with
    `flask opsjobs cron pause nightly_sync --reason "to see it in the audit"`,
    and find it with `flask opsjobs audit list`"""


@click.command("install")
@click.option("--dry-run", is_flag=True, help="Print what would be written, and write nothing.")
@click.option(
    "--check",
    is_flag=True,
    help="Write nothing; exit with 1 when something is missing or an upgrade is due.",
)
@click.option(
    "--head",
    metavar="NAME",
    help="The head that the new revision follows, if there are several: its id, or the label of its branch.",
)
@click.option(
    "--escalation",
    is_flag=True,
    help="Also write a starter of the escalation policy, which tells people of incidents.",
)
@click.pass_context
def install(
    context: click.Context, dry_run: bool, check: bool, head: str | None, escalation: bool
) -> None:
    """Write what this app still lacks for OpsJobs.

    That is the revision, the policies and the lines in env.py.
    """
    app = require_app(context)
    try:
        with app.app_context():
            if check:
                sys.exit(1 if say_what_is_due(app, head, escalation=escalation) else 0)
            write_what_is_missing(app, head, dry_run, escalation=escalation)
    except ConfigError as error:
        raise click.ClickException(str(error)) from error


def say_what_is_due(app: Flask, head: str | None, *, escalation: bool = False) -> bool:
    """Print what is there, missing or due. Returns whether anything is missing or due."""
    found = plan.pieces(app, head, escalation=escalation)
    for piece in found:
        click.echo(f"missing  {piece.missing}" if piece.missing else f"there    {piece.there}")
    due = plan.due(app)
    for sentence in due:
        click.echo(f"due      {sentence}")
    return bool(due) or any(piece.missing for piece in found)


def write_what_is_missing(
    app: Flask, head: str | None, dry_run: bool, *, escalation: bool = False
) -> None:
    """Write each missing piece, print it, then print what a person has to do next."""
    report: list[str] = []
    try:
        for piece in plan.pieces(app, head, escalation=escalation):
            report.append(_write(piece, dry_run))
    finally:
        # Print at the end, even when a piece fails: a pipe closed early, as by `head`, must not stop it.
        for line in report:
            click.echo(line)
    if "opsjobs" not in app.extensions:
        for place, lines in plan.lines_to_add(app):
            click.echo(f"\nAdd to {place}:\n")
            for line in lines:
                click.echo(f"    {line}".rstrip())
    if escalation and getattr(app.extensions.get("opsjobs"), "escalation", None) is None:
        place, lines = plan.escalation_lines(app)
        click.echo(f"\nGive the escalation policy in {place}:\n")
        for line in lines:
            click.echo(f"    {line}".rstrip())
    for line in plan.list_starter_changes(app):
        click.echo(f"\n{line}")
    click.echo(DONE.format(upgrade=plan.upgrade_command(app)))


def _write(piece: plan.Piece, dry_run: bool) -> str:
    if piece.missing is None or piece.write is None:
        return f"there    {piece.there}"
    if dry_run:
        return f"missing  {piece.missing}"
    try:
        return f"written  {piece.write()}"
    except OSError as error:
        raise cannot_write(error, "install") from error

"""`flask opsjobs install`: writes what a host needs and says what to add; `--check` only looks."""

from __future__ import annotations

import sys

import click
from flask import Flask, current_app
from flask.cli import with_appcontext

from ..errors import ConfigError
from ..install import plan


@click.command("install")
@click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
@click.option(
    "--check",
    is_flag=True,
    help="Write nothing; exit with 1 when something is missing or an upgrade is due.",
)
@with_appcontext
def install(dry_run: bool, check: bool) -> None:
    """Write the revision, the policies and the line in env.py that this app still lacks."""
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    try:
        if check:
            sys.exit(1 if say_what_is_due(app) else 0)
        write_what_is_missing(app, dry_run)
    except ConfigError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"cannot write {error.filename}: {error.strerror}") from error


def say_what_is_due(app: Flask) -> bool:
    """Print what is there, missing or due; whether there is anything to do."""
    found = plan.pieces(app)
    for piece in found:
        click.echo(f"missing  {piece.missing}" if piece.missing else f"there    {piece.there}")
    due = plan.due(app)
    for sentence in due:
        click.echo(f"due      {sentence}")
    return bool(due) or any(piece.missing for piece in found)


def write_what_is_missing(app: Flask, dry_run: bool) -> None:
    """Write each missing piece and say so; then say what a person does next."""
    for piece in plan.pieces(app):
        if piece.missing is None or piece.write is None:
            click.echo(f"there    {piece.there}")
        elif dry_run:
            click.echo(f"missing  {piece.missing}")
        else:
            click.echo(f"written  {piece.write()}")
    if "opsjobs" not in app.extensions:
        place, lines = plan.lines_to_add(app)
        click.echo(f"\nAdd to {place}:\n")
        for line in lines:
            click.echo(f"    {line}".rstrip())
    click.echo("\nThen run `flask db upgrade`, and `flask opsjobs install --check` at any time.")

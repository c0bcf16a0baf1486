"""Prints what is known of a subject, and what is not: `flask opsjobs forensics`."""

from __future__ import annotations

import sys

import click
from flask.cli import with_appcontext

from ..core.display import Display
from ..forensics.export import FORMATS
from ..forensics.find import find_bundle_apart
from ..forensics.shown import show_bundle
from . import current_host, limited
from ._operate import find_user


@click.command("forensics")
@click.argument("subject")
@click.option(
    "--format",
    "format_",
    type=click.Choice(list(FORMATS)),
    default="json",
    show_default=True,
    help="How it is written.",
)
@click.option("--without-payload", is_flag=True, help="Leave out what jobs were given and said.")
@with_appcontext
def forensics(subject: str, format_: str, without_payload: bool) -> None:
    """Print what is known of SUBJECT, such as job/42 or queue/mail.

    Says also what is not known. Reads only. Texts pass the display policy; the file names the user of this
    shell, the time and its hash. Exits 0, also when history is unavailable; 1 when nothing is known of it; 2
    when SUBJECT can name nothing, or the database does not answer in time.
    """
    host = current_host()
    with limited(host):
        found = find_bundle_apart(host, subject)
    shown = show_bundle(found, Display(host.display, may_see=not without_payload))
    click.echo(FORMATS[format_].write(shown, find_user(), host.settings.environment), nl=False)
    sys.exit(1 if found.completeness == "unknown" else 0)

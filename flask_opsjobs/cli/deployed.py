"""Marks a deploy: `flask opsjobs deployed VERSION`."""

from __future__ import annotations

from contextlib import closing

import click
from flask.cli import with_appcontext

from ..core.db import connect_apart
from ..core.reading import read_clock
from ..core.words import moment
from ..failures import deploys
from ..failures.deploys import Marker
from . import _operate, current_host, plain, to_json


@click.command("deployed", short_help="Mark that a version of your application is deployed.")
@click.argument("version")
@click.option("--note", help="A sentence about it, at most 1,000 characters.")
@click.option("--actor", help="Who deployed it; the user of this shell by default.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@with_appcontext
def deployed(version: str, note: str | None, actor: str | None, *, as_json: bool) -> None:
    """Mark that VERSION is deployed from now on. Run it before the workers of the new version start.

    A version that is the newest deploy already is not marked again: its deploy gets the note. Exits with 0
    when it is marked, also when it was before; 2 when it cannot be marked.
    """
    host = current_host()
    who = (actor or "").strip() or _operate.find_user()
    deploys.require_legal(version, who, note)
    host.require_schema()
    with closing(connect_apart(host.engine)) as connection:
        now = read_clock(connection)
        marker, is_new = deploys.mark(connection, version, now, actor=who, note=note)
    if as_json:
        found = {"deploy": marker.id, "version": marker.version, "at": marker.at.isoformat()}
        click.echo(to_json({**found, "new": is_new}))
    else:
        click.echo(plain(_say(marker, is_new)))


def _say(marker: Marker, is_new: bool) -> str:
    if is_new:
        return f"deploy {marker.id}: {marker.version} is marked"
    return f"deploy {marker.id}: {marker.version} is marked already, since {moment(marker.at)}"

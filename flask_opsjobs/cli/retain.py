"""Removes, or counts, the rows that the retain loop would remove: `flask opsjobs retain`."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from datetime import datetime

import click
from flask.cli import with_appcontext

from ..core.db import Connection, connect_apart
from ..core.reading import read_clock
from ..lifeline import retention
from ..settings import Settings
from . import current_host


@click.command("retain")
@click.option("--dry-run", is_flag=True, help="Count what would be removed, and remove nothing.")
@with_appcontext
def retain(dry_run: bool) -> None:
    """Remove the old rows that settings no longer keep.

    The settings OPSJOBS_KEEP_… say how long. Prints how many rows of each kind it removed.
    """
    host = current_host()
    host.require_schema()
    with closing(connect_apart(host.engine)) as connection:
        now = read_clock(connection)
        find = retention.count_retainable if dry_run else _remove_all
        found = find(connection, host.settings, now)
    for what, number in found.items():
        click.echo(f"{number:>10,}  {what}")
    click.echo(f"{sum(found.values()):>10,}  {'would be' if dry_run else 'were'} removed")


def _remove_all(connection: Connection, settings: Settings, now: datetime) -> dict[str, int]:
    """Remove batch after batch, each in its own transaction, so that no lock is held for long."""
    total: Counter[str] = Counter()
    while True:
        with connection.transaction():
            removed = retention.retain(connection, settings, now)
        total.update(removed)
        if sum(removed.values()) < retention.BATCH:
            return dict(total)

"""Puts back what a lost Redis held, or clears Redis after a restore of Postgres: `flask opsjobs restore`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime

import click
from flask.cli import with_appcontext

from ..core.db import Connection, connect_apart
from ..core.reading import read_clock
from ..core.words import counted
from ..engine.reconcile.audit_restore import Asker, audit_refusal, audit_removal, audit_restore
from ..engine.reconcile.restore import Found, find_lacks, list_live_workers, remove_all
from ..engine.reconcile.restore import restore as restore_lost
from ..host import Host
from ..jobs.adopted.transitions import OpenJob
from ..queues.transitions import list_known_queues
from . import _operate, current_host, plain

# So many lost plain jobs of each Redis are named.
_MOST_NAMED = 20


@click.command("restore")
@click.option("--dry-run", is_flag=True, help="Say what Redis lacks, and write nothing.")
@click.option(
    "--after-postgres",
    is_flag=True,
    help="Postgres was restored to an earlier time: remove all our deliveries from Redis.",
)
@click.option("--reason", help="Why; it stays in the audit.")
@click.option("--actor", help="Who does it; the user of this shell by default.")
@with_appcontext
def restore(dry_run: bool, after_postgres: bool, reason: str | None, actor: str | None) -> None:
    """Recall at once the jobs whose deliveries Redis lost.

    They are dispatched again. The recall loop does the same within seconds. Also removes deliveries of jobs
    that have ended since, which a Redis from an older file brings back. Names the plain RQ jobs that are
    gone, and ends them as `unknown`: their payloads were in Redis only. May be repeated at any time, while
    workers and loops run.

    With --after-postgres no worker may run: the command is refused while one has a fresh heartbeat. Exits 0,
    1 when it is refused, 2 when Postgres or Redis does not answer.
    """
    if dry_run and after_postgres:
        raise click.UsageError("--after-postgres has no --dry-run")
    host = current_host()
    host.require_schema()
    who = (actor or "").strip() or _operate.find_user()
    with closing(connect_apart(host.engine)) as connection:
        now = read_clock(connection)
        queues = list_known_queues(host, connection)
        if after_postgres:
            asker = Asker(who, reason or "Postgres was restored to an earlier time")
            _remove_all(host, connection, queues, asker, now)
        elif dry_run:
            _say(find_lacks(host, connection, queues, now))
        else:
            done = restore_lost(host, connection, queues, now)
            audit_restore(
                host, connection, Asker(who, reason or "put back what Redis lacks"), done, now
            )
            _say(done.found)
            ends = f", {counted(done.unknown, 'plain job')} ended unknown" if done.unknown else ""
            click.echo(
                f"recalled {counted(done.recalled, 'job')}, removed {done.removed:,} outdated "
                f"{'delivery' if done.removed == 1 else 'deliveries'}, "
                f"dispatched {counted(done.dispatched, 'job')}{ends}"
            )


def _remove_all(
    host: Host, connection: Connection, queues: Sequence[str], asker: Asker, now: datetime
) -> None:
    alive = list_live_workers(connection, now, host.settings.late_seconds)
    if alive:
        audit_refusal(host, connection, asker, now)
        more = f" and {len(alive) - 3} more" if len(alive) > 3 else ""
        names = ", ".join(alive[:3]) + more
        click.echo(plain(f"refused: stop the workers first: {names} sent a heartbeat just now"))
        sys.exit(1)
    removed = remove_all(host, connection, queues, now)
    audit_removal(host, connection, asker, removed, now)
    for queue, number in sorted(removed.items()):
        click.echo(plain(f"{queue}: removed {_deliveries(number)}"))
    click.echo(f"removed {_deliveries(sum(removed.values()))}; start the workers now")


def _say(found: Found) -> None:
    lines = list(_lines(found))
    click.echo(plain(*lines) if lines else "Redis lacks nothing")


def _lines(found: Found) -> Iterator[str]:
    for queue in found.queues:
        lost, outdated = len(found.lost[queue]), len(found.outdated[queue])
        if lost or outdated or found.parked[queue]:
            yield (
                f"{queue}: {found.queued[queue]:,} queued, {lost:,} of them not in Redis, "
                f"{found.parked[queue]:,} taken by a worker and not claimed, {outdated:,} outdated"
            )
    for place, jobs in found.plain.items():
        yield f"Redis {place}: {counted(len(jobs), 'plain job')} gone before anybody saw an end"
        yield from map(_name, jobs[:_MOST_NAMED])
        if len(jobs) > _MOST_NAMED:
            yield f"  and {len(jobs) - _MOST_NAMED:,} more"


def _name(job: OpenJob) -> str:
    return f"  job {job.id}: {job.task}, {job.rq_id} of queue {job.queue}"


def _deliveries(number: int) -> str:
    return counted(number, "delivery", "deliveries")

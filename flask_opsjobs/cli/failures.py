"""Lists failures: `flask opsjobs failures`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

import click
from flask.cli import with_appcontext

from ..core.display import Display
from ..core.words import counted, span
from ..failures.lifecycle import STATES
from ..failures.queries import MOST_FAILURES, FailureRow, find_versions, page_of_failures
from ..lifeline.loop_runs import find_loop
from . import current_host, open_snapshot, plain, to_json


@click.command("failures")
@click.option("--state", type=click.Choice(STATES), default="open", show_default=True)
@click.option("--task", default=None, help="Only those of this task.")
@click.option(
    "--limit",
    default=MOST_FAILURES,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="Print so many at most.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@with_appcontext
def failures(state: str, task: str | None, limit: int, as_json: bool) -> None:
    """Print failures: the errors of attempts, each once.

    Those that failed last come first; with `--task`, those that began last. Reads only. Exits 0; 2 when the
    database does not answer in time.
    """
    host = current_host()
    with open_snapshot(host) as read:
        page = page_of_failures(read.session, state, task=task, limit=limit)
        versions = find_versions(read.session, set().union(*(row.deploys for row in page.rows)))
        loop = find_loop(read.session, read.now, "roll_up")
    is_counted = loop is not None and loop.is_running
    has_more = page.older is not None
    clean = Display(host.display, may_see=True).clean
    if as_json:
        found = [_as_object(row, versions, clean) for row in page.rows]
        about = {"failures": found, "has_more": has_more, "is_counted": is_counted}
        click.echo(to_json(about, indent=2))
        return
    for row in page.rows:
        click.echo(plain(*_say(row, read.now, clean)))
    if has_more:
        click.echo(f"these are the first {limit:,}: print more with --limit")
    if not page.rows:
        click.echo(f"no failure is {state}" if task is None else "no such failure")
    if not is_counted:
        click.echo("nobody counts failures: start `flask opsjobs run`")


def _say(row: FailureRow, now: datetime, clean: Callable[[str], str]) -> Iterator[str]:
    """A failure in two lines: what, and since when and how often; of which task, and where."""
    parts = [
        "regressed" if row.is_regressed else row.state,
        counted(row.number, "attempt"),
        f"{counted(row.jobs, 'job')} failed",
        f"last {span((now - row.last_at).total_seconds())} ago",
        f"first {span((now - row.first_at).total_seconds())} ago",
    ]
    where = f", in {clean(row.raised_in)}" if row.raised_in else ""
    yield f"{row.id}  {clean(row.title)}  ({', '.join(parts)})"
    yield f"    task {clean(row.task)}{where}"


def _as_object(
    row: FailureRow, versions: Mapping[int, str], clean: Callable[[str], str]
) -> dict[str, Any]:
    """A failure as JSON, as the display policy shows it."""

    def version(deploy: int | None) -> str | None:
        return clean(versions[deploy]) if deploy and deploy in versions else None

    return {
        "id": row.id,
        "title": clean(row.title),
        "task": clean(row.task),
        "type": None if row.type is None else clean(row.type),
        "raised_in": None if row.raised_in is None else clean(row.raised_in),
        "state": row.state,
        "is_regressed": row.is_regressed,
        "attempts": row.number,
        "jobs_failed": row.jobs,
        "first_at": row.first_at.isoformat(),
        "last_at": row.last_at.isoformat(),
        "first_deploy": version(row.first_deploy),
        "last_deploy": version(row.last_deploy),
    }

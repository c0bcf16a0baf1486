"""Lists failures: `flask opsjobs failures`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

import click
from flask.cli import with_appcontext

from ..core.display import Display
from ..core.words import counted, span
from ..failures.lifecycle import STATES
from ..failures.queries import (
    FailureRow,
    find_failure,
    find_versions,
    page_of_failures,
    place_of,
)
from ..lifeline.loop_runs import find_loop
from . import current_host, number_of, open_snapshot, plain, to_json


@click.command("failures")
@click.option("--state", type=click.Choice(STATES), default="open", show_default=True)
@click.option("--task", default=None, help="Only those of this task.")
@click.option(
    "--before",
    type=number_of("failure"),
    help="Print those that follow this failure in the list: the next page.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@with_appcontext
def failures(state: str, task: str | None, before: int | None, as_json: bool) -> None:
    """Print failures: the errors of attempts, each once.

    Those that failed last come first, at most 50; of one task those that are new. Reads only. Exits 0; 2
    when the failure of `--before` is not there, or the database does not answer in time.
    """
    host = current_host()
    with open_snapshot(host) as read:
        place = None
        if before is not None:
            last = find_failure(read.session, before)
            if last is None:
                raise click.UsageError(f"there is no failure {before}: begin without --before")
            place = place_of(last, task)
        page = page_of_failures(read.session, state, task=task, older_than=place)
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
        click.echo(plain(_say_next(state, task, page.rows[-1].id)))
    if not page.rows:
        none = f"no failure is {state}" if task is None else "no such failure"
        click.echo(none if before is None else f"no failure follows failure {before}")
    if not is_counted:
        click.echo("nobody counts failures: start `flask opsjobs run`")


def _say_next(state: str, task: str | None, last: int) -> str:
    of_task = [] if task is None else [f"--task={task}"]
    words = ("flask", "opsjobs", "failures", f"--state={state}", *of_task, f"--before={last}")
    return f"there are more, the next ones: {shlex.join(words)}"


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

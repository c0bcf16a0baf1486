"""Lists jobs, also those of a search and in an order: `flask opsjobs jobs`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any

import click
from flask.cli import with_appcontext

from ..core.display import Display
from ..core.reading import PAGE_PLANS, WHAT_NARROWS
from ..core.words import span, took
from ..jobs.rows import Count, JobRow
from ..jobs.search.filter import LIMITS, SORTS, JobFilter
from ..jobs.search.hit_queries import shows
from ..jobs.search.queries import JobList, list_jobs, say_why_unordered
from . import current_host, number_of, open_snapshot, plain, to_json


@click.command("jobs")
@click.option(
    "--search", default="", help="Only those that match, such as 'state:failed task:send_invoice'."
)
@click.option(
    "--sort",
    type=click.Choice(list(SORTS)),
    help="due: the oldest due time first; -run, -wait, -attempts: the largest first. Without it, the newest.",
)
@click.option(
    "--limit",
    type=click.Choice([str(limit) for limit in LIMITS]),
    help=f"Print so many at most.  [default: {LIMITS[0]}]",
)
@click.option(
    "--before",
    type=number_of("job"),
    help="Print those that follow this job in the list: the next page.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@with_appcontext
def jobs(
    search: str, sort: str | None, limit: str | None, before: int | None, as_json: bool
) -> None:
    """Print jobs, or those of a search.

    A search is written as in the box of the page. Reads only. Exits 0; 2 when the search cannot be
    read, or the database does not answer in time.
    """
    host = current_host()
    wanted = JobFilter.from_query([("q", search), ("sort", sort or ""), ("limit", limit or "")])
    with open_snapshot(host, PAGE_PLANS, WHAT_NARROWS) as read:
        found = list_jobs(
            read.session, wanted, read.now, before=before, is_shown=shows(host.display)
        )
        page = found.page
    if before is not None and not page.has_newer:
        raise click.UsageError(f"job {before} has left this list: begin again without --before")
    clean = Display(host.display, may_see=True).clean
    if as_json:
        about: dict[str, Any] = {
            "jobs": [_as_object(row, clean) for row in page.rows],
            "has_more": page.has_older,
            "is_all_searched": found.searched.is_all,
            "is_in_order": found.is_in_order,
            "counts": {state: asdict(count) for state, count in found.counts.items()},
        }
        click.echo(to_json(about, indent=2))
        return
    for row in page.rows:
        click.echo(plain(_line(row, read.now, clean)))
    if not page.rows:
        none = "no job matches" if wanted.box else "there are no jobs"
        click.echo(none if before is None else f"no job follows job {before}")
    for line in _say_what_is_missing(found, wanted):
        click.echo(line)


def _say_what_is_missing(found: JobList, wanted: JobFilter) -> Iterator[str]:
    """How many more there are, which were not searched, and why they are not in their order."""
    rows = found.page.rows
    if found.page.has_older:
        states = [wanted.state] if wanted.state else found.counts
        count = Count.sum(found.counts[state] for state in states)
        kinds = {"exact": "", "at_least": "at least ", "about": "about "}
        first = "" if found.page.has_newer else "the first "
        yield f"these are {first}{len(rows)} of {kinds[count.kind]}{count.number:,}"
        words = ("flask", "opsjobs", "jobs", *wanted.to_options(), f"--before={rows[-1].id}")
        yield plain(f"the next ones: {shlex.join(words)}")
    if not found.searched.is_all:
        yield (
            "not all jobs were searched, so some may be missing: add a state or a task, or created:>1d to "
            "search older ones"
        )
    if not found.is_in_order and wanted.sort is not None:
        yield f"not by {SORTS[wanted.sort]}, the newest come first"
        yield say_why_unordered()


def _line(row: JobRow, now: datetime, clean: Callable[[str], str]) -> str:
    """A job in a line: what it is, since when or for how long, and what became of it."""
    words = [f"{row.id:>8}", f"{row.state:<9}", clean(row.task), f"queue {clean(row.queue)}"]
    if row.attempt:
        words.append(f"attempt {row.attempt} of {row.max_attempts}")
    words.append(_say_time(row, now))
    if said := row.error or row.ended_reason:
        words.append(clean(said).partition("\n")[0])
    return "  ".join(words)


def _say_time(row: JobRow, now: datetime) -> str:
    """The time that matters most in the job's state."""
    if row.main_time is None:
        return "after another job"
    what, at = row.main_time
    seconds = (now - at).total_seconds()
    if what == "due" and seconds < 0:
        return f"due in {span(-seconds)}"
    if what == "started":
        return f"has run {span(seconds)}"
    ran = ""
    if row.ended_at is not None and row.started_at is not None:
        ran = f"ran {took((row.ended_at - row.started_at).total_seconds())}, "
    return f"{ran}{what} {span(seconds)} ago"


def _as_object(row: JobRow, clean: Callable[[str], str]) -> dict[str, Any]:
    """A job as JSON, as the display policy shows it."""

    def time(value: datetime | None) -> str | None:
        return None if value is None else value.isoformat()

    def text(value: str | None) -> str | None:
        return None if value is None else clean(value)

    done, total, note = row.progress or (None, None, None)
    return {
        "id": row.id,
        "state": row.state,
        "task": clean(row.task),
        "queue": clean(row.queue),
        "origin": row.origin,
        "attempt": row.attempt,
        "max_attempts": row.max_attempts,
        "created_at": time(row.created_at),
        "due_at": time(row.due_at),
        "dispatched_at": time(row.dispatched_at),
        "started_at": time(row.started_at),
        "taken_by": text(row.taken_by),
        "progress": None if done is None else {"done": done, "total": total, "note": text(note)},
        "ended_at": time(row.ended_at),
        "ended_by": row.ended_by,
        "ended_reason": text(row.ended_reason),
        "error": text(row.error),
    }

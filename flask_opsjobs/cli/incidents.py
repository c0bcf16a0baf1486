"""Lists what is wrong: `flask opsjobs incidents`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

import click
from flask.cli import with_appcontext

from ..core.display import Display
from ..core.words import counted, span
from ..lifeline.detectors import DETECTORS
from ..lifeline.lifecycle import SEVERITIES, STATES
from ..lifeline.loop_runs import find_loop
from ..lifeline.queries import (
    IncidentFilter,
    IncidentRow,
    count_active_incidents,
    page_of_incidents,
)
from . import current_host, open_snapshot, plain, to_json


@click.command("incidents")
@click.option("--class", "class_", type=click.Choice(sorted(DETECTORS)), default=None)
@click.option("--severity", type=click.Choice(SEVERITIES), default=None)
@click.option(
    "--state",
    type=click.Choice(("active", *STATES)),
    default="active",
    show_default=True,
    help="active: open or acknowledged.",
)
@click.option(
    "--limit",
    default=200,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="Print so many at most.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@with_appcontext
def incidents(
    class_: str | None, severity: str | None, state: str, limit: int, as_json: bool
) -> None:
    """Print the incidents that are not resolved.

    The most severe come first, of each severity the newest. Reads only. Exits 1 when a critical one is open,
    that is, nobody has acknowledged it and it does not follow from another one, and when the loop detect does
    not run, so that nobody looks for incidents; else 0; 2 when the database does not answer in time. So a
    monitor can ask.
    """
    host = current_host()
    wanted = IncidentFilter(class_ or "", severity or "", state)
    with open_snapshot(host) as read:
        pages = [
            page_of_incidents(read.session, replace(wanted, severity=each), limit=limit)
            for each in ([severity] if severity else SEVERITIES)
        ]
        critical = count_active_incidents(read.session).open["critical"]
        loop = find_loop(read.session, read.now, "detect")
    is_watched = loop is not None and loop.is_running
    rows = [row for page in pages for row in page.rows]
    has_more = len(rows) > limit or any(page.older for page in pages)
    rows = rows[:limit]
    clean = Display(host.display, may_see=True).clean
    if as_json:
        found = [as_object(row, clean) for row in rows]
        about = {"incidents": found, "has_more": has_more, "is_watched": is_watched}
        click.echo(to_json(about, indent=2))
    else:
        for row in rows:
            click.echo(plain(*say_incident(row, read.now, clean)))
        if has_more:
            click.echo(f"these are the first {limit:,}: print more with --limit")
        if not rows:
            is_any = wanted == IncidentFilter(state="active")
            click.echo("no incident is open" if is_any else "no such incident")
        if not is_watched:
            click.echo("nobody looks for incidents: start `flask opsjobs run`")
    sys.exit(1 if critical or not is_watched else 0)


def say_incident(row: IncidentRow, now: datetime, clean: Callable[[str], str]) -> Iterator[str]:
    """An incident in two lines: what and since when; why."""
    since = f"for {span((now - row.opened_at).total_seconds())}"
    if row.resolved_at is not None:
        since = f"resolved {span((now - row.resolved_at).total_seconds())} ago ({row.resolved_by})"
    parts = [row.severity, row.state, since]
    if row.affects:
        parts.append(f"{row.affects} affected")
    if row.episode > 1:
        parts.append(counted(row.episode, "episode"))
    if row.has_cause:
        parts.append(f"follows from incident {row.because_of}")
    yield f"{row.id}  {clean(row.title)}  ({', '.join(parts)})"
    yield f"    {clean(row.why)}"
    if row.acknowledged_until is not None:
        yield (
            f"    acknowledged by {clean(row.acknowledged_by or '')} until "
            f"{row.acknowledged_until:%Y-%m-%d %H:%M} UTC: {clean(row.acknowledged_reason or '')}"
        )


def as_object(row: IncidentRow, clean: Callable[[str], str]) -> dict[str, Any]:
    """An incident as JSON, with its words, as the display policy shows them."""
    return {
        "id": row.id,
        "class": row.class_,
        "subject": clean(row.subject),
        "title": clean(row.title),
        "why": clean(row.why),
        "next_step": clean(row.next_step),
        "severity": row.severity,
        "state": row.state,
        "episode": row.episode,
        "first_at": row.first_at.isoformat(),
        "opened_at": row.opened_at.isoformat(),
        "seen_at": row.seen_at.isoformat(),
        "affected": row.affected,
        "acknowledged_by": None if row.acknowledged_by is None else clean(row.acknowledged_by),
        "acknowledged_until": _moment(row.acknowledged_until),
        "resolved_at": _moment(row.resolved_at),
        "resolved_by": row.resolved_by,
        "because_of": row.because_of if row.has_cause else None,
    }


def _moment(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()

"""Lists tasks with their numbers: `flask opsjobs tasks`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from datetime import timedelta
from typing import Any

import click
from flask.cli import with_appcontext

from ..core.display import Display
from ..core.reading import PAGE_PLANS
from ..core.typed_times import read_span
from ..core.words import counted, moment, short_duration
from ..lifeline.loop_runs import find_loop
from ..tasks.change import say_kb, say_share
from ..tasks.outlier_queries import count_long
from ..tasks.queries import MOST_HOURS, MOST_TASKS, PausedTask, TaskNumbers, find_pauses
from ..tasks.ranking import AGAINST, KEYS, Hours, TaskRow, rank_tasks
from . import current_host, open_snapshot, plain, to_json


def _read_since(_context: click.Context, _option: click.Parameter, text: str) -> timedelta:
    span = read_span(text)
    if span is None or span > MOST_HOURS:
        raise click.BadParameter(f"{text!r}: write a span such as 6h or 7d, at most 60d")
    return span


@click.command("tasks")
@click.option(
    "--since",
    default="1d",
    show_default=True,
    callback=_read_since,
    help="How far back, such as 6h or 7d, in whole hours.",
)
@click.option(
    "--against",
    type=click.Choice(list(AGAINST)),
    default="yesterday",
    show_default=True,
    help="Compare with the same hours one day before, or seven.",
)
@click.option(
    "--sort",
    type=click.Choice([f"{minus}{column}" for column in KEYS for minus in ("", "-")]),
    default="-change",
    show_default=True,
    help="The smallest first; the largest after a minus.",
)
@click.option("--find", default="", help="Only tasks with this in their names.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@with_appcontext
def tasks(since: timedelta, against: str, sort: str, find: str, as_json: bool) -> None:
    """Print what each task did, and what changed.

    It prints jobs that were enqueued, ended and failed, run times, waits and memory. The task that changed
    most for the worse comes first. Reads only. Exits 0; 2 when the database does not answer in time.
    """
    host = current_host()
    with open_snapshot(host, PAGE_PLANS) as read:
        hours = Hours.until(read.now, since, against)
        column, is_descending = sort.removeprefix("-"), sort.startswith("-")
        ranked, has_more = rank_tasks(read.session, hours, column, is_descending=is_descending)
        rows = [row for row in ranked if find.lower() in row.task.lower()]
        loop = find_loop(read.session, read.now, "roll_up")
        pauses = find_pauses(read.session, [row.task for row in rows])
    is_counted = loop is not None and loop.is_running
    clean = Display(host.display, may_see=True).clean
    if as_json:
        about: dict[str, Any] = {
            "from": hours.start.isoformat(),
            "until": hours.end.isoformat(),
            "against": hours.then,
            "is_counted": is_counted,
            "has_more": has_more,
            "tasks": [_as_object(row, pauses.get(row.task), clean) for row in rows],
        }
        click.echo(to_json(about, indent=2))
        return
    for row in rows:
        click.echo(plain(*_say(row, pauses.get(row.task), clean)))
    if not ranked:
        click.echo("no job was counted in this time")
    elif not rows:
        click.echo(f"no task that was counted in this time has {find!r} in its name")
    if has_more:
        click.echo(f"only the first {MOST_TASKS:,} tasks by name were compared; there are more")
    if not is_counted:
        click.echo("nobody counts: start `flask opsjobs run`")


def _say(row: TaskRow, pause: PausedTask | None, clean: Callable[[str], str]) -> Iterator[str]:
    """A task in two lines: how it changed, and its numbers; between them who paused it, if it is paused."""
    now = row.now
    yield f"{clean(row.task)}  ({row.change.says})"
    if pause is not None:
        says = f"paused by {pause.paused_by} at {moment(pause.paused_at)}: {pause.paused_reason}"
        yield f"    {clean(says)}"
    parts = [f"{now.enqueued:,} enqueued", f"{counted(now.ended, 'job')} ended"]
    if now.failed_share is not None:
        parts.append(f"{say_share(now.failed_share)} failed")
    for name, value in (
        ("median", now.median),
        ("p95", now.p95),
        ("longest", now.longest_run),
        ("wait p95", now.wait),
    ):
        if value is not None:
            parts.append(f"{name} {short_duration(value)}")
    if long := count_long(now.runs):
        parts.append(f"at least {counted(long, 'long run')}")
    if now.peak_kb is not None:
        parts.append(f"memory {say_kb(now.peak_kb)}")
    yield f"    {', '.join(parts)}"


def _as_object(
    row: TaskRow, pause: PausedTask | None, clean: Callable[[str], str]
) -> dict[str, Any]:
    """A task as JSON: its numbers, those before, and how it changed. Durations are in seconds."""
    return {
        "task": clean(row.task),
        "change": row.change.says,
        "is_worse": row.change.is_worse,
        "paused_by": pause and clean(pause.paused_by),
        "paused_reason": pause and clean(pause.paused_reason),
        **_numbers_of(row.now),
        "before": None if row.before is None else _numbers_of(row.before),
    }


def _numbers_of(numbers: TaskNumbers) -> dict[str, Any]:
    plain_columns = [
        one.name for one in fields(numbers) if one.name not in ("task", "waits", "runs")
    ]
    return {
        **{name: getattr(numbers, name) for name in plain_columns},
        "failed_share": numbers.failed_share,
        "median_run": numbers.median,
        "p95_run": numbers.p95,
        "p95_wait": numbers.wait,
        "long_runs": count_long(numbers.runs),
    }

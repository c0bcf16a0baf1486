"""Lists cron entries, and pauses, resumes, runs and catches them up: `flask opsjobs cron …`."""

from __future__ import annotations

from typing import Any

import click
from flask.cli import AppGroup

from ..actions.domain import Action
from ..actions.registry import ACTIONS
from ..cron.lifecycle import RESULTS
from ..cron.queries import MOST_ENTRIES, CronEntryRow, SlotRow, list_entries, list_strips
from ..tasks.queries import find_pauses
from . import _operate, current_host, open_snapshot, plain

cron = AppGroup("cron", help="List cron entries; pause, resume, run or catch them up.")


@cron.command("list")
def list_() -> None:
    """Print every entry: state, schedule, policies and last slots.

    Of its last slots it prints the results, the newest last.
    """
    with open_snapshot(current_host()) as read:
        entries = list_entries(read.session)
        strips = list_strips(read.session, [entry.name for entry in entries])
        pauses = find_pauses(read.session, {entry.task for entry in entries})
    if not entries:
        click.echo(
            "no cron entry is known: those from code show once `flask opsjobs run` has started"
        )
    for entry in entries:
        click.echo(plain(_line(entry, strips[entry.name], is_task_paused=entry.task in pauses)))
    if len(entries) >= MOST_ENTRIES:
        click.echo(f"only the first {MOST_ENTRIES}, by name; those in use come before the retired")


def _line(entry: CronEntryRow, slots: list[SlotRow], *, is_task_paused: bool) -> str:
    results = ", ".join(RESULTS[slot.result].word for slot in reversed(slots[:5])) or "no slot yet"
    catch_up = entry.catch_up_limit or entry.catch_up
    return (
        f"{entry.name}  {entry.state}  {entry.expression!r} {entry.zone}  "
        f"{entry.task}{' (paused)' * is_task_paused}  "
        f"overlap {entry.overlap}, catch-up {catch_up}  {results}"
    )


def _add(action: Action[Any]) -> None:
    @cron.command(
        action.short_name.replace("_", "-"),
        short_help=f"{action.title} entries.",
        help=f"{action.title} the cron entries with these NAMES. {action.risk}\n{_operate.EXITS}",
    )
    @click.argument("names", nargs=-1, required=True)
    @_operate.options
    def command(names: tuple[str, ...], **options: Any) -> None:
        _operate.run_action(action.name, [f"cron/{name}" for name in names], **options)


for _short_name in ("pause", "resume", "run_now", "delete"):
    _add(ACTIONS[f"cron.{_short_name}"])


@cron.command(
    "catch-up",
    short_help="Make up for missed slots.",
    help=f"Enqueue one job for each of the last COUNT missed slots of the entry NAME.\n{_operate.EXITS}",
)
@click.argument("name")
@click.argument("count", type=click.IntRange(1, 100))
@_operate.options
def catch_up(name: str, count: int, **options: Any) -> None:
    """Catch up one entry."""
    _operate.run_action("cron.catch_up", [f"cron/{name}"], params={"count": count}, **options)

"""Enqueues a job of a task for an operator: `flask opsjobs enqueue TASK …`."""

from __future__ import annotations

import json
import sys
from typing import Any

import click
from flask.cli import with_appcontext

from ..jobs.record.fields import list_fields
from ..tasks.actions import BadCall, get_task
from . import _operate, current_host


@click.command(
    "enqueue",
    short_help="Enqueue a job of a task.",
    help="Enqueue a job of TASK, which must be declared with enqueue_from_page=True. Its arguments are the "
    "JSON object of --args, and each NAME=VALUE, whose value is read as on the task's page.\n"
    f"{_operate.EXITS}",
)
@click.argument("task")
@click.argument("values", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--args", "text", help="All arguments as a JSON object; `-` reads it from stdin.")
@_operate.options
@with_appcontext
def enqueue(task: str, values: tuple[str, ...], text: str | None, **options: Any) -> None:
    """Enqueue one job."""
    whole = _read_object("{}" if text is None else sys.stdin.read() if text == "-" else text)
    params = {"args": whole | _read_values(task, values, given=set(whole))}
    _operate.run_action("task.enqueue", [f"task/{task}"], params=params, **options)


def _read_object(text: str) -> dict[str, Any]:
    """The JSON object, to which values are added. Any other text is refused."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as wrong:
        raise click.UsageError(f"--args is not JSON: {wrong}") from None
    if not isinstance(found, dict):
        raise click.UsageError("--args must be a JSON object")
    return found


def _read_values(task: str, values: tuple[str, ...], given: set[str]) -> dict[str, Any]:
    """The values by name. One that is `given` already is refused.

    A name that the task does not take is refused with the call.
    """
    try:
        fields = {field.name: field for field in list_fields(get_task(current_host(), task))}
    except BadCall as bad:
        raise click.UsageError(str(bad)) from None
    found: dict[str, Any] = {}
    for value in values:
        name, sign, text = value.partition("=")
        if not (name and sign):
            raise click.UsageError(f"{value[:40]!r} is no argument: write NAME=VALUE")
        if name in given:
            raise click.UsageError(f"{name} is given twice")
        given.add(name)
        try:
            found |= fields[name].read_argument(text) if name in fields else {name: text}
        except ValueError as wrong:
            raise click.UsageError(f"{name}: {wrong}") from None
    return found

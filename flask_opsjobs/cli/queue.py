"""Pauses, drains, resumes, resyncs or clears queues, or sets their prefetch: `flask opsjobs queue …`."""

from __future__ import annotations

from typing import Any

import click
from flask.cli import AppGroup

from ..actions.domain import Action
from ..actions.registry import ACTIONS
from ..jobs.search.filter import JobFilter
from ..operations.operator import waiting_in
from . import _operate, operation

queue = AppGroup(
    "queue", help="Pause, drain, resume, resync or clear queues, or set their prefetch."
)


def _add(action: Action[Any]) -> None:
    @queue.command(
        action.short_name,
        short_help=f"{action.title} queues.",
        help=f"{action.title} the queues with these NAMES. {action.risk}\n{_operate.EXITS}",
    )
    @click.argument("names", nargs=-1, required=True)
    @_operate.options
    def command(names: tuple[str, ...], **options: Any) -> None:
        _operate.run_action(action.name, [f"queue/{name}" for name in names], **options)


for _short_name in ("pause", "drain", "resume", "resync"):
    _add(ACTIONS[f"queue.{_short_name}"])


@queue.command(
    "set-prefetch",
    short_help="Set how many jobs of a queue may be in Redis.",
    help=f"Set how many jobs of the queue NAME may be in Redis: a number, or `auto`.\n{_operate.EXITS}",
)
@click.argument("name")
@click.argument("prefetch")
@_operate.options
def set_prefetch(name: str, prefetch: str, **options: Any) -> None:
    """Set the prefetch of one queue."""
    _operate.run_action(
        "queue.set_prefetch", [f"queue/{name}"], params={"prefetch": prefetch}, **options
    )


@queue.command("clear", short_help="Cancel all jobs of a queue that wait.")
@click.argument("name")
@operation.options_of_start
@_operate.options
def clear(name: str, rate: int | None, wait: bool, **options: Any) -> None:
    """Cancel all jobs of the queue NAME that wait, as an operation: what runs goes on.

    The same as `flask opsjobs operation start cancel` with a search for the waiting jobs of the queue. Jobs
    that are enqueued meanwhile stay: pause the queue before, to start none of them.
    """
    waiting = waiting_in(JobFilter(queue=name))
    operation.start_on("job.cancel", waiting, rate=rate, wait=wait, **options)

"""Pauses or resumes tasks: `flask opsjobs task …`."""

from __future__ import annotations

from typing import Any

import click
from flask.cli import AppGroup

from ..actions.domain import Action
from ..actions.registry import actions_of
from . import _operate

task = AppGroup("task", help="Pause or resume tasks.")


def _add(action: Action[Any]) -> None:
    @task.command(
        action.short_name,
        short_help=f"{action.title} tasks.",
        help=f"{action.title} the tasks with these NAMES. {action.risk}\n{_operate.EXITS}",
    )
    @click.argument("names", nargs=-1, required=True)
    @_operate.options
    def command(names: tuple[str, ...], **options: Any) -> None:
        _operate.run_action(action.name, [f"task/{name}" for name in names], **options)


for _action in actions_of("task"):
    if not _action.params:  # `flask opsjobs enqueue` asks for arguments
        _add(_action)

"""Retries, cancels, discards, runs again or deletes jobs, with a reason: `flask opsjobs job …`."""

from __future__ import annotations

from typing import Any

import click
from flask.cli import AppGroup

from ..actions.domain import Action
from ..actions.registry import ACTIONS
from . import _operate

job = AppGroup("job", help="Retry, cancel, discard, run again or delete jobs.")


def _add(action: Action[Any]) -> None:
    @job.command(
        action.short_name.replace("_", "-"),
        short_help=f"{action.title} jobs.",
        help=f"{action.title} the jobs with these IDS, at most 100. {action.risk}\n{_operate.EXITS}",
    )
    @click.argument("ids", nargs=-1, required=True, type=click.IntRange(min=1))
    @_operate.options
    def command(ids: tuple[int, ...], **options: Any) -> None:
        _operate.run_action(action.name, [f"job/{id}" for id in ids], **options)


for _action in ACTIONS.values():
    if _action.domain == "job":
        _add(_action)

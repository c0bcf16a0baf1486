"""Executes an operator's actions on jobs, each with a reason: `flask opsjobs job …`."""

from __future__ import annotations

from typing import Any

import click
from flask.cli import AppGroup

from ..actions.domain import Action
from ..actions.registry import actions_of
from . import _operate, number_of

job = AppGroup(
    "job",
    help="Retry, cancel, discard, edit or delete jobs. Reschedule or recall them, or run them again.",
)

_HELPS = {"args": "A JSON object of the arguments that change, of one job."}


def _add(action: Action[Any]) -> None:
    """Add the command of an action. Each of its parameters is an option, `due_at` is `--due-at`.

    Those of an edit may be left out: what they name stays as it is.
    """

    @click.argument("ids", nargs=-1, required=True, type=number_of("job"))
    @_operate.options
    def run(ids: tuple[int, ...], **options: Any) -> None:
        params = {param: options.pop(param) for param in action.params}
        _operate.run_action(action.name, [f"job/{id}" for id in ids], params=params, **options)

    for param in action.params:
        is_required = action.short_name != "edit"
        option = f"--{param.replace('_', '-')}"
        run = click.option(option, required=is_required, help=_HELPS.get(param))(run)
    job.command(
        action.short_name.replace("_", "-"),
        short_help=f"{action.title} jobs.",
        help=f"{action.title} the jobs with these IDS, at most 100. {action.risk}\n{_operate.EXITS}",
    )(run)


for _action in actions_of("job"):
    _add(_action)

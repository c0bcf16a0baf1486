"""Retries the failed members of batches, closes or cancels batches: `flask opsjobs batch …`."""

from __future__ import annotations

from typing import Any

import click
from flask.cli import AppGroup

from ..actions.domain import Action
from ..actions.registry import ACTIONS
from . import _operate, number_of

batch = AppGroup("batch", help="Retry the failed members of batches; close or cancel batches.")


def _add(action: Action[Any]) -> None:
    @batch.command(
        action.short_name,
        short_help=f"{action.title} batches.",
        help=f"{action.title} the batches with these IDS. {action.risk}\n{_operate.EXITS}",
    )
    @click.argument("ids", nargs=-1, required=True, type=number_of("batch"))
    @_operate.options
    def command(ids: tuple[int, ...], **options: Any) -> None:
        _operate.run_action(action.name, [f"batch/{id}" for id in ids], **options)


for _short_name in ("retry", "close", "cancel"):
    _add(ACTIONS[f"batch.{_short_name}"])

"""Removes orphan deliveries from Redis, with a reason: `flask opsjobs delivery …`."""

from __future__ import annotations

from typing import Any

import click
from flask.cli import AppGroup

from ..actions.registry import ACTIONS
from . import _operate

delivery = AppGroup("delivery", help="Remove deliveries from Redis that no job needs.")


@delivery.command(
    "remove",
    short_help="Remove orphan deliveries.",
    help="Remove the deliveries with these NAMES, such as opsjobs-42-3: their ids in Redis. "
    f"{ACTIONS['delivery.remove'].risk}\n{_operate.EXITS}",
)
@click.argument("names", nargs=-1, required=True)
@_operate.options
def remove(names: tuple[str, ...], **options: Any) -> None:
    """Remove deliveries."""
    _operate.run_action("delivery.remove", [f"delivery/{name}" for name in names], **options)

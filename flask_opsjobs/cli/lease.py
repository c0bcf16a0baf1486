"""Releases places in limiters that attempts have left taken, with a reason: `flask opsjobs lease …`."""

from __future__ import annotations

from typing import Any

import click
from flask.cli import AppGroup

from ..actions.registry import ACTIONS
from . import _operate

lease = AppGroup("lease", help="Release places in limiters whose attempts do not run.")


@lease.command(
    "release",
    short_help="Release leaked leases.",
    help="Release the leases with these NAMES, such as 42-3: the job and the dispatch number. "
    f"{ACTIONS['lease.release'].risk}\n{_operate.EXITS}",
)
@click.argument("names", nargs=-1, required=True)
@_operate.options
def release(names: tuple[str, ...], **options: Any) -> None:
    """Release leases."""
    _operate.run_action("lease.release", [f"lease/{name}" for name in names], **options)

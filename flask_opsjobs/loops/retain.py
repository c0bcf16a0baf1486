"""Runs the retain loop: it deletes what has been kept long enough."""

from __future__ import annotations

from ..lifeline.retention import BATCH, retain
from .shape import IDLE, Loop, Pass, every


def run(context: Pass) -> str:
    """Remove one batch."""
    removed = retain(context.connection, context.host.settings, context.now)
    if sum(removed.values()) >= BATCH:
        context.again()
    said = [f"{number} {what}" for what, number in removed.items() if number]
    return f"removed {', '.join(said)}" if said else IDLE


LOOP = Loop("retain", every(60), run, is_alone=True)

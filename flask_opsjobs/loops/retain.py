"""Runs the retain loop: it deletes rows that are older than their retention time."""

from __future__ import annotations

from ..lifeline.retention import BATCH, retain
from .loop import IDLE, Loop, Pass, every


def run(context: Pass) -> str:
    """Remove one batch."""
    removed = retain(context.connection, context.host.settings, context.now)
    if sum(removed.values()) >= BATCH:
        context.again()
    counts = [f"{number} {what}" for what, number in removed.items() if number]
    return f"removed {', '.join(counts)}" if counts else IDLE


LOOP = Loop("retain", every(60), run, is_alone=True)

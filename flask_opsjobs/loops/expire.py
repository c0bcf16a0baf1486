"""Runs the expire loop: it ends jobs whose deadline passed before they started."""

from __future__ import annotations

from .. import endings
from ..core.words import counted
from .loop import IDLE, Loop, Pass, every

_BATCH = 1_000


def run(context: Pass) -> str:
    """End one batch of overdue jobs."""
    expired = endings.expire(context.connection, context.now, limit=_BATCH)
    if len(expired) >= _BATCH:
        context.again()
    return f"{counted(len(expired), 'job')} missed the deadline" if expired else IDLE


LOOP = Loop("expire", every(2), run, is_alone=True)

"""Runs the stage loop: it makes scheduled and retryable jobs available when they are due."""

from __future__ import annotations

from ..core.words import counted
from ..engine.dispatch.dispatch import STAGE_BATCH, Refill, stage
from .loop import IDLE, Loop, Pass, every


def run(context: Pass) -> str:
    """Stage one batch of due jobs, then dispatch their lanes.

    While Redis is away it dispatches nothing: the dispatch loop does it, and says so.
    """
    host = context.host
    staged = stage(context.connection, context.now)
    if not staged:
        return IDLE
    total = sum(staged.values())
    if total >= STAGE_BATCH:
        context.again()
    refill: Refill = context.memory.setdefault("refill", Refill(host))
    refill.dispatch(context.connection, staged, context.now)
    return f"{counted(total, 'job')} became due"


LOOP = Loop("stage", every(1), run, is_alone=False)

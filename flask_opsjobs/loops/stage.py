"""Runs the stage loop: it makes scheduled and retryable jobs available when they are due."""

from __future__ import annotations

from ..core.words import counted
from ..engine.dispatch.dispatch import STAGE_BATCH, dispatch_staged, stage
from ..engine.redis.broker import broker_of
from ..engine.redis.reads import answering
from .loop import IDLE, Loop, Pass, every


def run(context: Pass) -> str:
    """Stage one batch of due jobs, then dispatch their lanes."""
    host = context.host
    staged = stage(context.connection, context.now)
    if not staged:
        return IDLE
    total = sum(staged.values())
    if total >= STAGE_BATCH:
        context.again()
    with answering():
        dispatch_staged(context.connection, broker_of(host), host.settings, staged, context.now)
    return f"{counted(total, 'job')} became due"


LOOP = Loop("stage", every(1), run, is_alone=False)

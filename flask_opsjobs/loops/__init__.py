"""Runs the background loops: one module for each loop, and the process that runs them all."""

from . import (
    adopt,
    advance,
    check_integrity,
    cron,
    detect,
    dispatch,
    escalate,
    expire,
    fold,
    observe,
    operate,
    recall,
    retain,
    roll_up,
    stage,
    verify_audit,
    watch,
)
from .loop import Loop, Pass

LOOPS: tuple[Loop, ...] = (
    dispatch.LOOP,
    stage.LOOP,
    advance.LOOP,
    fold.LOOP,
    cron.LOOP,
    expire.LOOP,
    operate.LOOP,
    watch.LOOP,
    recall.LOOP,
    observe.LOOP,
    adopt.LOOP,
    roll_up.LOOP,
    check_integrity.LOOP,
    detect.LOOP,
    escalate.LOOP,
    retain.LOOP,
    verify_audit.LOOP,
)

__all__ = ["LOOPS", "Loop", "Pass"]

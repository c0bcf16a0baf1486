"""Runs the background loops: one module for each loop, and the process that runs them all."""

from . import (
    advance,
    check_integrity,
    cron,
    dispatch,
    expire,
    fold,
    observe,
    recall,
    retain,
    roll_up,
    stage,
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
    watch.LOOP,
    recall.LOOP,
    observe.LOOP,
    roll_up.LOOP,
    check_integrity.LOOP,
    retain.LOOP,
)

__all__ = ["LOOPS", "Loop", "Pass"]

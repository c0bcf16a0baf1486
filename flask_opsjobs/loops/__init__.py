"""The background loops: one module for each, and the process that runs them all."""

from . import cron, dispatch, expire, keep_books, observe, recall, retain, roll_up, stage, watch
from .shape import Loop, Pass

LOOPS: tuple[Loop, ...] = (
    dispatch.LOOP,
    stage.LOOP,
    cron.LOOP,
    expire.LOOP,
    watch.LOOP,
    recall.LOOP,
    observe.LOOP,
    roll_up.LOOP,
    keep_books.LOOP,
    retain.LOOP,
)

__all__ = ["LOOPS", "Loop", "Pass"]

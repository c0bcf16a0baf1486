"""Runs the observe loop: it records plain `rq worker` processes, and marks expired ones as missing."""

from __future__ import annotations

import logging
from functools import partial

from .. import signals
from ..engine.reconcile.observe import observe
from ..engine.redis.broker import broker_of
from ..engine.redis.reads import answering
from .loop import IDLE, Loop, Pass, every

_log = logging.getLogger("flask_opsjobs.lifeline")


def run(context: Pass) -> str:
    """Record RQ's workers once. The watch loop rescues the jobs of missing ones."""
    host = context.host
    with answering():
        _, vanished = observe(
            context.connection, broker_of(host), context.queue_names(), context.now
        )
    for name in vanished:
        _log.warning("RQ worker %s is missing", name)
        send = partial(signals.send, signals.worker_missing, host, worker=name)
        context.after_commit(send)
    return ", ".join(f"{name} is missing" for name in vanished) or IDLE


LOOP = Loop("observe", every(10), run, is_alone=False)

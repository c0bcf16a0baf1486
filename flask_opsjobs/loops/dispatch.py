"""Runs the dispatch loop: it dispatches due jobs not dispatched after a commit or by a worker."""

from __future__ import annotations

import time

from ..core.words import counted
from ..engine.dispatch.dispatch import Dispatcher
from ..engine.redis.broker import broker_of
from ..engine.redis.reads import answering, ping
from .loop import IDLE, Loop, Pass, every

# While lanes wait for tokens, the next pass is made when a token comes, but not sooner than after this time.
_SHORTEST_SECONDS = 0.1
# These extra passes may take at most this share of the loop's time.
_MOST_SHARE = 0.25


def run(context: Pass) -> str:
    """Dispatch every lane that has due jobs and room in its prefetch and its bucket.

    Takes no lock, because commits of the host and flushes of workers dispatch the same lanes at the same time
    anyway.
    """
    host, began = context.host, time.monotonic()
    with answering():
        # While Redis is away no job is dispatched, because every job would have to be recalled.
        if context.memory.get("is_away"):
            ping(broker_of(host), context.queue_names())
        context.memory["is_away"] = True
        dispatcher = Dispatcher(context.connection, broker_of(host), host.settings)
        dispatched = dispatcher.dispatch_all(context.now)
        context.memory["is_away"] = False
    if dispatcher.next_seconds is not None:
        took = time.monotonic() - began
        context.sooner(max(_SHORTEST_SECONDS, dispatcher.next_seconds, took / _MOST_SHARE))
    return f"dispatched {counted(dispatched, 'job')}" if dispatched else IDLE


LOOP = Loop("dispatch", every(1), run, is_alone=False)

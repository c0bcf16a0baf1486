"""Runs the dispatch loop: it dispatches due jobs not dispatched after a commit or by a worker."""

from __future__ import annotations

import time

from ..core.words import counted
from ..engine.dispatch.dispatch import Dispatcher
from ..engine.dispatch.limits import list_due
from ..engine.redis.broker import broker_of
from ..engine.redis.connections import by_redis, redis_name_of
from ..engine.redis.reads import answering
from ..errors import EngineUnavailable
from .loop import IDLE, Loop, Pass, every

# While lanes wait for tokens, the next pass is made when a token comes, but not sooner than after this time.
_SHORTEST_SECONDS = 0.1
# These extra passes may take at most this share of the loop's time.
_MOST_SHARE = 0.25


def run(context: Pass) -> str:
    """Dispatch every lane that has due jobs and room in its prefetch and its bucket.

    Takes no lock, because commits of the host and flushes of workers dispatch the same lanes at the same time
    anyway. While the Redis of some queues is away, the others are dispatched.
    """
    broker, began = broker_of(context.host), time.monotonic()
    # The Redis servers that did not answer the pass before: by name, a queue of each.
    away: dict[str, str] = context.memory.setdefault("away", {})
    lanes = list_due(context.connection)
    names = dict.fromkeys([*(due.queue for due in lanes), *away.values()])
    dispatched = 0
    tokens_in: list[float] = []
    failure: EngineUnavailable | None = None
    for queues in by_redis(broker.queue(name, quick=True) for name in names):
        redis, its_names = queues[0].connection, {queue.name for queue in queues}
        dispatcher = Dispatcher(context.connection, broker, context.host.settings)
        try:
            with answering():
                # A Redis that is away gets no jobs, because every job would have to be recalled.
                if redis_name_of(redis) in away:
                    redis.ping()
                its_lanes = [due for due in lanes if due.queue in its_names]
                dispatched += dispatcher.dispatch_lanes(its_lanes, context.now)
            away.pop(redis_name_of(redis), None)
        except EngineUnavailable as error:
            failure = error
            away[redis_name_of(redis)] = queues[0].name
        tokens_in += [] if dispatcher.next_seconds is None else [dispatcher.next_seconds]
    if tokens_in:
        took = time.monotonic() - began
        context.sooner(max(_SHORTEST_SECONDS, min(tokens_in), took / _MOST_SHARE))
    if failure is not None:
        raise failure
    return f"dispatched {counted(dispatched, 'job')}" if dispatched else IDLE


LOOP = Loop("dispatch", every(1), run, is_alone=False)

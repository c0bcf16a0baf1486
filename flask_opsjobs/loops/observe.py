"""Runs the observe loop: it records plain `rq worker` processes, and marks expired ones as missing."""

from __future__ import annotations

import logging
from functools import partial

from .. import signals
from ..engine.adopted.places import list_places
from ..engine.reconcile.observe import observe
from ..engine.reconcile.redis_lost import (
    find_loss,
    identify_redis,
    keep_identities,
    list_identities,
)
from ..engine.redis.broker import broker_of
from ..engine.redis.reads import answering
from ..errors import EngineUnavailable
from ..jobs.perform.describe_error import one_line
from ..lifeline import incidents
from ..lifeline.detectors import redis_lost
from ..lifeline.finding import DetectorPass
from .loop import IDLE, Loop, Pass, every

_log = logging.getLogger("flask_opsjobs.lifeline")


def run(context: Pass) -> str:
    """Record RQ's workers once, and see whether a Redis has lost what it held.

    The watch loop rescues the jobs of missing workers.
    """
    host = context.host
    _report_lost_redis(context)
    with answering():
        _, vanished = observe(
            context.connection, broker_of(host), context.queue_names(), context.now
        )
    for name in vanished:
        _log.warning("RQ worker %s is missing", name)
        send = partial(signals.send, signals.worker_missing, host, worker=name)
        context.after_commit(send)
    return ", ".join(f"{name} is missing" for name in vanished) or IDLE


def _report_lost_redis(context: Pass) -> None:
    """Compare each Redis with what it was in the last pass of any process, also when it was away since then.

    What it was before is read before Redis is asked, so it is never newer than the answer.
    """
    known, seen = list_identities(context.connection), {}
    found, is_complete = [], not context.was_asleep
    for place in list_places(context.host, context.queue_names()):
        try:
            with answering():
                now = seen[place.name] = identify_redis(place.redis)
        except EngineUnavailable:
            is_complete = False
            continue
        except Exception as error:  # such as an address that is none: the others are looked at
            context.fail(f"Redis {place.name} cannot be asked: {one_line(error)}", error)
            is_complete = False
            continue
        if (before := known.get(place.name)) is None:
            continue
        why = find_loss(before, now, was_asleep=context.was_asleep)
        if why is not None:
            found.append(redis_lost.find_lost_redis(place.name, why))
    with context.connection.transaction():
        keep_identities(context.connection, seen, context.now)
        applied = incidents.apply_pass(
            context.connection, "redis_lost", DetectorPass(found, is_complete), context.now
        )
    incidents.announce(context.host, applied)


LOOP = Loop("observe", every(10), run, is_alone=False)

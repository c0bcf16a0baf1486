"""Applies the effects of an operator's action in Redis after its commit. The loops repair what fails here."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from redis import RedisError

from ...actions.effects import Dispatch, Effect, Forget, Recall, RequestHeartbeat
from ...core.db import Connection
from ...host import Host
from ...jobs.commit_notes import DueLane
from ..reconcile.recall import recall_paused
from ..reconcile.remove_deliveries import remove_deliveries
from ..redis.broker import broker_of, request_heartbeat

_log = logging.getLogger("flask_opsjobs")


def run_effects(host: Host, connection: Connection, effects: Iterable[Effect]) -> list[str]:
    """Run the effects.

    For each one that failed, return a sentence that says what happens instead. Never raises.

    `connection` is in autocommit. An operator waits for the answer, so a call to Redis takes at most 0.2 s,
    and after the first call without an answer the remaining effects are not tried.
    """
    failed: dict[str, None] = {}
    is_away = False
    for effect in effects:
        if not is_away:
            try:
                _run(host, connection, effect)
                continue
            except RedisError as error:
                is_away = True
                _log.warning("Redis did not answer (%s) after an action", type(error).__name__)
            except Exception:
                _log.exception("an effect of an action failed: %r", effect)
        failed[effect.otherwise] = None
    return list(failed)


def _run(host: Host, connection: Connection, effect: Effect) -> None:
    match effect:
        case Dispatch(lanes):
            # The dispatcher is None under TESTING and without OPSJOBS_DISPATCH: the loop dispatches then.
            # It logs by itself when Redis does not answer.
            if host.dispatcher is not None:
                host.dispatcher.push([DueLane(*lane) for lane in lanes])
        case Recall(queue):
            remove_deliveries(broker_of(host), recall_paused(connection, queue), quick=True)
        case Forget(deliveries):
            remove_deliveries(broker_of(host), deliveries, quick=True)
        case RequestHeartbeat(queue, worker):
            request_heartbeat(broker_of(host), queue, worker)

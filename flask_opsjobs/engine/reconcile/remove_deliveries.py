"""Removes outdated deliveries from RQ, including those that RQ considers running."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter

from redis import RedisError
from rq import Queue
from rq.executions import Execution, ExecutionRegistry
from rq.registry import StartedJobRegistry

from ..redis.broker import Broker, rq_id
from ..redis.reads import read_running

_log = logging.getLogger("flask_opsjobs.lifeline")


def remove_deliveries(
    broker: Broker, deliveries: Iterable[tuple[str, int, int]], *, quick: bool = False
) -> None:
    """Remove deliveries (queue, id, dispatch_no) and all that RQ stores about them. Raises `RedisError`.

    Otherwise RQ would later report the delivery of a rescued job as abandoned, and its hash would stay for
    ever. A live worker may still run such a job; its outcome is then rejected by the fence. `quick` limits
    each call to 0.2 s, for a request or an operator.
    """
    for name, group in groupby(sorted(deliveries), key=itemgetter(0)):
        queue = broker.queue(name, quick=quick)
        rq_ids = {rq_id(job_id, number) for _, job_id, number in group}
        _forget_running(queue, rq_ids)
        broker.forget(name, rq_ids, quick=quick)


def try_remove_deliveries(broker: Broker, deliveries: Iterable[tuple[str, int, int]]) -> None:
    """Call `remove_deliveries`, but only log when Redis does not answer: the deliveries are orphans then."""
    try:
        remove_deliveries(broker, deliveries)
    except RedisError as error:
        _log.info("old deliveries stay in Redis for now (%s)", type(error).__name__)


def _forget_running(queue: Queue, rq_ids: set[str]) -> None:
    registry = queue.started_job_registry.key
    entries = read_running(queue)
    with queue.connection.pipeline() as pipe:
        for entry in entries:
            of_job = StartedJobRegistry.parse_job_id(entry)
            if of_job in rq_ids:
                execution = Execution.from_composite_key(entry, queue.connection)
                pipe.zrem(registry, entry)
                pipe.delete(execution.key)
        for of_job in rq_ids:
            pipe.delete(ExecutionRegistry(of_job, queue.connection).key)
        pipe.execute()

"""Records the plain `rq worker` processes that RQ lists in Redis, as workers of kind `plain`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from redis import RedisError
from rq.defaults import DEFAULT_WORKER_TTL

from ...core import sql
from ...core.db import Connection
from ..redis.broker import Broker
from ..redis.reads import RQWorker, one_queue_per_redis, read_workers

# RQ keeps a worker's key this much longer than the worker's TTL.
_RQ_GRACE_SECONDS = 60


def observe(
    connection: Connection, broker: Broker, queues: Iterable[str], now: datetime
) -> tuple[int, list[str]]:
    """Record the plain workers in the Redis of these queues; return (how many, names of those that vanished).

    A worker has vanished when RQ's key of it has expired. The age of `last_heartbeat` does not count: an idle
    worker sends a heartbeat each 405 s, and a busy SimpleWorker sends none. Commits. Raises `RedisError` when
    any Redis does not answer; then the workers in the others are recorded, and none is marked as missing.
    """
    known = [name for (name,) in connection.execute(sql.load("list_plain_workers"), {"now": now})]
    seen: dict[str, RQWorker] = {}
    errors: list[RedisError] = []
    for queue in one_queue_per_redis(broker, queues):
        try:
            seen |= {worker.name: worker for worker in read_workers(queue.connection, known)}
        except RedisError as error:
            errors.append(error)
    if seen:
        connection.execute(sql.load("observe_plain_workers"), _columns(seen.values(), now))
    if errors:
        raise errors[0]
    parameters = {
        "seen": list(seen),
        "now": now,
        "default_ttl_seconds": DEFAULT_WORKER_TTL + _RQ_GRACE_SECONDS,
    }
    gone = connection.execute(sql.load("end_plain_workers"), parameters).fetchall()
    return len(seen), sorted(name for (name,) in gone)


def _columns(workers: Iterable[RQWorker], now: datetime) -> dict[str, object]:
    all_of_them = list(workers)
    return {
        "names": [worker.name for worker in all_of_them],
        "hosts": [worker.host for worker in all_of_them],
        "pids": [worker.pid for worker in all_of_them],
        "versions": [worker.version for worker in all_of_them],
        "queues": [",".join(worker.queues) for worker in all_of_them],
        "ttls": [worker.ttl_seconds for worker in all_of_them],
        "left": [worker.has_left for worker in all_of_them],
        "finished": [worker.jobs_finished for worker in all_of_them],
        "failed": [worker.jobs_failed for worker in all_of_them],
        "seconds": [worker.work_seconds for worker in all_of_them],
        "now": now,
    }

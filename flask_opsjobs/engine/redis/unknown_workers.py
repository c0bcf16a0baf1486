"""Tells of which plain RQ workers nobody knows whether they live, wherever workers are listed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...core.redis_facts import UnreachableRedis
from ...host import Host
from ...workers.queries import WorkerRow
from .broker import broker_of
from .connections import OWN, find_unreachable


def find_unknown(workers: Sequence[WorkerRow], host: Host) -> Sequence[WorkerRow]:
    """Return the workers as `mark_unknown` does, after asking the Redis of the plain ones.

    Call it outside a transaction, so that no database connection waits for Redis.
    """
    names = {name for worker in workers if worker.kind == "plain" for name in _queues_of(worker)}
    return mark_unknown(workers, find_unreachable(broker_of(host).connections, names))


def mark_unknown(
    workers: Sequence[WorkerRow], unreachable: Sequence[UnreachableRedis]
) -> Sequence[WorkerRow]:
    """Return the workers; plain ones of a Redis that is silent are `not known`: only it could tell.

    One that went missing before stays so.
    """
    since = {name: one.since for one in unreachable for name in one.queues}
    marked = []
    for worker in workers:
        silent = [since[name] for name in _queues_of(worker) if name in since]
        if worker.kind == "plain" and worker.state != "missing" and silent:
            worker = replace(worker, state="not known", is_alive=False, silent_since=silent[0])
        marked.append(worker)
    return marked


def _queues_of(worker: WorkerRow) -> Sequence[str]:
    # Until `observe` has seen it, its queues are not known.
    return worker.queues or (OWN,)

"""Tells of which plain RQ workers nobody knows whether they live, for all pages that show workers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from ...engine.redis.broker import broker_of
from ...engine.redis.connections import find_unreachable
from ...workers.queries import WorkerRow
from ..app.host import host


def find_unknown(workers: Iterable[WorkerRow]) -> Mapping[int, datetime]:
    """Return since when it is not known whether each of these lives: only its Redis tells, and is silent.

    By the id of the worker; only plain ones that are alive or late. Call it outside a transaction, so that no
    database connection waits for Redis.
    """
    plain = [one for one in workers if one.kind == "plain" and one.state != "missing"]
    names = {name for worker in plain for name in worker.queues}
    unreachable = find_unreachable(broker_of(host()).connections, names)
    since = {name: one.since for one in unreachable for name in one.queues}
    return {worker.id: since[name] for worker in plain for name in worker.queues if name in since}

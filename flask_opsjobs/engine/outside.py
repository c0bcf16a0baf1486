"""What lies in RQ and is not ours: jobs that host code enqueued itself. They are counted and named, never unpickled."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from redis import RedisError
from rq import Queue
from rq.job import Job as RQJob
from rq.registry import StartedJobRegistry
from rq.suspension import WORKERS_SUSPENDED

from ..facts import OutsideFacts, OutsideJob
from .broker import Broker, is_ours
from .read_only import read_only_queue
from .redis_reads import by_redis

# Of each list and registry so many are read, of so many queues: what a page asks costs the same whatever lies there.
_MOST_IDS = 500
_MOST_QUEUES = 50
_EXAMPLES = 3
# The failed ones first: they are what somebody may have to look after.
_STATUSES = ("failed", "started", "queued", "deferred", "scheduled")


def read_outside(broker: Broker, queues: Iterable[str], now: datetime) -> OutsideFacts:
    """What lies in these queues and is not ours. Never raises: when Redis is away it says so, and soon."""
    try:
        return _read(broker, sorted(queues), now)
    except RedisError as error:
        return OutsideFacts(now, said=f"Redis does not answer ({type(error).__name__})")


def _read(broker: Broker, names: list[str], now: datetime) -> OutsideFacts:
    by_status = dict.fromkeys(_STATUSES, 0)
    is_cut, is_suspended = len(names) > _MOST_QUEUES, False
    examples: list[tuple[Queue, OutsideJob]] = []
    asked = (read_only_queue(broker, name) for name in names[:_MOST_QUEUES])
    for queues in by_redis(asked):
        with queues[0].connection.pipeline(transaction=False) as pipe:
            pipe.exists(WORKERS_SUSPENDED)
            for queue in queues:
                _ask(pipe, queue)
            answers = iter(pipe.execute())
        is_suspended |= bool(next(answers))
        for queue in queues:
            for status in _STATUSES:
                ids = next(answers)
                is_cut |= len(ids) == _MOST_IDS
                outside = [rq_id for one in ids if not is_ours(rq_id := _id(one, status))]
                by_status[status] += len(outside)
                few = outside[:_EXAMPLES]
                examples += [
                    (queue, OutsideJob(rq_id, queue.name, status, None, None)) for rq_id in few
                ]
    examples.sort(key=lambda pair: _STATUSES.index(pair[1].status))
    told = _tell(examples[:_EXAMPLES])
    counted = {status: number for status, number in by_status.items() if number}
    return OutsideFacts(now, None, counted, is_cut, told, is_suspended)


def _ask(pipe: Any, queue: Queue) -> None:
    """Ask for the ids by status, in the order of `_STATUSES`."""
    pipe.zrevrange(queue.failed_job_registry.key, 0, _MOST_IDS - 1)
    pipe.zrange(queue.started_job_registry.key, 0, _MOST_IDS - 1)
    pipe.lrange(queue.key, 0, _MOST_IDS - 1)
    pipe.zrange(queue.deferred_job_registry.key, 0, _MOST_IDS - 1)
    pipe.zrange(queue.scheduled_job_registry.key, 0, _MOST_IDS - 1)


def _id(raw: Any, status: str) -> str:
    text = raw.decode(errors="replace") if isinstance(raw, bytes) else str(raw)
    return StartedJobRegistry.parse_job_id(text) if status == "started" else text


def _tell(examples: list[tuple[Queue, OutsideJob]]) -> list[OutsideJob]:
    """The examples with what RQ noted of them, one round trip each."""
    told = []
    for queue, job in examples:
        noted: Any = queue.connection.hmget(
            RQJob.key_for(job.rq_id), "description", "ended_at", "created_at"
        )
        description, ended_at, created_at = (_text(value) for value in noted)
        # RQ describes a job as the whole call: what is before the parenthesis is the function.
        function = description.partition("(")[0] if description else None
        told.append(replace(job, function=function, moment=_moment(ended_at or created_at)))
    return told


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)

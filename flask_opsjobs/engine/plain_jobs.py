"""Counts and lists plain RQ jobs as Redis has them now. Never unpickles them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from redis import RedisError
from redis.client import Pipeline
from rq import Queue
from rq.job import Job as RQJob
from rq.registry import StartedJobRegistry
from rq.suspension import WORKERS_SUSPENDED

from ..core.redis_facts import PlainJob, PlainJobs
from .redis.broker import Broker, is_ours
from .redis.connections import by_redis, read_only_queue
from .redis.reads import read_time

# Read at most 500 ids of each list or registry, in at most 50 queues: this bounds the cost of a page.
_MOST_IDS = 500
_MOST_QUEUES = 50
_EXAMPLES = 3
# Failed jobs come first, because somebody may have to act on them.
_STATUSES = ("failed", "started", "queued", "deferred", "scheduled")


def find_plain_jobs(broker: Broker, queues: Iterable[str], now: datetime) -> PlainJobs:
    """Return the plain jobs of these queues.

    Never raises: the answer names the queues whose Redis did not answer within 0.2 s.
    """
    names = sorted(queues)
    found: list[tuple[Queue, _Found]] = []
    unreachable: list[str] = []
    problem = None
    is_suspended = False
    for group in by_redis(
        read_only_queue(broker.connections, name) for name in names[:_MOST_QUEUES]
    ):
        try:
            jobs, is_suspended_here = _read(group)
        except RedisError as error:
            unreachable += [queue.name for queue in group]
            problem = f"Redis does not answer ({type(error).__name__})"
        else:
            found += jobs
            is_suspended |= is_suspended_here
    if problem is not None and not found:
        return PlainJobs(now, problem=problem, unreachable=unreachable)
    by_status = Counter[str]()
    for _, one in found:
        by_status[one.status] += len(one.rq_ids)
    return PlainJobs(
        now,
        by_status=+by_status,
        is_cut=len(names) > _MOST_QUEUES or any(one.is_cut for _, one in found),
        examples=_read_examples(found),
        is_suspended=is_suspended,
        unreachable=unreachable,
    )


@dataclass(frozen=True)
class _Found:
    """The ids of the plain jobs of one status in one queue. `is_cut`: there may be more."""

    status: str
    rq_ids: Sequence[str]
    is_cut: bool


def _read(queues: Sequence[Queue]) -> tuple[list[tuple[Queue, _Found]], bool]:
    """Return the plain jobs of these queues of one Redis, and whether its workers are suspended."""
    with queues[0].connection.pipeline(transaction=False) as pipe:
        pipe.exists(WORKERS_SUSPENDED)
        for queue in queues:
            _ask(pipe, queue)
        is_suspended, *answers = pipe.execute()
    asked = [(queue, status) for queue in queues for status in _STATUSES]
    found = []
    for (queue, status), ids in zip(asked, answers, strict=True):
        plain = [rq_id for one in ids if not is_ours(rq_id := _id(one, status))]
        found.append((queue, _Found(status, plain, len(ids) == _MOST_IDS)))
    return found, bool(is_suspended)


def _ask(pipe: Pipeline, queue: Queue) -> None:
    """Ask for the ids by status, in the order of `_STATUSES`."""
    pipe.zrevrange(queue.failed_job_registry.key, 0, _MOST_IDS - 1)
    pipe.zrange(queue.started_job_registry.key, 0, _MOST_IDS - 1)
    pipe.lrange(queue.key, 0, _MOST_IDS - 1)
    pipe.zrange(queue.deferred_job_registry.key, 0, _MOST_IDS - 1)
    pipe.zrange(queue.scheduled_job_registry.key, 0, _MOST_IDS - 1)


def _id(raw: Any, status: str) -> str:
    text = raw.decode(errors="replace") if isinstance(raw, bytes) else str(raw)
    return StartedJobRegistry.parse_job_id(text) if status == "started" else text


def _read_examples(found: Sequence[tuple[Queue, _Found]]) -> list[PlainJob]:
    """Read the function name of at most three jobs, one round trip each."""
    by_need = sorted(found, key=lambda pair: _STATUSES.index(pair[1].status))
    few = [(queue, one.status, rq_id) for queue, one in by_need for rq_id in one.rq_ids[:_EXAMPLES]]
    examples = []
    for queue, status, rq_id in few[:_EXAMPLES]:
        try:
            fields: Any = queue.connection.hmget(
                RQJob.key_for(rq_id), "description", "ended_at", "created_at"
            )
        except RedisError:
            break  # Redis has just stopped answering: the counts are known already
        description, ended_at, created_at = (_text(value) for value in fields)
        # RQ's description is the whole call: the function is the part before the parenthesis.
        function = description.partition("(")[0] if description else None
        examples.append(
            PlainJob(rq_id, queue.name, status, function, read_time(ended_at or created_at))
        )
    return examples


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")

"""Counts and names plain jobs: RQ jobs that host code enqueued itself, without a row of ours. Never unpickles them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from redis import RedisError
from rq import Queue
from rq.job import Job as RQJob
from rq.registry import StartedJobRegistry
from rq.suspension import WORKERS_SUSPENDED

from ..core.redis_facts import PlainJob, PlainJobs
from .redis.broker import Broker, is_ours
from .redis.read_only import read_only_queue
from .redis.reads import by_redis

# Of each list and registry so many are read, of so many queues: what a page asks costs the same whatever lies there.
_MOST_IDS = 500
_MOST_QUEUES = 50
_EXAMPLES = 3
# The failed ones first: they are what somebody may have to look after.
_STATUSES = ("failed", "started", "queued", "deferred", "scheduled")


def find_plain_jobs(broker: Broker, queues: Iterable[str], now: datetime) -> PlainJobs:
    """The plain jobs of these queues. Never raises: when a Redis is away the answer says so, within 0.2 s each."""
    names = sorted(queues)
    found: list[tuple[Queue, _Found]] = []
    silent: list[str] = []
    said = None
    is_suspended = False
    for group in by_redis(read_only_queue(broker, name) for name in names[:_MOST_QUEUES]):
        try:
            there, is_suspended_here = _read(group)
        except RedisError as error:
            silent += [queue.name for queue in group]
            said = f"Redis does not answer ({type(error).__name__})"
        else:
            found += there
            is_suspended |= is_suspended_here
    if said is not None and not found:
        return PlainJobs(now, said=said)
    by_status = Counter[str]()
    for _, one in found:
        by_status[one.status] += len(one.rq_ids)
    return PlainJobs(
        now,
        by_status=+by_status,
        is_cut=len(names) > _MOST_QUEUES or any(one.is_cut for _, one in found),
        examples=_tell(found),
        is_suspended=is_suspended,
        silent=silent,
    )


@dataclass(frozen=True)
class _Found:
    """The ids of the plain jobs of one status of a queue; `is_cut` when there may be more."""

    status: str
    rq_ids: Sequence[str]
    is_cut: bool


def _read(queues: Sequence[Queue]) -> tuple[list[tuple[Queue, _Found]], bool]:
    """The plain jobs of these queues of one Redis, and whether its workers are suspended."""
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


def _tell(found: Sequence[tuple[Queue, _Found]]) -> list[PlainJob]:
    """A few examples with what RQ noted of them, one round trip each."""
    by_need = sorted(found, key=lambda pair: _STATUSES.index(pair[1].status))
    few = [(queue, one.status, rq_id) for queue, one in by_need for rq_id in one.rq_ids[:_EXAMPLES]]
    told = []
    for queue, status, rq_id in few[:_EXAMPLES]:
        try:
            noted: Any = queue.connection.hmget(
                RQJob.key_for(rq_id), "description", "ended_at", "created_at"
            )
        except RedisError:
            break  # it fell silent just now: the numbers are known all the same
        description, ended_at, created_at = (_text(value) for value in noted)
        # RQ describes a job as the whole call: what is before the parenthesis is the function.
        function = description.partition("(")[0] if description else None
        told.append(PlainJob(rq_id, queue.name, status, function, _moment(ended_at or created_at)))
    return told


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)

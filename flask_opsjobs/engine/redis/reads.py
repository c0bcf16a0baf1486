"""Reads what RQ keeps in Redis: in pipelines, with a constant number of round trips. Unpickles nothing."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import MINYEAR, UTC, datetime
from typing import Any

from redis import Redis, RedisError, ResponseError
from redis.client import Pipeline
from rq import Queue, Worker
from rq.job import Job as RQJob
from rq.registry import StartedJobRegistry

from ...errors import EngineUnavailable
from ...jobs.record.json_storage import clean_text
from ...jobs.record.options import LAST_YEAR
from .broker import PREFIX, WORKER_FIELD, Broker, parse_rq_id
from .connections import by_redis

# A host's own jobs may fill a list without bound. Beyond this length, ids are looked up one by one.
_LONGEST_READ = 20_000
_SCAN_STEP = 1_000
# A longer name does not fit into the index of the table `workers`: Postgres would reject the whole statement.
_LONGEST_NAME = 500
_LONGEST_TTL_SECONDS = 365 * 86_400.0


@contextmanager
def answering() -> Iterator[None]:
    """Raise any Redis error of the block as `EngineUnavailable`, for callers that do not know Redis."""
    try:
        yield
    except RedisError as error:
        raise unavailable(error) from error


def unavailable(error: RedisError) -> EngineUnavailable:
    """Return this error as one for callers that do not know Redis."""
    return EngineUnavailable(f"Redis does not answer ({type(error).__name__})")


@dataclass(frozen=True)
class FoundDeliveries:
    """The RQ ids that are in a queue's list, in its intermediate list, and in RQ's started registry."""

    listed: frozenset[str]
    intermediate: frozenset[str]
    running: frozenset[str]

    def place_of(self, rq_id: str) -> str:
        """Where this id is: `listed`, `running`, `parked` or `nowhere`."""
        if rq_id in self.listed:
            return "listed"
        if rq_id in self.running:
            return "running"
        return "parked" if rq_id in self.intermediate else "nowhere"


def find_deliveries(queue: Queue, rq_ids: Collection[str], now: datetime) -> FoundDeliveries:
    """Return which ids are in the queue's list, in its intermediate list, or in RQ's started registry.

    Expired entries of the registry are ignored: they belong to dead workers.
    """
    with queue.connection.pipeline(transaction=False) as pipe:
        _ask(pipe, queue, now)
        length, *entries = pipe.execute()
    found = _found(*entries)
    if length > _LONGEST_READ:
        rest = [rq_id for rq_id in rq_ids if rq_id not in found.listed]
        return replace(found, listed=found.listed | _find_in_list(queue, rest))
    return found


def find_deliveries_of_queues(
    queues: Sequence[Queue], wanted: Mapping[str, Collection[str]], now: datetime
) -> dict[str, FoundDeliveries]:
    """Return `find_deliveries` of these queues, which are in one Redis, by queue name, in one round trip.

    `wanted` holds the ids to look for, by queue name. A list that is too long to read costs one more round
    trip, in which the ids are looked up one by one.
    """
    found = {}
    with queues[0].connection.pipeline(transaction=False) as pipe:
        for queue in queues:
            _ask(pipe, queue, now)
        answers = pipe.execute()
    for at, queue in enumerate(queues):
        length, *entries = answers[at * 4 : at * 4 + 4]
        found[queue.name] = (
            find_deliveries(queue, wanted[queue.name], now)
            if length > _LONGEST_READ
            else _found(*entries)
        )
    return found


def _ask(pipe: Pipeline, queue: Queue, now: datetime) -> None:
    # Read in the order in which a delivery moves, so that a moving delivery is seen at least once.
    pipe.llen(queue.key)
    pipe.lrange(queue.key, 0, _LONGEST_READ - 1)
    pipe.lrange(queue.intermediate_queue_key, 0, -1)
    pipe.zrangebyscore(queue.started_job_registry.key, now.timestamp(), "+inf")


def _found(
    listed: Iterable[Any], intermediate: Iterable[Any], running: Iterable[Any]
) -> FoundDeliveries:
    return FoundDeliveries(
        listed=frozenset(_text(item) for item in listed),
        intermediate=frozenset(_text(item) for item in intermediate),
        running=frozenset(StartedJobRegistry.parse_job_id(_text(item)) for item in running),
    )


def _find_in_list(queue: Queue, rq_ids: list[str]) -> set[str]:
    with queue.connection.pipeline(transaction=False) as pipe:
        for rq_id in rq_ids:
            pipe.lpos(queue.key, rq_id)
        positions = pipe.execute()
    return {rq_id for rq_id, at in zip(rq_ids, positions, strict=True) if at is not None}


def read_ids(queue: Queue) -> set[str]:
    """Return the ids in a queue's list, in its intermediate list and in RQ's started registry."""
    redis, ids = queue.connection, set(read_running(queue))
    found = {StartedJobRegistry.parse_job_id(entry) for entry in ids}
    for key in (queue.key, queue.intermediate_queue_key):
        start = 0
        while page := redis.lrange(key, start, start + _LONGEST_READ - 1):
            found |= {_text(rq_id) for rq_id in page}
            start += len(page)
    return found


def read_running(queue: Queue) -> list[str]:
    """Return the entries of a queue's started registry, `rq_id:execution_id`, including expired ones."""
    return [
        _text(entry) for entry in queue.connection.zrange(queue.started_job_registry.key, 0, -1)
    ]


def read_failed(queue: Queue, most: int) -> set[str]:
    """Return the newest ids in a queue's failed registry, at most so many."""
    found = queue.connection.zrange(queue.failed_job_registry.key, 0, most - 1, desc=True)
    return {_text(rq_id) for rq_id in found}


@dataclass(frozen=True)
class Hash:
    """RQ's record of a delivery: its status, its queue, and whether its key expires by itself."""

    status: str | None
    queue: str | None
    expires: bool


def read_hashes(redis: Redis, rq_ids: Iterable[str]) -> dict[str, Hash]:
    """Return RQ's hashes of these ids; ids without a hash are left out."""
    ids = list(rq_ids)
    if not ids:
        return {}
    with redis.pipeline(transaction=False) as pipe:
        for rq_id in ids:
            pipe.hmget(RQJob.key_for(rq_id), "status", "origin")
            pipe.pttl(RQJob.key_for(rq_id))
        answers = pipe.execute()
    found = {}
    for rq_id, (status, origin), ttl in zip(ids, answers[::2], answers[1::2], strict=True):
        if ttl != -2:
            found[rq_id] = Hash(_optional(status), _optional(origin), expires=ttl >= 0)
    return found


def scan_deliveries(redis: Redis, cursor: int) -> tuple[int, list[str]]:
    """Scan one step of all keys; return the next cursor (0 at the end) and the RQ ids of our deliveries."""
    start = RQJob.key_for("")
    # Escapes characters of the prefix that have a meaning in a pattern.
    pattern = "".join(f"\\{c}" if c in "*?[]^\\" else c for c in start + PREFIX) + "*"
    answer: Any = redis.scan(cursor, match=pattern, count=_SCAN_STEP)
    keys = [_text(key)[len(start) :] for key in answer[1]]
    return int(answer[0]), [rq_id for rq_id in keys if parse_rq_id(rq_id) is not None]


@dataclass(frozen=True)
class RQWorker:
    """An RQ worker as its hash in Redis describes it; RQ considers it dead after `ttl_seconds`."""

    name: str
    queues: list[str] = field(default_factory=list)
    pid: int = 0
    host: str = ""
    version: str | None = None
    has_left: bool = False
    ttl_seconds: float = 0.0
    # The jobs that ended in it, and the time that they took, as RQ counts them.
    jobs_finished: int = 0
    jobs_failed: int = 0
    work_seconds: float = 0.0


_WORKER_FIELDS = (
    *("queues", "pid", "hostname", "version", "death"),
    *("successful_job_count", "failed_job_count", "total_working_time"),
)


def read_workers(redis: Redis, known: Iterable[str] = ()) -> list[RQWorker]:
    """Return the plain workers that RQ lists, and those of the `known` names that still have a hash.

    After a flush of Redis a worker goes on and writes its hash again, but RQ lists it no more: hence `known`.
    Any client of Redis can write anything into a hash, so values that Postgres cannot store are left out or
    replaced.
    """
    start = Worker.redis_worker_namespace_prefix
    members: Any = redis.smembers(Worker.redis_workers_keys)
    listed = {_text(key).removeprefix(start) for key in members}
    names = sorted(name for name in listed | set(known) if len(name) <= _LONGEST_NAME)
    with redis.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.hmget(start + name, *_WORKER_FIELDS, WORKER_FIELD)
            pipe.pttl(start + name)
        answers = pipe.execute(raise_on_error=False)
    pairs = zip(names, answers[::2], answers[1::2], strict=True)
    return [
        _worker(name, values[:-1], ttl)
        for name, values, ttl in pairs
        if _is_hash(values) and ttl != -2 and values[-1] is None
    ]


def _is_hash(answer: Any) -> bool:
    """Return whether the key is a hash, as RQ writes it. Raises errors that concern more than this key."""
    if not isinstance(answer, Exception):
        return True
    if isinstance(answer, ResponseError) and str(answer).startswith("WRONGTYPE"):
        return False
    raise answer


def _worker(name: str, values: list[Any], ttl: int) -> RQWorker:
    found = dict(zip(_WORKER_FIELDS, map(_optional, values), strict=True))
    queues, pid = found["queues"], found["pid"]
    return RQWorker(
        name=name,
        queues=[queue for queue in (queues or "").split(",") if queue],
        pid=int(pid) if pid and pid.isdecimal() and len(pid) < 10 else 0,
        host=found["hostname"] or "",
        version=found["version"],
        has_left=found["death"] is not None,
        ttl_seconds=min(max(ttl, 0) / 1000, _LONGEST_TTL_SECONDS),
        jobs_finished=int(_number(found["successful_job_count"])),
        jobs_failed=int(_number(found["failed_job_count"])),
        work_seconds=_number(found["total_working_time"]),
    )


def _number(text: str | None) -> float:
    """Return a count or a number of seconds; 0 for anything else."""
    is_number = text is not None and re.fullmatch(r"\d{1,15}(\.\d{1,30})?", text, re.ASCII)
    return float(text) if text is not None and is_number else 0.0


def one_queue_per_redis(broker: Broker, names: Iterable[str]) -> list[Queue]:
    """Return one queue for each Redis that these queues live on, to read data that belongs to no queue."""
    return [queues[0] for queues in by_redis(map(broker.queue, names))]


def read_time(value: Any) -> datetime | None:
    """Return a time as RQ writes it, in UTC; None for anything else, also for the first and the last years.

    With another offset these are times that neither Python nor psycopg can hold.
    """
    try:
        found = datetime.fromisoformat(_text(value))
        found = (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return found if MINYEAR < found.year <= LAST_YEAR else None


def _text(value: Any) -> str:
    """Return the value as text that Postgres can store."""
    return clean_text(value.decode(errors="replace") if isinstance(value, bytes) else str(value))


def _optional(value: Any) -> str | None:
    return None if value is None else _text(value)

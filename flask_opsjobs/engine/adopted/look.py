"""Reads which plain jobs are in which structures of RQ: raw ids, in two round trips for each Redis.

Not through RQ's registries, because their reads write. Ids of managed deliveries are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from math import inf
from typing import Any

from redis import Redis, ResponseError
from redis.client import Pipeline
from rq import Queue
from rq.cron import get_cron_job_history_key
from rq.cron_job_registry import get_registry_key as cron_registry_key
from rq.job import Job as RQJob
from rq.rate_limit import RateLimitRegistry
from rq.registry import (
    BaseRegistry,
    CanceledJobRegistry,
    DeferredJobRegistry,
    FailedJobRegistry,
    FinishedJobRegistry,
    ReadyJobRegistry,
    ScheduledJobRegistry,
    StartedJobRegistry,
)

from ..redis.broker import PREFIX, parse_rq_id

# A structure with more ids is read in turns, so many in each look.
MOST_IDS = 20_000
# Of one Redis. A look names what it leaves out.
MOST_QUEUES = 1_000
_MOST_KEYS = 200
# The newest jobs of each entry of RQ's cron.
_CRON_JOBS = 100
_SCAN_STEP = 1_000
# Postgres cannot index a longer id.
LONGEST_ID = 1_000
_OURS = PREFIX.encode()

# In the order in which a job moves through them, so that a moving job is seen at least once.
_REGISTRIES: Mapping[str, type[BaseRegistry]] = {
    "deferred": DeferredJobRegistry,
    "ready": ReadyJobRegistry,
    "scheduled": ScheduledJobRegistry,
    "started": StartedJobRegistry,
    "failed": FailedJobRegistry,
    "finished": FinishedJobRegistry,
    "canceled": CanceledJobRegistry,
}


# In these a job may leave and come back between two looks.
_SCORED = ("scheduled", "failed", "finished", "canceled")


@dataclass(frozen=True)
class Structure:
    """One list or sorted set of RQ. `queue` is None for the jobs that a rate limit holds back."""

    kind: str
    queue: str | None
    key: str

    @property
    def is_list(self) -> bool:
        """Whether it is a list, and not a sorted set."""
        return self.kind in ("list", "intermediate")


@dataclass(frozen=True)
class Slice:
    """What one look read of a structure, from `start` on. `is_rest`: nothing follows."""

    ids: list[bytes]
    start: int
    is_rest: bool


@dataclass(frozen=True)
class Look:
    """What one Redis holds: by structure the ids, and what one step of a walk through all keys met.

    RQ gives each job of a registry a score, as a rule the time until which it is kept. `arrivals` are the
    jobs of a structure whose score is above its highest one of the look before, `tops` the highest of now.
    `cron` gives the name of the entry that enqueued a job. `left_out`: queues or keys beyond the bounds.
    """

    slices: Mapping[Structure, Slice]
    arrivals: Mapping[Structure, Sequence[bytes]]
    tops: Mapping[Structure, float]
    walked: Sequence[bytes]
    cursor: int
    cron: Mapping[bytes, str]
    left_out: int


@dataclass
class _Names:
    queues: list[str] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)
    cron: list[str] = field(default_factory=list)
    left_out: int = 0


def look(
    redis: Redis, starts: Mapping[Structure, int], tops: Mapping[Structure, float], cursor: int
) -> Look:
    """Read all structures, each from its place in `starts` or its beginning, and walk one step from `cursor`.

    `tops` are the highest scores of the look before.
    Raises `RedisError`. A key of another type than RQ's counts as empty.
    """
    names = _read_names(redis)
    structures = [structure for name in names.queues for structure in _structures_of(name)]
    structures += [_held_back(name) for name in names.limits]
    with redis.pipeline(transaction=False) as pipe:
        for structure in structures:
            _ask(pipe, structure, starts.get(structure, 0))
        scored = [structure for structure in structures if structure.kind in _SCORED]
        for structure in scored:
            pipe.zrange(structure.key, 0, 0, desc=True, withscores=True)
            top = tops.get(structure, inf)
            pipe.zrangebyscore(structure.key, f"({top}", "+inf", start=0, num=MOST_IDS)
        for name in names.cron:
            pipe.zrange(get_cron_job_history_key(name), 0, _CRON_JOBS - 1, desc=True)
        pipe.scan(cursor, match=_job_pattern(), count=_SCAN_STEP)
        *answers, (next_cursor, keys) = pipe.execute(raise_on_error=False)
    rest = iter(answers)
    of_structures = list(islice(rest, len(structures)))
    of_scored = list(islice(rest, 2 * len(scored)))
    of_cron = list(rest)
    prefix = len(RQJob.key_for(""))
    return Look(
        {
            structure: _slice(_ids(answer), starts.get(structure, 0))
            for structure, answer in zip(structures, of_structures, strict=True)
        },
        {
            structure: _plain(_ids(answer))
            for structure, answer in zip(scored, of_scored[1::2], strict=True)
        },
        {
            structure: float(answer[0][1])
            for structure, answer in zip(scored, of_scored[::2], strict=True)
            if isinstance(answer, list) and answer
        },
        _plain(key[prefix:] for key in keys),
        int(next_cursor),
        {
            rq_id: name
            for name, answer in zip(names.cron, of_cron, strict=True)
            for rq_id in _ids(answer)
        },
        names.left_out,
    )


def _read_names(redis: Redis) -> _Names:
    with redis.pipeline(transaction=False) as pipe:
        pipe.smembers(Queue.redis_queues_keys)
        pipe.smembers(RateLimitRegistry.rl_keys_key)
        pipe.zrange(cron_registry_key(), 0, -1)
        queues, limits, cron = (_texts(answer) for answer in pipe.execute(raise_on_error=False))
    start = Queue.redis_queue_namespace_prefix
    found = [key[len(start) :] for key in queues if key.startswith(start)]
    left_out = sum(
        max(0, len(names) - most)
        for names, most in ((found, MOST_QUEUES), (limits, _MOST_KEYS), (cron, _MOST_KEYS))
    )
    return _Names(found[:MOST_QUEUES], limits[:_MOST_KEYS], cron[:_MOST_KEYS], left_out)


@cache
def _structures_of(queue: str) -> tuple[Structure, ...]:
    # A queue of RQ needs a connection, but says its keys without one.
    named = Queue(queue, connection=_NO_REDIS)
    return (
        Structure("list", queue, named.key),
        Structure("intermediate", queue, named.intermediate_queue_key),
        *(
            Structure(kind, queue, registry(queue, connection=_NO_REDIS).key)
            for kind, registry in _REGISTRIES.items()
        ),
    )


def _held_back(limit: str) -> Structure:
    return Structure("rate_limited", None, RateLimitRegistry(limit, _NO_REDIS).rate_limited_key)


# Only for the names of keys. It never connects.
_NO_REDIS = Redis()


def _ask(pipe: Pipeline, structure: Structure, start: int) -> None:
    # One more than a slice has, to know whether more follows.
    if structure.is_list:
        pipe.lrange(structure.key, start, start + MOST_IDS)
    else:
        pipe.zrange(structure.key, start, start + MOST_IDS)


def _slice(ids: list[bytes], start: int) -> Slice:
    is_rest = len(ids) <= MOST_IDS
    # An entry of the started registry is `job_id:execution_id`, and counts whole: another run is a move.
    found = ids if is_rest else ids[:MOST_IDS]
    return Slice(_plain(found), start, is_rest)


def job_id_of(entry: bytes) -> bytes:
    """The job's id of an entry of a structure. No id has a colon."""
    return entry.partition(b":")[0]


def execution_of(entry: bytes) -> str | None:
    """RQ's id of the run, of an entry of the started registry."""
    return entry.partition(b":")[2].decode(errors="replace") or None


def _plain(entries: Any) -> list[bytes]:
    return [
        entry
        for entry in entries
        if len(entry) <= LONGEST_ID
        if not (entry.startswith(_OURS) and parse_rq_id(job_id_of(entry).decode(errors="replace")))
    ]


def _ids(answer: Any) -> list[bytes]:
    """The answer; empty for a key of another type. Raises errors that concern more than this key."""
    if not isinstance(answer, Exception):
        return [each.encode() if isinstance(each, str) else each for each in answer]
    if isinstance(answer, ResponseError) and str(answer).startswith("WRONGTYPE"):
        return []
    raise answer


def _texts(answer: Any) -> list[str]:
    return sorted(each.decode(errors="replace") for each in _ids(answer))


@cache
def _job_pattern() -> str:
    # Escapes characters of the prefix that have a meaning in a pattern.
    start = RQJob.key_for("")
    return "".join(f"\\{c}" if c in "*?[]^\\" else c for c in start) + "*"

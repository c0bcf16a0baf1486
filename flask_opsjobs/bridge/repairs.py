"""Replaces RQ's classes in the copy of rq-dashboard, so that nothing unpickles and each view answers.

These are the repairs, beside the serializer:

1. `BridgeJob.dependency_ids` is empty: rq-dashboard decodes texts as if they were bytes, and fetches each
   dependency whole. `read_more` reads what a job depends on.
2. `BridgeJob.get_call_string` writes the call without unpickling it, also when it cannot be read.
3. `BridgeWorker._set_connection` leaves the time limit of the connection as it is. RQ sets it to minutes.
4. `BridgeWorker.get_current_job` answers also when RQ's record of the job is gone or cannot be read.
5. `count_and_list_jobs` reads exactly one page of a registry, at most 200 jobs, in two pipelines. A row also
   has the `function` of its job, or in `says` why RQ's record cannot be shown.
6. `BridgeJob` takes any id. RQ 3 refuses or cuts those that earlier versions allowed: with a slash, a colon.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask import request
from redis import Redis
from rq import Queue, Worker
from rq.exceptions import NoSuchJobError
from rq.job import Job as RQJob
from rq.registry import (
    CanceledJobRegistry,
    DeferredJobRegistry,
    FailedJobRegistry,
    FinishedJobRegistry,
    ScheduledJobRegistry,
    StartedJobRegistry,
)
from rq.results import Result
from typing_extensions import override

from ..engine.adopted.pickle_view import MOST_BYTES, Hides, RqView, view_job, view_value
from ..engine.redis.reads import read_time

UNREADABLE = "RQ's record of this job cannot be read"
GONE = "RQ has no record of this job"
MOST_A_PAGE = 200
# In the environment of a request to rq-dashboard: the client to read with, and which keys the host hides.
REDIS, HIDES = "opsjobs.redis", "opsjobs.hides"
_MOST_DEPENDENCIES = 200
_REGISTRIES = {
    "started": StartedJobRegistry,
    "finished": FinishedJobRegistry,
    "failed": FailedJobRegistry,
    "deferred": DeferredJobRegistry,
    "scheduled": ScheduledJobRegistry,
    "canceled": CanceledJobRegistry,
}
_OF_A_LIST = ("created_at", "started_at", "ended_at", "description", "exc_info")
# So many bytes of the calls of one page are read. Of further jobs the function is not known.
_MOST_BYTES_OF_CALLS = 2_000_000


class ShowingSerializer:
    """Reads what a pickle shows, as values of JSON: nothing is imported or called. It writes nothing."""

    @staticmethod
    def dumps(_value: object, /) -> bytes:
        """Raise `RuntimeError`."""
        raise RuntimeError("the bridge writes nothing")

    @staticmethod
    def loads(data: bytes, /) -> Any:
        """Return the value, in which a sentence in brackets stands for what cannot be shown."""
        return json.loads(view_value(data, _hides()))


class BridgeJob(RQJob):
    """An RQ job that is only looked at. `says` is why nothing but its id is known; None when more is."""

    says: str | None = None

    def __init__(
        self,
        id: str | None = None,
        connection: Redis | None = None,
        _serializer: Any = None,
        **_: Any,
    ) -> None:
        super().__init__(None, connection, ShowingSerializer)
        self._id = id

    @classmethod
    @override
    def fetch(cls, id: str, connection: Redis | None = None, serializer: Any = None) -> BridgeJob:
        """Return the job of this id. Raises what RQ does when there is none or it cannot be read."""
        job = cls(id, connection, serializer)
        job.refresh()
        return job

    @property
    @override
    def dependency_ids(self) -> list[str]:
        """Return nothing: see `read_more`."""
        return []

    @override
    def get_call_string(self) -> str:
        """Return the function with its arguments, as JSON writes them."""
        if self.says is not None:
            return _not_shown(self.says)
        return say_call(view_job({"data": self.data}, _hides()))


class BridgeQueue(Queue):
    """A queue whose jobs are only looked at."""

    job_class = BridgeJob


class BridgeWorker(Worker):
    """A worker that is only looked at."""

    job_class = BridgeJob  # type: ignore[assignment]
    queue_class = BridgeQueue

    @override
    def _set_connection(self, connection: Redis) -> Redis:
        return connection

    @override
    def get_current_job(self) -> RQJob | None:
        """Return the job that it runs; one without anything but its id when there is no more."""
        try:
            return super().get_current_job()
        except NoSuchJobError:
            return self._name_current_job(GONE)
        except (ValueError, TypeError, KeyError):
            return self._name_current_job(UNREADABLE)

    def _name_current_job(self, says: str) -> RQJob | None:
        rq_id = self.get_current_job_id()
        if rq_id is None:
            return None
        job = BridgeJob(rq_id, connection=self.connection)
        job.created_at = None  # type: ignore[assignment]
        job.says, job.description = says, _not_shown(says)
        return job


def _hides() -> Hides:
    found: Hides = request.environ[HIDES]
    return found


def say_call(view: RqView) -> str:
    """A call of a job, as `module.function({"*args": [7]})`."""
    return (
        f"{view.function or 'unknown function'}({'' if view.arguments == '{}' else view.arguments})"
    )


def count_and_list_jobs(
    queue: str, registry: str, offset: int, per_page: int, order: str, redis: Redis
) -> tuple[int, list[dict[str, Any]]]:
    """The number of jobs in a registry of a queue, and one page of them, as rq-dashboard writes them."""
    key = _key_of(queue, registry, redis)
    total: Any = redis.llen(key) if registry == "queued" else redis.zcard(key)
    start = total - offset - per_page if order == "dsc" else offset
    stop = min(start + per_page, total)
    start = max(start, 0)
    if stop <= start:
        return total, []
    read: Any = redis.lrange if registry == "queued" else redis.zrange
    rq_ids = [str(_text(entry)) for entry in read(key, start, stop - 1)]
    if registry == "started":
        # With the number of its run after it.
        rq_ids = [entry.rpartition(":")[0] or entry for entry in rq_ids]
    if order == "dsc":
        rq_ids.reverse()
    return total, _list(redis, rq_ids)


def count_jobs(queue: str, redis: Redis) -> dict[str, int]:
    """How many jobs each registry of a queue has, in one round trip."""
    with redis.pipeline() as pipe:
        pipe.llen(_key_of(queue, "queued", redis))
        for registry in _REGISTRIES:
            pipe.zcard(_key_of(queue, registry, redis))
        return dict(zip(("queued", *_REGISTRIES), pipe.execute(), strict=True))


def _key_of(queue: str, registry: str, redis: Redis) -> str:
    if registry == "queued":
        return str(Queue(queue, connection=redis).key)
    return str(_REGISTRIES[registry](queue, connection=redis).key)


def _list(redis: Redis, rq_ids: Sequence[str]) -> list[dict[str, Any]]:
    with redis.pipeline() as pipe:
        for rq_id in rq_ids:
            key = RQJob.key_for(rq_id)
            pipe.hmget(key, _OF_A_LIST)
            pipe.xrevrange(Result.get_key(rq_id), count=1)
            pipe.hlen(key)
            pipe.hstrlen(key, "data")
        answers = pipe.execute(raise_on_error=False)
    records = list(zip(rq_ids, *(answers[at::4] for at in range(4)), strict=True))
    rows = [_row(*record) for record in records]
    sizes = {
        row["id"]: record[-1] for row, record in zip(rows, records, strict=True) if not row["says"]
    }
    functions = _name_functions(redis, sizes)
    return [{**row, "function": functions.get(row["id"])} for row in rows]


def _row(rq_id: str, fields: Any, stream: Any, number: Any, size: Any) -> dict[str, Any]:
    """A job of a list: `number` is how many fields its hash has, `size` how long its data are.

    In place of each is an error when something else is stored under the key.
    """
    if number == 0:
        return _row_without(rq_id, GONE)
    if not isinstance(fields, list) or not size:
        return _row_without(rq_id, UNREADABLE)
    row = dict(zip(_OF_A_LIST, map(_text, fields), strict=True))
    moments = {name: _iso(row[name]) for name in _OF_A_LIST if name.endswith("_at")}
    if any(row[name] and moment is None for name, moment in moments.items()):
        return _row_without(rq_id, UNREADABLE)
    newest = stream[0][1] if isinstance(stream, list) and stream else {}
    raised = {"exc_info": fields[-1], "exc_string": newest.get(b"exc_string")}
    error = view_job(raised, _hides()).error
    return {"id": rq_id, "says": None, **row, **moments, "exc_info": error}


def _row_without(rq_id: str, says: str) -> dict[str, Any]:
    row = {"id": rq_id, "says": says, **dict.fromkeys(_OF_A_LIST)}
    return {**row, "description": _not_shown(says)}


def _name_functions(redis: Redis, sizes: Mapping[str, int]) -> dict[str, str | None]:
    """The functions of these jobs, by their ids with the sizes of their data."""
    left, chosen = _MOST_BYTES_OF_CALLS, []
    for rq_id, size in sizes.items():
        if size <= min(left, MOST_BYTES):
            left -= size
            chosen.append(rq_id)
    with redis.pipeline() as pipe:
        for rq_id in chosen:
            pipe.hget(RQJob.key_for(rq_id), "data")
        calls = pipe.execute(raise_on_error=False)
    return {
        rq_id: view_job({"data": call}, _hides()).function
        for rq_id, call in zip(chosen, calls, strict=True)
        if isinstance(call, bytes)
    }


def _not_shown(says: str) -> str:
    return f"[not shown: {says}]"


def _iso(text: str | None) -> str | None:
    moment = read_time(text) if text else None
    return None if moment is None else moment.isoformat()


def _text(raw: Any) -> Any:
    return raw.decode(errors="replace") if isinstance(raw, bytes) else raw


@dataclass(frozen=True)
class RqJobFacts:
    """What rq-dashboard leaves out of a job: its call, its worker, and on which jobs it depends.

    `depends_on` is each of them, and whether RQ still has it; `dependents` how many wait for this one.
    """

    function: str | None
    arguments: str
    worker: str | None
    depends_on: Mapping[str, bool]
    dependents: int


def read_more(redis: Redis, rq_id: str, hides: Hides) -> RqJobFacts:
    """What rq-dashboard leaves out of a job, in three round trips. Raises `RedisError`."""
    job = BridgeJob(rq_id, connection=redis)
    with redis.pipeline() as pipe:
        pipe.hstrlen(job.key, "data")
        pipe.hget(job.key, "worker_name")
        pipe.smembers(job.dependencies_key)
        pipe.scard(job.dependents_key)
        size, worker, parents, dependents = pipe.execute()
    rq_ids = sorted(str(_text(each)) for each in parents)[:_MOST_DEPENDENCIES]
    with redis.pipeline() as pipe:
        if size <= MOST_BYTES:
            pipe.hget(job.key, "data")
        for parent in rq_ids:
            pipe.exists(RQJob.key_for(parent))
        answers = pipe.execute()
    data = answers.pop(0) if size <= MOST_BYTES else size
    view = view_job({} if data is None else {"data": data}, hides)
    there = dict(zip(rq_ids, map(bool, answers), strict=True))
    return RqJobFacts(view.function, view.arguments, _text(worker) or None, there, dependents)

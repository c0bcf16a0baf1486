"""RQ jobs of every kind in a Redis: also with pickles that would run, and records that cannot be read."""

from __future__ import annotations

import pickle
from base64 import b64encode
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis import Redis
from rq import Queue, SimpleWorker
from rq.job import Job as RQJob
from rq.results import Result
from rq.worker_registration import REDIS_WORKER_KEYS

from tests.support.plain import Canary, fail_plain, note_plain

QUEUE = "legacy"
HTML = "<img src=x onerror=alert(1)>"
READABLE = ("finished", "failed", "deferred", "queued", "canceled", "poisoned", "started")


@dataclass
class RqSite:
    """What is in a Redis: the ids of the jobs by what became of them, and the file that a canary writes."""

    redis: Redis
    trap: Path
    ids: dict[str, str] = field(default_factory=dict)


def fill(redis: Redis, folder: Path, queue: str = QUEUE) -> RqSite:
    """Put jobs into each registry of a queue, with a worker that runs one, and a worker that is gone."""
    made, line, ran = RqSite(redis, folder / "trap"), Queue(queue, connection=redis), folder / "ran"
    canary = Canary(made.trap)

    def enqueue(name: str, function: Any, *args: Any, **options: Any) -> RQJob:
        options = {"meta": {"note": HTML, "token": "s3cr3t"}, "description": HTML, **options}
        job = line.enqueue(function, *args, **options)
        made.ids[name] = job.id
        return job

    enqueue("finished", note_plain, str(ran), HTML, result_ttl=3600)
    failed = enqueue("failed", fail_plain, HTML)
    SimpleWorker([line], connection=redis).work(burst=True, logging_level="CRITICAL")
    enqueue("deferred", note_plain, str(ran), depends_on=failed)
    enqueue("queued", note_plain, str(ran), description=None)
    enqueue("canceled", note_plain, str(ran)).cancel()
    enqueue("poisoned", note_plain, canary)
    broken: dict[Any, Any] = {"data": b"\x80\x04nonsense", "created_at": "yesterday"}
    redis.hset(enqueue("unreadable", note_plain).key, mapping=broken)
    redis.delete(enqueue("lost", note_plain).key)
    started = enqueue("started", note_plain, canary)
    redis.lrem(line.key, 1, started.id)
    worker = SimpleWorker([line], name="runs-legacy", connection=redis)
    worker.register_birth()
    worker.set_state("busy")
    worker.prepare_execution(started)
    worker.prepare_job_execution(started)
    redis.sadd(REDIS_WORKER_KEYS, f"{worker.redis_worker_namespace_prefix}gone")
    for name in ("finished", "failed", "poisoned", "started"):
        _poison(redis, made.ids[name], canary)
    return made


def _poison(redis: Redis, rq_id: str, canary: Canary) -> None:
    """Let the job's meta, its result and its newest run contain what unpickling would run."""
    raw, key = pickle.dumps(canary), Result.get_key(rq_id)
    redis.hset(RQJob.key_for(rq_id), mapping={"meta": raw, "result": raw})
    entries: Any = redis.xrevrange(key, count=1)
    for _, fields in entries:
        redis.xadd(key, {**fields, b"return_value": b64encode(raw)})

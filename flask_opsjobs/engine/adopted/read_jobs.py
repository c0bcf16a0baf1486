"""Reads the hashes and result streams of plain jobs: raw, in at most three round trips, never unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import MINYEAR, UTC, datetime, timedelta
from itertools import islice
from typing import Any

from redis import Redis, ResponseError
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.results import Result

from ...jobs.adopted.seen import WORDS, SeenJob, SeenRun
from ...jobs.perform import describe_error
from ...jobs.record.json_storage import clean_text
from ...jobs.record.options import LAST_YEAR
from ..redis.reads import read_time
from .look import Structure, execution_of
from .memory import Memory
from .pickle_view import MOST_BYTES, Hides, view_job

_FIELDS = (
    *("status", "origin", "created_at", "enqueued_at", "started_at", "ended_at", "worker_name"),
    *("timeout", "ttl", "number_of_retries", "retries_left", "repeats_left"),
    *("dependency_ids", "dependency_id", "allow_dependency_failures"),
    *("group_id", "rate_limit_key"),
)
# RQ keeps the results of this many runs.
_MOST_RUNS = 10
# A result stream with more is not read: its jobs returned something large.
_MOST_STREAM_BYTES = 1_000_000
_MOST_DEPENDENCIES = 1_000
_LONGEST_NAME = 500
_LARGEST = 2**31 - 1
_WORDS = frozenset(status.value for status in JobStatus)
_OUTCOMES = {
    Result.Type.SUCCESSFUL.value: "returned",
    Result.Type.FAILED.value: "raised",
    Result.Type.STOPPED.value: "canceled",
    Result.Type.RETRIED.value: "retry_in",
    Result.Type.MAX_RETRIES_EXCEEDED.value: "raised",
}
# How the last line of a traceback begins that RQ writes itself.
_OUTCOMES_OF_RQ = {
    "rq.timeouts.JobTimeoutException": "timed_out",
    "Work-horse terminated": "died",
    "Moved to FailedJobRegistry, due to AbandonedJobError": "died",
}


def read_jobs(
    redis: Redis, memory: Memory, rq_ids: Sequence[bytes], hides: Hides
) -> tuple[dict[str, SeenJob], list[str]]:
    """Return the jobs by their id, and the ids of those that have no hash. Raises `RedisError`.

    A payload that `memory` knows is not shown again: reading a pickle takes longer than reading the rest.
    A hash that cannot be read leaves out what cannot be read. A key that is no hash counts as none.
    """
    with redis.pipeline(transaction=False) as pipe:
        for rq_id in rq_ids:
            key = RQJob.key_for(rq_id.decode(errors="replace"))
            pipe.hmget(key, _FIELDS)
            pipe.hstrlen(key, "data")
            pipe.memory_usage(Result.get_key(rq_id.decode(errors="replace")))
        first = pipe.execute(raise_on_error=False)
    hashes = {
        rq_id: (fields, size, stream)
        for rq_id, fields, size, stream in zip(
            rq_ids, first[::3], first[1::3], first[2::3], strict=True
        )
        if _is_job(fields, size)
    }
    more = iter(_read_more(redis, memory, hashes))
    seen, streams = {}, {}
    for rq_id, (fields, size, stream) in hashes.items():
        data = next(more) if _is_short(size) else size
        entries = next(more) if _has_stream(stream) else []
        score = next(more) if _scheduled(memory, rq_id) else None
        named = dict(zip(_FIELDS, fields, strict=True))
        job = _make(rq_id, memory, named, score)
        streams[rq_id] = entries if isinstance(entries, list) else []
        if not memory.knows_payload(rq_id, named["created_at"], data):
            job = _with_call(job, data, hides)
        seen[job.rq_id] = _with_runs(job, streams[rq_id], hides)
    _count_older_runs(
        redis, seen, [rq_id for rq_id in streams if len(streams[rq_id]) == _MOST_RUNS]
    )
    return seen, [_text(rq_id) for rq_id in rq_ids if rq_id not in hashes]


def _count_older_runs(redis: Redis, seen: dict[str, SeenJob], rq_ids: Sequence[bytes]) -> None:
    """Count the runs that RQ no longer keeps of these jobs, whose streams are full."""
    if not rq_ids:
        return
    with redis.pipeline(transaction=False) as pipe:
        for rq_id in rq_ids:
            pipe.xinfo_stream(Result.get_key(rq_id.decode(errors="replace")))
        answers = pipe.execute(raise_on_error=False)
    for rq_id, answer in zip(rq_ids, answers, strict=True):
        # Redis counts them since version 7.
        added = answer.get("entries-added") if isinstance(answer, dict) else None
        if isinstance(added, int) and added > _MOST_RUNS:
            job = seen[_text(rq_id)]
            seen[job.rq_id] = replace(job, runs_before=added - _MOST_RUNS)


def _read_more(redis: Redis, memory: Memory, hashes: Mapping[bytes, Any]) -> list[Any]:
    """What depends on the sizes: payloads, result streams, and when scheduled jobs are due."""
    with redis.pipeline(transaction=False) as pipe:
        for rq_id, (_, size, stream) in hashes.items():
            name = rq_id.decode(errors="replace")
            if _is_short(size):
                pipe.hget(RQJob.key_for(name), "data")
            if _has_stream(stream):
                pipe.xrevrange(Result.get_key(name), count=_MOST_RUNS)
            if place := _scheduled(memory, rq_id):
                pipe.zscore(place.key, rq_id)
        return pipe.execute(raise_on_error=False)


def _is_job(fields: Any, size: Any) -> bool:
    """Whether the answers are of a hash. Raises errors that concern more than this key."""
    for answer in (fields, size):
        if isinstance(answer, ResponseError) and str(answer).startswith("WRONGTYPE"):
            return False
        if isinstance(answer, Exception):
            raise answer
    return bool(size) or any(field is not None for field in fields)


def _is_short(size: int) -> bool:
    return 0 < size <= MOST_BYTES


def _has_stream(size: Any) -> bool:
    return isinstance(size, int) and size <= _MOST_STREAM_BYTES


def _scheduled(memory: Memory, rq_id: bytes) -> Structure | None:
    places = memory.places_of(rq_id)
    return next((place for place, _ in places if place.kind == "scheduled"), None)


def _make(rq_id: bytes, memory: Memory, fields: Mapping[str, Any], score: Any) -> SeenJob:
    status = _text(fields["status"]) or "created"
    places = memory.places_of(rq_id)
    place, entry = _choose(places, status) if places else (None, b"")
    word = status if place is None else WORDS[place.kind]
    if word == "failed" and status == "stopped":
        word = status
    return SeenJob(
        rq_id=_text(rq_id),
        structure=None if place is None else place.kind,
        word=word if word in _WORDS else "created",
        queue=_name(fields["origin"]) or (place and place.queue) or "default",
        created_at=read_time(fields["created_at"]),
        enqueued_at=read_time(fields["enqueued_at"]),
        started_at=read_time(fields["started_at"]),
        ended_at=read_time(fields["ended_at"]),
        scheduled_for=_moment_of(score),
        worker=_name(fields["worker_name"]) or "",
        timeout_seconds=_number(fields["timeout"], least=1),
        retries=_number(fields["number_of_retries"]) or 0,
        retries_left=_number(fields["retries_left"]),
        repeats_left=_number(fields["repeats_left"]),
        depends_on=_dependencies(fields),
        allows_failure=_text(fields["allow_dependency_failures"]) == "1",
        group_id=_name(fields["group_id"]),
        cron=memory.cron.get(rq_id),
        rate_limit_key=_name(fields["rate_limit_key"]),
        ttl_seconds=_number(fields["ttl"]),
        running=execution_of(entry) if place is not None and place.kind == "started" else None,
    )


def _choose(places: Sequence[tuple[Structure, bytes]], status: str) -> tuple[Structure, bytes]:
    """The place that counts. RQ leaves an id in an old structure when it is used again: the hash decides."""
    agreed = [place for place in places if WORDS[place[0].kind] == status]
    return (agreed or list(places))[-1]


def _with_call(job: SeenJob, data: Any, hides: Hides) -> SeenJob:
    view = view_job({"data": data} if data else {}, hides)
    return replace(job, function=view.function, arguments=view.arguments)


def _with_runs(job: SeenJob, entries: Sequence[Any], hides: Hides) -> SeenJob:
    if not entries:
        return job
    returned = entries[0][1].get(b"return_value")
    result = None if returned is None else view_job({"return_value": returned}, hides).result
    runs = tuple(
        run for entry in reversed(entries) if (run := _run(entry[0], entry[1], job)) is not None
    )
    return replace(job, result=result, runs=runs)


def _run(entry_id: Any, fields: Mapping[bytes, Any], job: SeenJob) -> SeenRun | None:
    kind = _number(fields.get(b"type"))
    started_at = _moment_of(_float(fields.get(b"execution_started_at")))
    ended_at = _moment_of(_float(fields.get(b"execution_ended_at"))) or _moment_of_entry(entry_id)
    if kind not in _OUTCOMES or ended_at is None:
        return None
    if started_at is None and job.started_at is not None and job.started_at <= ended_at:
        # RQ before 3 kept only the start of the newest run, with the job.
        started_at = job.started_at
    raised = fields.get(b"exc_string")
    traceback = view_job({"exc_string": raised}, lambda _: None).error if raised else None
    error = _last_line(traceback or "")
    outcome = next(
        (word for start, word in _OUTCOMES_OF_RQ.items() if error and error.startswith(start)),
        _OUTCOMES[kind],
    )
    return SeenRun(
        key=_text(fields.get(b"execution_id")) or f"result {_text(entry_id)}",
        outcome=outcome,
        worker=_name(fields.get(b"worker_name")) or "",
        started_at=started_at,
        ended_at=ended_at,
        error=error,
        traceback=traceback,
    )


def _last_line(text: str) -> str | None:
    lines = text.strip().splitlines()
    line = " ".join(lines[-1].split()) if lines else ""
    longest = describe_error.MOST_ERROR_CHARACTERS
    return (line if len(line) <= longest else f"{line[: longest - 1]}…") or None


def _dependencies(fields: Mapping[str, Any]) -> tuple[str, ...]:
    try:
        found = json.loads(fields["dependency_ids"] or "[]")
    except ValueError:
        found = []
    if not found and fields["dependency_id"]:
        found = [_text(fields["dependency_id"])]
    texts = (
        (clean_text(each) for each in found if isinstance(each, str))
        if isinstance(found, list)
        else ()
    )
    return tuple(islice(texts, _MOST_DEPENDENCIES))


def _text(value: Any) -> str:
    if value is None:
        return ""
    return clean_text(value.decode(errors="replace") if isinstance(value, bytes) else str(value))


def _name(value: Any) -> str | None:
    """A name that Postgres can index; None when there is none."""
    return _text(value)[:_LONGEST_NAME] or None


def _number(value: Any, least: int = 0) -> int | None:
    try:
        number = int(value)
    except (TypeError, ValueError):
        return None
    return number if least <= number <= _LARGEST else None


def _float(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _moment_of(seconds: Any) -> datetime | None:
    if not isinstance(seconds, int | float):
        return None
    try:
        found = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    except (OverflowError, ValueError):
        return None
    return found if MINYEAR < found.year <= LAST_YEAR else None


def _moment_of_entry(entry_id: Any) -> datetime | None:
    """When Redis added an entry to a stream: its id begins with milliseconds."""
    milliseconds = _number_of_entry(_text(entry_id))
    return None if milliseconds is None else _moment_of(milliseconds / 1000)


def _number_of_entry(text: str) -> int | None:
    first = text.partition("-")[0]
    return int(first) if first.isdecimal() and len(first) < 16 else None

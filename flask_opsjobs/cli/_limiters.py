"""Reads limiters for commands, and writes them as JSON objects or as lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from ..core.reading import Reading, read_snapshot
from ..core.words import counted
from ..host import Host
from ..limits import queries
from ..limits.bucket import tokens_at
from ..limits.queries import (
    MOST_COUNTED,
    BucketState,
    HolderRow,
    LimiterRow,
    has_partition,
    list_hot_partitions,
)
from ..limits.words import BLOCKS, in_words
from ._simulate import CannotRun


@contextmanager
def open_snapshot(host: Host) -> Iterator[Reading]:
    """A read-only session, and Postgres' time. Raises `SchemaBehind`."""
    host.require_schema()
    with read_snapshot(host.engine.connect(), host.settings.page_timeout_seconds) as read:
        yield read


def find_limiter_row(
    session: Session, name: str, partition: str | None, now: datetime
) -> LimiterRow:
    """The limiter with this name. Raises `CannotRun` when there is none, or when it has no partitions."""
    row = queries.find_limiter(session, name, now)
    if row is None:
        raise CannotRun(f"no process has declared the limiter {name}")
    if "\0" in (partition or ""):
        raise CannotRun("a partition cannot contain a NUL character")
    if not has_partition(session, row, partition or ""):
        raise CannotRun(
            f"the limiter {name} has no partitions, and no job waits or runs in this one"
        )
    return row


def summary(row: LimiterRow) -> dict[str, Any]:
    """One limiter of the list, as a JSON object."""
    return {
        "name": row.name,
        **row.declared,
        "waiting": row.waiting,
        "is_waiting_capped": row.waiting >= MOST_COUNTED,
        "holders": row.holders,
        "is_holders_capped": row.holders >= MOST_COUNTED,
        "is_cooling": row.cooldown is not None,
        "cooling_partitions": row.cooling,
    }


def line(row: LimiterRow) -> str:
    """One limiter of the list, as a line."""
    cooling = ""
    if row.cooling:
        cooling = (
            f", {counted(row.cooling, 'partition')} cool{'s' if row.cooling == 1 else ''} down"
        )
    if row.cooldown is not None:
        cooling = ", cools down"
    allows = in_words(row.shape, row.partition_by)
    return (
        f"{row.name}: {allows}; {_counted(row.waiting)} waiting, {_counted(row.holders)} running"
        f"{cooling}"
    )


def explain_bucket(session: Session, row: LimiterRow, partition: str | None) -> dict[str, Any]:
    """The state of a bucket, what blocks its next job and until when, as a JSON object.

    For a partitioned limiter without `partition`, the object holds what all partitions share, and the hot
    partitions: those for which most jobs wait. If the limiter no longer has partitions but jobs still wait in
    some, these are listed too.
    """
    asked = "" if partition is None and row.partition_by is None else partition
    bucket = None if asked is None else queries.find_bucket(session, row, asked)
    hot, _ = list_hot_partitions(session, row, partition)
    waiting = row.waiting if asked is None else queries.count_waiters(session, row.name, asked)
    return {
        "limiter": row.name,
        "partition": asked,
        "allows": in_words(row.shape, row.partition_by),
        "declared": row.declared,
        "cooldown": _cooldown(row, bucket),
        "waiting": waiting,
        "is_waiting_capped": waiting >= MOST_COUNTED,
        "bucket": None if bucket is None else _bucket(bucket),
        "holders": [_holder(h) for h in queries.list_holders(session, row.name, partition)],
        "hot_partitions": [{"partition": h.partition, "waiting": h.waiting} for h in hot],
    }


def bucket_lines(facts: dict[str, Any], clean: Callable[[str], str]) -> Iterator[str]:
    """The same facts as lines of text."""
    of = f" for {clean(facts['partition'])}" if facts["partition"] else ""
    yield f"{facts['limiter']}{of}: {facts['allows']}"
    if cooldown := facts["cooldown"]:
        why = f": {clean(cooldown['reason'])}" if cooldown["reason"] else ""
        yield f"cools down until {cooldown['until']}, by {clean(cooldown['by'])}{why}"
    yield f"{_counted(facts['waiting'])} waiting"
    if bucket := facts["bucket"]:
        yield from _bucket_lines(bucket)
    for holder in facts["holders"]:
        is_other = holder["partition"] != (facts["partition"] or "")
        of = f" for {clean(holder['partition'])}" if is_other else ""
        yield f"  runs: job {holder['job_id']}{of}, weight {holder['weight']}, since {holder['since']}"
    for hot in facts["hot_partitions"]:
        yield f"  partition {clean(hot['partition']) or 'none'}: {_counted(hot['waiting'])} waiting"


def _bucket_lines(bucket: dict[str, Any]) -> Iterator[str]:
    if bucket["tokens"] is not None:
        yield f"{bucket['tokens']:.2f} of {bucket['burst']} tokens left"
    if bucket["concurrency"] is not None:
        yield f"{bucket['in_use']} of {bucket['concurrency']} places taken"
    yield f"queued jobs weigh {bucket['queued']} in total"
    if not bucket["blocks"]:
        yield f"a job of weight {bucket['weight']} starts now"
    for block in bucket["blocks"]:
        yield f"a job of weight {bucket['weight']} does not start: {BLOCKS[block['code']]} [{block['code']}]"
    if bucket["blocks"]:
        until = bucket["next_at"]
        needs = "it starts only after a running job ends, or the limit changes"
        yield f"it may start at {until}" if until else needs


def _bucket(state: BucketState) -> dict[str, Any]:
    level, shape, now = state.seen.level, state.shape, state.seen.now
    seconds = state.next_seconds
    return {
        "read_at": _text(now),
        "tokens": None if shape.rate is None else max(0.0, tokens_at(shape, level, now)),
        "burst": shape.burst,
        "in_use": level.in_use,
        "concurrency": shape.concurrency,
        "queued": level.queued,
        "weight": state.weight,
        "blocks": [{"code": block.code, "until": _text(block.until)} for block in state.blocks],
        "next_at": None if seconds is None else _text(now + timedelta(seconds=seconds)),
    }


def _cooldown(row: LimiterRow, bucket: BucketState | None) -> dict[str, Any] | None:
    found = row.cooldown or (bucket and bucket.cooldown)
    if not found:
        return None
    return {"until": _text(found.until), "by": found.by, "reason": found.reason}


def _holder(holder: HolderRow) -> dict[str, Any]:
    return {
        "job_id": holder.job_id,
        "partition": holder.partition,
        "weight": holder.weight,
        "since": _text(holder.taken_at),
        "worker": holder.worker,
    }


def _counted(number: int) -> str:
    return f"{number:,}" + "+" * (number >= MOST_COUNTED)


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat()

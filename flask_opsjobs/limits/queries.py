"""Reads limiters for pages and commands: a list, and one limiter with its partitions, leases and jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from ..core import sql
from ..core.round_trips import start_reading
from . import stored_buckets as queries
from .bucket import BucketBlock, Shape, admit, next_room, settle, tokens_at
from .models import Bucket, LimitMinute, LimitRejection
from .stored_buckets import BucketSeen

MOST_COUNTED = 1_000
MOST_WALKED = 2_000
# To find the hottest partitions, up to 50 waiting jobs of each are counted; then the 100 hottest are counted
# in full.
_ROUGH = 50
_MOST_COUNTED_WHOLE = 100
MOST_LIMITERS = 100
_MOST_ROWS = 10
_MOST_HOLDERS = 25
LATELY = timedelta(hours=1)


@dataclass(frozen=True)
class CurrentCooldown:
    """A cooldown that is in effect now: its end, its beginning, the operator and the reason."""

    until: datetime
    at: datetime
    by: str
    reason: str | None


@dataclass(frozen=True)
class LimiterRow:
    """A limiter with its last declaration.

    `waiting`, `queued` and `holders` are counted up to `MOST_COUNTED`. `cooling` counts its partitions that
    cool down. `admitted`, `recalled` and `rejected` are counts of the last hour.
    """

    name: str
    shape: Shape
    partition_by: str | None
    weight_by: str | None
    when_full: str
    declared_at: datetime
    declared_by: str
    changed_at: datetime | None
    previous: Mapping[str, Any] | None
    cooldown: CurrentCooldown | None
    waiting: int
    queued: int
    holders: int
    cooling: int
    admitted: int
    recalled: int
    rejected: int

    @property
    def weight(self) -> int:
        """The declared weight of a job; 1 when the weight depends on the job's arguments."""
        text = self.weight_by or ""
        return int(text) if text.isdecimal() else 1

    @property
    def declared(self) -> dict[str, Any]:
        """The declaration, in the format of `previous`."""
        shape = self.shape
        return {
            "rate": shape.rate,
            "per_seconds": shape.per_seconds,
            "burst": shape.burst,
            "concurrency": shape.concurrency,
            "partition_by": self.partition_by,
            "weight_by": self.weight_by,
            "when_full": self.when_full,
        }


@dataclass(frozen=True)
class BucketState:
    """A bucket, and whether it admits a job of `weight`, computed by the functions that admit real jobs.

    `next_seconds` is the time until such a job can start if no job ends; None when time alone is not enough.
    """

    seen: BucketSeen
    shape: Shape
    cooldown: CurrentCooldown | None
    weight: int
    blocks: Sequence[BucketBlock]
    next_seconds: float | None

    @property
    def tokens(self) -> float | None:
        """The tokens now; None without a rate."""
        return (
            None
            if self.shape.rate is None
            else tokens_at(self.shape, self.seen.level, self.seen.now)
        )


@dataclass(frozen=True)
class HolderRow:
    """A lease and the job that holds it; `task` is None when the job was deleted.

    `is_idle`: the attempt that took it does not run.
    """

    job_id: int
    partition: str
    weight: int
    taken_at: datetime
    task: str | None
    state: str | None
    worker: str | None
    dispatch_no: int
    is_idle: bool


@dataclass(frozen=True)
class WaiterRow:
    """A job that waits in a lane of a bucket."""

    id: int
    task: str
    queue: str
    weight: int
    priority: int
    due_at: datetime


@dataclass(frozen=True)
class HotPartition:
    """A partition with waiting jobs; `waiting` is counted up to `MOST_COUNTED`."""

    partition: str
    waiting: int


@dataclass(frozen=True)
class RejectionRow:
    """A call that the limiter rejected."""

    at: datetime
    partition: str
    task: str
    weight: int
    code: str


def list_limiters(session: Session, now: datetime) -> list[LimiterRow]:
    """The limiters in the order of their names, at most `MOST_LIMITERS`."""
    return _limiters(session, None, now)


def find_limiter(session: Session, name: str, now: datetime) -> LimiterRow | None:
    """The limiter of this name; None when no process has declared it."""
    return next(iter(_limiters(session, name, now)), None)


def find_bucket(session: Session, limiter: LimiterRow, partition: str) -> BucketState:
    """The state of a bucket, judged for a job of the weight of the next one."""
    chosen = select(
        Bucket.cooldown_until, Bucket.cooldown_at, Bucket.cooldown_by, Bucket.cooldown_reason
    ).where(Bucket.limiter == limiter.name, Bucket.partition == partition)
    cooling = start_reading(session, Session.execute, chosen)
    weighing = start_reading(session, _find_weight, limiter, partition)
    seen = queries.get_bucket(session.connection(), limiter.name, partition)
    row = cooling.value.one_or_none()
    cooldown = None if row is None else _cooling(*row, seen.now)
    return _judge(limiter, seen, cooldown, weighing.value)


def _find_weight(session: Session, limiter: LimiterRow, partition: str) -> int:
    """The weight of the next job; 1 when none waits."""
    # Skip jobs that can never start, unless no other job waits: then explain these.
    starting = start_reading(
        session, list_waiters, limiter.name, partition, most=1, heaviest=limiter.shape.most
    )
    waiting = list_waiters(session, limiter.name, partition, most=1)
    first = starting.value or waiting
    return first[0].weight if first else 1


def list_whole_buckets(
    session: Session, limiters: Sequence[LimiterRow]
) -> Mapping[str, BucketState]:
    """The buckets of the limiters without partitions, by name, each judged for a job of weight 1.

    One statement.
    """
    whole = {row.name: row for row in limiters if row.partition_by is None}
    found = queries.list_buckets(session.connection(), [(name, "") for name in whole])
    return {seen.limiter: _judge(whole[seen.limiter], seen, None, 1) for seen in found}


def count_waiters(session: Session, limiter: str, partition: str) -> int:
    """How many jobs wait for a bucket, counted up to `MOST_COUNTED`."""
    parameters = {"limiter": limiter, "partition": partition, "most": MOST_COUNTED}
    found = session.connection().exec_driver_sql(sql.load("count_waiters"), parameters)
    number: int = found.scalar_one()
    return number


def list_waiters(
    session: Session,
    limiter: str,
    partition: str,
    most: int = _MOST_ROWS,
    heaviest: int | None = None,
) -> list[WaiterRow]:
    """The jobs that start next from a bucket; with `heaviest` only jobs up to this weight."""
    parameters = {"limiter": limiter, "partition": partition, "limit": most, "heaviest": heaviest}
    rows = session.connection().exec_driver_sql(sql.load("list_waiters"), parameters)
    return [WaiterRow(*row) for row in rows]


def list_holders(session: Session, limiter: str, partition: str | None) -> list[HolderRow]:
    """The leases of a limiter or of one partition, at most 25, the oldest of each partition first."""
    parameters = {"limiter": limiter, "partition": partition, "limit": _MOST_HOLDERS}
    rows = session.connection().exec_driver_sql(sql.load("list_holders"), parameters)
    return [HolderRow(*row) for row in rows]


def _list_hot_partitions(session: Session, limiter: str) -> tuple[list[HotPartition], bool]:
    """The partitions with the most waiting jobs, at most ten; and whether it stopped at `MOST_WALKED`."""
    parameters = {
        "limiter": limiter,
        "limit": _MOST_ROWS,
        "most": MOST_COUNTED,
        "walked": MOST_WALKED,
        "rough": _ROUGH,
        "counted": _MOST_COUNTED_WHOLE,
    }
    rows = session.connection().exec_driver_sql(sql.load("list_hot_partitions"), parameters).all()
    found = [HotPartition(row.partition, row.waiting) for row in rows if row.waiting]
    return found, bool(rows) and rows[0].walked >= MOST_WALKED


def list_cooling_partitions(
    session: Session, limiter: str, now: datetime
) -> list[tuple[str, CurrentCooldown]]:
    """The partitions of a limiter that cool down now, at most 25, in order."""
    chosen = select(
        Bucket.partition,
        Bucket.cooldown_until,
        Bucket.cooldown_at,
        Bucket.cooldown_by,
        Bucket.cooldown_reason,
    ).where(
        Bucket.limiter == limiter, Bucket.cooldown_until.is_not(None), Bucket.cooldown_until > now
    )
    rows = session.execute(chosen.order_by(Bucket.partition).limit(_MOST_HOLDERS))
    found = ((row[0], _cooling(row[1], row[2], row[3], row[4], now)) for row in rows)
    return [(partition, cooling) for partition, cooling in found if cooling is not None]


def list_rejections(session: Session, limiter: str) -> list[RejectionRow]:
    """The calls that a limiter rejected at enqueue, at most ten, the newest first."""
    chosen = select(
        LimitRejection.at,
        LimitRejection.partition,
        LimitRejection.task,
        LimitRejection.weight,
        LimitRejection.code,
    ).where(LimitRejection.limiter == limiter)
    rows = session.execute(chosen.order_by(LimitRejection.id.desc()).limit(_MOST_ROWS))
    return [RejectionRow(*row) for row in rows]


def find_minutes(
    session: Session, limiter: str, since: datetime
) -> Mapping[datetime, tuple[int, int, int]]:
    """By minute: the numbers of admitted, recalled and rejected jobs. A minute without any has no entry."""
    chosen = select(
        LimitMinute.minute, LimitMinute.admitted, LimitMinute.recalled, LimitMinute.rejected
    ).where(LimitMinute.limiter == limiter, LimitMinute.minute >= since)
    return {row[0]: (row[1], row[2], row[3]) for row in session.execute(chosen)}


def has_minutes(session: Session, limiter: str) -> bool:
    """Whether a minute is stored in which the limiter admitted, took back or rejected a job."""
    some = select(LimitMinute.minute).where(LimitMinute.limiter == limiter).limit(1)
    return session.scalars(some).first() is not None


def _judge(
    limiter: LimiterRow, seen: BucketSeen, cooldown: CurrentCooldown | None, weight: int
) -> BucketState:
    """Judge a job that comes after all queued jobs: they count as started."""
    later = settle(limiter.shape, seen.level, seen.now)
    return BucketState(
        seen,
        limiter.shape,
        cooldown,
        weight,
        admit(limiter.shape, later, weight, seen.now).blocks,
        next_room(limiter.shape, seen.level, weight, seen.now),
    )


def _limiters(session: Session, name: str | None, now: datetime) -> list[LimiterRow]:
    parameters = {
        "name": name,
        "limit": MOST_LIMITERS,
        "most": MOST_COUNTED,
        "now": now,
        "since": now - LATELY,
    }
    rows = session.connection().exec_driver_sql(sql.load("list_limiters"), parameters).mappings()
    return [_limiter(row, now) for row in rows]


def _limiter(row: Any, now: datetime) -> LimiterRow:
    same = {
        field: row[field]
        for field in LimiterRow.__dataclass_fields__
        if field not in ("shape", "cooldown")
    }
    shape = Shape(row["rate"], row["per_seconds"], row["burst"], row["concurrency"])
    cooldown = _cooling(
        row["cooldown_until"], row["cooldown_at"], row["cooldown_by"], row["cooldown_reason"], now
    )
    return LimiterRow(shape=shape, cooldown=cooldown, **same)


def _cooling(
    until: datetime | None, at: datetime | None, by: str | None, reason: str | None, now: datetime
) -> CurrentCooldown | None:
    if until is None or at is None or by is None or until <= now:
        return None
    return CurrentCooldown(until, at, by, reason)


def has_partition(session: Session, limiter: LimiterRow, partition: str) -> bool:
    """Whether a page may show this partition. True for every limiter that is declared with partitions.

    Without declared partitions: while jobs wait or run in this one, or it cools down. A job keeps the lane in
    which it was enqueued, also when a later deploy declares something else.
    """
    if not partition or limiter.partition_by is not None:
        return True
    counting = start_reading(session, count_waiters, limiter.name, partition)
    bucket = find_bucket(session, limiter, partition)
    level = bucket.seen.level
    is_used = level.in_use > 0 or level.queued > 0 or bucket.cooldown is not None
    return is_used or counting.value > 0


def list_hot_partitions(
    session: Session, limiter: LimiterRow, partition: str | None
) -> tuple[Sequence[HotPartition], bool]:
    """The partitions with the most waiting jobs, and whether they are cut; none for a single partition.

    None either for a limiter without declared partitions, unless jobs still wait in one.
    """
    if partition is not None:
        return (), False
    hot, is_cut = _list_hot_partitions(session, limiter.name)
    has_partitions = limiter.partition_by is not None or any(each.partition for each in hot)
    return (hot, is_cut) if has_partitions else ((), False)

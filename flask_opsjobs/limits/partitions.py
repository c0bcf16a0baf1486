"""Lists a limiter's partitions, including ones no longer declared that still have leases or waiting jobs."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from .page_queries import HotPartition, LimiterRow, count_waiters, find_bucket, list_hot_partitions


def has_partition(session: Session, limiter: LimiterRow, partition: str) -> bool:
    """Whether it can be asked about. Of a limiter that is declared without: while jobs wait or run there, or it cools.

    A job keeps the lane that it was enqueued in, whatever is declared later.
    """
    if not partition or limiter.partition_by is not None:
        return True
    bucket = find_bucket(session, limiter, partition)
    standing = bucket.seen.standing
    is_used = standing.in_use > 0 or standing.queued > 0 or bucket.cooldown is not None
    return is_used or count_waiters(session, limiter.name, partition) > 0


def list_hot(
    session: Session, limiter: LimiterRow, partition: str | None
) -> tuple[Sequence[HotPartition], bool]:
    """As `list_hot_partitions`, when the limiter as a whole is asked about, with partition None; else nothing.

    Of one that is declared without partitions also nothing, unless jobs wait in one all the same.
    """
    if partition is not None:
        return (), False
    hot, is_cut = list_hot_partitions(session, limiter.name)
    is_told = limiter.partition_by is not None or any(each.partition for each in hot)
    return (hot, is_cut) if is_told else ((), False)

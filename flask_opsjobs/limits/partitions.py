"""Lists a limiter's partitions, including ones no longer declared that still have leases or waiting jobs."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from .page_queries import HotPartition, LimiterRow, count_waiters, find_bucket, list_hot_partitions


def has_partition(session: Session, limiter: LimiterRow, partition: str) -> bool:
    """Whether a page may show this partition. True for every limiter that is declared with partitions.

    Without declared partitions: while jobs wait or run in this one, or it cools down. A job keeps the lane in
    which it was enqueued, also when a later deploy declares something else.
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
    """Like `list_hot_partitions` for a whole limiter (partition None); empty for a single partition.

    Also empty for a limiter without declared partitions, unless jobs still wait in one.
    """
    if partition is not None:
        return (), False
    hot, is_cut = list_hot_partitions(session, limiter.name)
    has_partitions = limiter.partition_by is not None or any(each.partition for each in hot)
    return (hot, is_cut) if has_partitions else ((), False)

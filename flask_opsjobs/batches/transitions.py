"""Writes an operator's decisions about batches: cancel and close; and lists members to retry.

Every function runs in the caller's transaction. Call `lock` first: then nobody folds the batches until the
commit. After it the caller has them folded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from psycopg.rows import class_row

from ..core import sql
from ..core.db import Connection
from ..jobs.record.unique_locks import Takers


@dataclass(frozen=True)
class BatchForDecision:
    """The columns of a batch that a decision needs, and its counted ends by state.

    A retry knows also the members that it takes, and those that it leaves out, each with the job that has its
    unique lock: `to_retry` and `left_out`.
    """

    id: int
    name: str
    state: str
    enqueued: int
    end_no: int
    cancel_requested_at: datetime | None
    cancel_requested_by: str | None
    finished: int
    failed: int
    canceled: int
    to_retry: tuple[int, ...] = ()
    left_out: tuple[tuple[int, int], ...] = ()

    @property
    def open_members(self) -> int:
        """How many members have not ended, as far as they were counted."""
        return max(0, self.enqueued - self.finished - self.failed - self.canceled)

    @property
    def target(self) -> str:
        """The batch as the target of an action: `batch/7`."""
        return f"batch/{self.id}"

    @property
    def label(self) -> str:
        """The batch for people: its name."""
        return self.name


def lock(connection: Connection, batches: Iterable[int]) -> None:
    """Lock these batches in id order, before any job. Members can still be added to open ones."""
    connection.execute(sql.load("lock_batches"), {"ids": list(batches)})


def look(connection: Connection, batches: Iterable[int]) -> list[BatchForDecision]:
    """Those of these batches that exist, in id order. Locks nothing."""
    with connection.cursor(row_factory=class_row(BatchForDecision)) as cursor:
        return cursor.execute(sql.load("look_at_batches"), {"ids": list(batches)}).fetchall()


def close(connection: Connection, batches: Iterable[int]) -> None:
    """Close those of these batches that are open."""
    connection.execute(sql.load("close_batches"), {"ids": list(batches)})


def cancel(
    connection: Connection, batches: Iterable[int], actor: str, reason: str, now: datetime
) -> None:
    """Close these batches, and have their members ended and stopped by the next folds."""
    ids = list(batches)
    close(connection, ids)
    values = {"ids": ids, "actor": actor, "reason": reason, "now": now}
    connection.execute(sql.load("cancel_batches"), values)


def find_members_to_retry(
    connection: Connection,
    batch: BatchForDecision,
    states: Iterable[str],
    limit: int,
    now: datetime,
    takers: Takers,
) -> BatchForDecision:
    """The batch with its oldest members that ended in these states, at most `limit`. Locks nothing.

    Of members that need the same unique lock, the first takes it, and the others are left out.
    """
    values = {"id": batch.id, "states": list(states), "limit": limit, "now": now}
    to_retry: list[int] = []
    left_out: list[tuple[int, int]] = []
    for id, key, holder in connection.execute(sql.load("list_members_to_retry"), values):
        if holder is None and len(to_retry) == limit:
            continue
        rival = None if key is None else takers.find_rival(id, key, holder)
        if rival is None:
            to_retry.append(id)
        else:
            left_out.append((id, rival))
    return replace(batch, to_retry=tuple(to_retry), left_out=tuple(left_out))


def list_workers_of_batches_to_stop(
    connection: Connection, batches: Iterable[int]
) -> list[tuple[str, str]]:
    """The (queue, worker) pairs that run members of these canceled batches."""
    values = {"ids": list(batches)}
    rows = connection.execute(sql.load("list_workers_of_batches_to_stop"), values)
    return [(queue, worker) for queue, worker in rows]

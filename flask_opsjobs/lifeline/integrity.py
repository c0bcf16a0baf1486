"""Checks the integrity of each queue: counts its jobs, and compares live ones with Redis and heartbeats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from operator import attrgetter

from psycopg.rows import class_row
from sqlalchemy import select
from sqlalchemy.orm import Session

from ..core import sql
from ..core.db import Connection
from ..jobs.lifecycle import FINAL, STATES
from ..settings import Settings
from .models import IntegrityCheck

# Counting may take one fiftieth of the time. A million jobs take about 0.7 s on two busy cores. So jobs are
# counted every 10 s up to 300,000 jobs, every 30 s at a million, and every 6 minutes at ten million.
LEAST_BETWEEN_COUNTS = timedelta(seconds=10)
_SHARE = 50.0
_LONGEST_COUNT = "120s"
_MOST_ROWS = 20_000

Key = tuple[int, int]
# So many checks are returned at most, those with a difference among so many first.
_MOST_QUEUES, _MOST_READ = 500, 5_000
# So many queues with differences are read at once.
_AT_ONCE = 200


@dataclass(frozen=True)
class UnconfirmedDifferences:
    """Differences that one pass found.

    Only those that the next pass finds again count: the others were moving jobs.
    """

    nowhere: Mapping[Key, str] = field(default_factory=dict)
    orphan_deliveries: Mapping[Key, str] = field(default_factory=dict)
    # With the number of the heartbeat that first lacked the job.
    unreserved: Mapping[Key, int | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Differences:
    """By queue: queued jobs that are not in Redis, started jobs that nobody reserved, orphan deliveries."""

    nowhere: Mapping[str, int]
    unreserved: Mapping[str, int]
    orphan_deliveries: Mapping[str, int]

    @property
    def total(self) -> int:
        """Return the number of all differences."""
        return sum(
            sum(counts.values())
            for counts in (self.nowhere, self.unreserved, self.orphan_deliveries)
        )


def count_rows(connection: Connection, now: datetime) -> bool:
    """Count the jobs, unless a process has counted recently or is counting; return whether it counted.

    Commits.
    """
    with connection.transaction():
        is_alone = connection.execute(sql.load("lock_integrity_check")).fetchone() == (True,)
        if not is_alone or not _is_due(connection, now):
            return False
        connection.execute(f"SET LOCAL statement_timeout = '{_LONGEST_COUNT}'")
        live = [state for state in STATES if state not in FINAL]
        connection.execute(sql.load("count_integrity"), {"now": now, "live": live})
        return True


def _is_due(connection: Connection, now: datetime) -> bool:
    row = connection.execute(sql.load("find_last_count")).fetchone()
    if row is None or row[0] is None or row[0] > now:
        return True
    wait = max(LEAST_BETWEEN_COUNTS, timedelta(seconds=_SHARE * row[1]))
    return bool(now - row[0] >= wait)


@dataclass(frozen=True)
class QueueDifference:
    """What does not agree in one queue, as of the count at `counted_at`.

    `missing`: jobs that were enqueued, not deleted, and have no row; below 0, rows that nobody enqueued. Then
    queued jobs that are not in Redis, started ones that nobody holds, and orphan deliveries.
    """

    queue: str
    counted_at: datetime
    missing: int
    nowhere: int
    unreserved: int
    orphans: int


def list_differences(
    connection: Connection, now: datetime, settings: Settings
) -> list[QueueDifference]:
    """Return all queues whose counts do not agree, by name."""
    values = {"now": now, "is_rescued": settings.rescue == "automatic", "limit": _AT_ONCE}
    found: list[QueueDifference] = []
    with connection.cursor(row_factory=class_row(QueueDifference)) as cursor:
        while True:
            after = found[-1].queue if found else ""
            rows = cursor.execute(sql.load("list_differences"), {**values, "after": after})
            more = rows.fetchall()
            found += more
            if len(more) < _AT_ONCE:
                return found


def list_queued(connection: Connection, now: datetime, seconds: float) -> dict[Key, str]:
    """Return queued jobs, dispatched at least `seconds` ago, that nobody has reserved, with their queue."""
    page = {"now": now, "after": 0, "seconds": seconds, "limit": _MOST_ROWS}
    rows = connection.execute(sql.load("list_queued_jobs"), page).fetchall()
    named = _reserved(connection)
    return {(id, no): queue for id, no, queue in rows if f"{id}-{no}" not in named}


def find_orphan_deliveries(connection: Connection, deliveries: Mapping[Key, str]) -> dict[Key, str]:
    """Return those deliveries that have no valid row and that no worker reserved, with their queue."""
    parameters = {"ids": [id for id, _ in deliveries], "dispatch_nos": [no for _, no in deliveries]}
    valid = set(connection.execute(sql.load("find_valid_deliveries"), parameters).fetchall())
    named = _reserved(connection)
    return {
        key: queue
        for key, queue in deliveries.items()
        if key not in valid and f"{key[0]}-{key[1]}" not in named
    }


def _reserved(connection: Connection) -> set[str]:
    return {name for (name,) in connection.execute(sql.load("list_reserved_deliveries"))}


def confirm_differences(
    connection: Connection,
    before: UnconfirmedDifferences,
    nowhere: Mapping[Key, str],
    orphan_deliveries: Mapping[Key, str],
) -> tuple[UnconfirmedDifferences, Differences]:
    """Return the differences of this pass, and those of them that the pass `before` had found too."""
    rows = connection.execute(sql.load("list_unreserved_jobs"), {"limit": _MOST_ROWS}).fetchall()
    queues = {(id, no): queue for id, no, queue, _ in rows}
    heartbeats = {(id, no): heartbeat for id, no, _, heartbeat in rows}
    # Two heartbeats of a worker must lack the job: it may have claimed while it sent the first.
    unreserved = [
        key
        for key, heartbeat in heartbeats.items()
        if key in before.unreserved and (heartbeat is None or heartbeat != before.unreserved[key])
    ]
    since = {key: before.unreserved.get(key, heartbeat) for key, heartbeat in heartbeats.items()}
    found = Differences(
        nowhere=_by_queue(nowhere, before.nowhere),
        unreserved=_by_queue(queues, unreserved),
        orphan_deliveries=_by_queue(orphan_deliveries, before.orphan_deliveries),
    )
    return UnconfirmedDifferences(nowhere, orphan_deliveries, since), found


def _by_queue(now: Mapping[Key, str], before: Collection[Key]) -> dict[str, int]:
    return dict(Counter(queue for key, queue in now.items() if key in before))


def write_findings(
    connection: Connection,
    found: Differences,
    compared: Collection[str],
    now: datetime,
    *,
    is_complete: bool,
) -> None:
    """Write what was found, for the queues that were compared with Redis.

    When that was complete, also for all others of the integrity check. Commits, in autocommit.
    """
    others = {*found.nowhere, *found.unreserved, *found.orphan_deliveries} if is_complete else ()
    names = sorted({*compared, *others})
    parameters = {
        "is_complete": is_complete,
        "now": now,
        "queues": names,
        "nowhere": [found.nowhere.get(name, 0) for name in names],
        "unreserved": [found.unreserved.get(name, 0) for name in names],
        "orphan_deliveries": [found.orphan_deliveries.get(name, 0) for name in names],
    }
    connection.execute(sql.load("write_comparison"), parameters)


@dataclass(frozen=True)
class IntegrityRow:
    """One queue's check: counted at `counted_at`, compared with Redis and heartbeats at `compared_at`."""

    queue: str
    counted_at: datetime
    enqueued: int
    deleted: int
    stored: int
    waiting: int
    queued: int
    started: int
    compared_at: datetime | None
    queued_nowhere: int
    started_unreserved: int
    orphan_deliveries: int

    @property
    def difference(self) -> int:
        """Jobs that were enqueued, not deleted, and have no row.

        Below 0: rows were inserted outside `enqueue`.
        """
        return self.enqueued - self.deleted - self.stored

    @property
    def final(self) -> int:
        """Stored jobs that have ended."""
        return self.stored - self.waiting - self.queued - self.started

    @property
    def is_balanced(self) -> bool:
        """Whether no differences were found."""
        return not (
            self.difference
            or self.queued_nowhere
            or self.started_unreserved
            or self.orphan_deliveries
        )


# Built once, as in overview/pace_queries.py.
_CHECKS = (
    select(*(getattr(IntegrityCheck, name) for name in IntegrityRow.__annotations__))
    .order_by(IntegrityCheck.queue)
    .limit(_MOST_READ)
)


def list_integrity_checks(session: Session) -> Sequence[IntegrityRow]:
    """Return the integrity check of at most 500 queues, those with a difference first.

    None before the first count. Leaves out queues without jobs and without differences.
    """
    checks = [IntegrityRow(*row) for row in session.execute(_CHECKS)]
    found = [check for check in checks if check.stored or not check.is_balanced]
    return sorted(found, key=attrgetter("is_balanced"))[:_MOST_QUEUES]


def has_integrity_check(session: Session, queue: str) -> bool:
    """Whether the queue ever had a job that an integrity check counted."""
    found = select(IntegrityCheck.queue).where(IntegrityCheck.queue == queue)
    return session.scalars(found).one_or_none() is not None

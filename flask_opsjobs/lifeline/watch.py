"""Decides which workers are late or missing, and rescues their jobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg.rows import class_row, dict_row

from .. import endings
from ..audit import transitions as audit_transitions
from ..core import sql
from ..core.db import Connection
from ..endings import Ended
from ..settings import Settings
from .sweep import Swept, make_decision

# A worker's jobs are rescued in bounded steps; a pass that meets the limit is repeated at once.
_MOST_RESCUED = 1000


@dataclass(frozen=True)
class Orphans:
    """`started` jobs of a worker that has ended, or is unknown: then it has no name, kind or state."""

    worker_id: int
    name: str | None
    kind: str | None
    state: str | None
    heartbeat_at: datetime | None
    ended_at: datetime | None
    jobs: int
    last_claim_at: datetime

    @property
    def cause(self) -> str:
        """What is known of why their attempts ended."""
        if self.name is None:
            return f"its worker {self.worker_id} is unknown"
        if self.state == "stopped":
            return f"its worker {self.name} stopped without it"
        if self.kind == "plain":
            return f"worker vanished: RQ's key of {self.name} is gone"
        assert self.heartbeat_at is not None
        last = f"{self.heartbeat_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
        return f"worker vanished: no heartbeat after {last}"


@dataclass(frozen=True)
class Watched:
    """What a pass found: names of workers that became late, missing, or well again; what it rescued or left."""

    late: list[str]
    missing: list[str]
    well: list[str]
    rescued: list[Ended]
    orphans: int
    has_more: bool


def watch(
    connection: Connection,
    now: datetime,
    elapsed_seconds: float,
    settings: Settings,
    secrets: Sequence[bytes],
    *,
    after_commit: Callable[[Callable[[], None]], object] | None = None,
) -> Watched:
    """Judge every OpsWorker, and rescue orphans when `OPSJOBS_RESCUE` is automatic. The caller commits.

    `elapsed_seconds` is the time since the previous pass, of any watcher. It counts for two intervals at most: who was
    asleep has not seen that nobody sent a heartbeat. A clock that was stepped back makes it negative, and counts for
    nothing. What is rescued is one row in the audit, signed with `secrets`; `after_commit` is as `append` of the audit
    takes it. While the audit cannot be written that row waits in Postgres, and the first pass that can write it does.
    Locks workers, then jobs by id, then the audit's head.
    """
    changed = _judge(connection, now, elapsed_seconds, settings)
    left = list_orphans(connection)
    automatic = settings.rescue == "automatic"
    swept = _rescue_all(connection, left, now, settings) if automatic else []
    rescued = [job for one in swept for job in one.jobs]
    audit_transitions.append_pending(connection, secrets, now, after_commit=after_commit)
    if rescued:
        audit_transitions.append_or_keep(
            connection, secrets, make_decision(swept, now), after_commit=after_commit
        )
    return Watched(
        late=_names(changed, "late"),
        missing=_names(changed, "missing"),
        well=_names(changed, "alive"),
        rescued=rescued,
        orphans=sum(orphans.jobs for orphans in left) - len(rescued),
        has_more=len(rescued) >= _MOST_RESCUED,
    )


def _judge(
    connection: Connection, now: datetime, elapsed_seconds: float, settings: Settings
) -> list[dict[str, Any]]:
    """The workers whose state changed."""
    elapsed = min(max(elapsed_seconds, 0.0), 2 * settings.heartbeat_seconds)
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            sql.load("watch_workers"),
            {
                "now": now,
                "elapsed": elapsed,
                "late_seconds": settings.late_seconds,
                "missing_seconds": settings.missing_seconds,
            },
        ).fetchall()


def list_orphans(connection: Connection) -> list[Orphans]:
    """Who left `started` jobs behind. A join that finds few rows; locks nothing."""
    with connection.cursor(row_factory=class_row(Orphans)) as cursor:
        return cursor.execute(sql.load("list_orphans")).fetchall()


def _rescue_all(
    connection: Connection, left: list[Orphans], now: datetime, settings: Settings
) -> list[Swept]:
    """What was rescued, by worker; one of which nothing was is left out."""
    swept: list[Swept] = []
    room = _MOST_RESCUED
    for orphans in left:
        if room <= 0:
            break
        rescued = endings.rescue(
            connection,
            [orphans.worker_id],
            now,
            orphans.cause,
            claimed_before=_claimed_before(orphans, now, settings),
            limit=room,
        )
        room -= len(rescued)
        if rescued:
            swept.append(Swept(orphans.worker_id, orphans.name, orphans.cause, rescued))
    return swept


def _claimed_before(orphans: Orphans, now: datetime, settings: Settings) -> datetime:
    """Which claims are given up: those made before the worker was, and of the later ones only old ones.

    A worker that wakes up may claim a moment before its next heartbeat brings it back.
    """
    if orphans.last_claim_at >= now:
        # Claimed before the clock was stepped back: these times cannot be compared.
        return orphans.last_claim_at + timedelta(microseconds=1)
    long_ago = now - timedelta(seconds=settings.missing_seconds)
    return long_ago if orphans.ended_at is None else max(orphans.ended_at, long_ago)


def _names(changed: list[dict[str, Any]], state: str) -> list[str]:
    return [row["name"] for row in changed if row["state"] == state]

"""Tells with one statement whether anything that a page shows may have changed since an earlier look."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from ..core import sql
from ..core.db import Base
from ..lifeline.loop_runs import GRACE_SECONDS

# Workers and loops update rows of these tables although nothing happens, so such updates do not count; rows
# that are added or deleted do. What else is updated in the first three is a part of `Changes.state`. Of the
# others a page shows it when it is made anew.
REFRESHED = (
    "opsjobs.workers",
    "opsjobs.loop_runs",
    "opsjobs.incidents",
    "opsjobs.integrity_checks",
    "opsjobs.rq_places",
    "opsjobs.evidence",
    "opsjobs.pending_findings",
)
# The loop `roll_up` adds to these each minute. The charts move on when a page is made anew.
BY_MINUTE = ("opsjobs.depths", "opsjobs.rollup_position")
# What a heartbeat, or the loop that listens for it, writes into the row of a worker although nothing happens.
BEATS = (
    "heartbeat_no",
    "heartbeat_at",
    "watched_heartbeat_no",
    "silent_seconds",
    "rss_kb",
    "counts",
    "pool",
)
# What a detector writes into the row of an incident that it has found again, or has not.
SEEN = ("seen_at", "seen_count", "missed_passes")


@dataclass(frozen=True)
class Changes:
    """What an earlier look is compared with: both are the same as long as nothing has changed.

    Postgres' counters, of which `changed_rows` is the sum, may be behind: a session that has just told its
    numbers keeps the next ones for up to 10 s. `state` is never behind.
    """

    now: datetime
    changed_rows: int
    state: str


def find_changes(
    connection: Connection, late_seconds: float, now: datetime | None = None
) -> Changes:
    """Look, as of `now`, by default Postgres' own time."""
    counted = [name for name in Base.metadata.tables if name not in BY_MINUTE]
    values = {
        # Postgres reads the word as the time of the transaction, so that its clock needs no statement.
        "now": now or "now",
        "tables": counted,
        "refreshed": list(REFRESHED),
        "beats": list(BEATS),
        "seen": list(SEEN),
        "late_seconds": late_seconds,
        "grace_seconds": GRACE_SECONDS,
    }
    found = connection.exec_driver_sql(sql.load("find_page_changes"), values).one()
    return Changes(*found)

"""Records and reads when each loop ran. A loop that did not run must not count that time as silence."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg.rows import scalar_row
from sqlalchemy.orm import Session

from ..core import sql
from ..core.db import Connection
from ..core.round_trips import start_reading

# A loop is silent when it has missed this many passes, plus some seconds for the duration of a pass.
_PASSES_MISSED = 3
GRACE_SECONDS = 5


@dataclass(frozen=True)
class Note:
    """One pass of a loop, its process and its result. `error` is None when it succeeded."""

    loop: str
    process: str
    every_seconds: float
    took_seconds: float
    report: str
    error: str | None = None
    is_idle: bool = False


def note_pass(connection: Connection, run_id: int | None, note: Note, now: datetime) -> int:
    """Record a pass; return the id of its stretch, which the next pass of this process gives as `run_id`.

    A gap of three intervals or more, or a clock that was stepped back, begins a new stretch. In autocommit it
    commits; otherwise the caller commits.
    """
    row = {"id": run_id, "now": now, **vars(note)}
    with connection.cursor(row_factory=scalar_row) as cursor:
        found: int | None = cursor.execute(sql.load("record_loop_run"), row).fetchone()
    assert found is not None
    return found


def seconds_since_last_pass(connection: Connection, loop: str, now: datetime) -> float:
    """Return how many seconds ago any copy of the loop last made a pass; 0 when none ever did.

    All copies count together. Otherwise two copies would add up the same silence of a worker twice.
    """
    with connection.cursor(row_factory=scalar_row) as cursor:
        last: datetime | None = cursor.execute(
            sql.load("find_last_pass"), {"loop": loop, "now": now}
        ).fetchone()
    return 0.0 if last is None else (now - last).total_seconds()


def find_newest_pass(connection: Connection, now: datetime) -> datetime | None:
    """Return when any copy of any loop last made a pass; None when none ever did."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        found: datetime | None = cursor.execute(
            sql.load("find_newest_pass"), {"now": now}
        ).fetchone()
    return found


@dataclass(frozen=True)
class LoopRow:
    """The last stretch in which a loop ran. `took_seconds` is the duration of its last pass.

    `due_by` is when its next pass was due at the latest, and then it is silent unless a pass is under way.
    """

    loop: str
    process: str
    started_at: datetime
    last_at: datetime
    every_seconds: float
    took_seconds: float
    report: str | None
    error: str | None
    due_by: datetime
    is_running: bool


def list_loops(
    session: Session, now: datetime, loops_off: Collection[str] = ()
) -> Sequence[LoopRow]:
    """Return the last stretch of every loop that ever ran, ordered by name.

    `loops_off` are left out: a loop that the settings turn off is not silent.
    """
    values = {"now": now, "grace_seconds": GRACE_SECONDS}
    rows = session.connection().exec_driver_sql(sql.load("list_latest_loop_runs"), values)
    return [LoopRow(*row) for row in rows if row.loop not in loops_off]


def find_loop(session: Session, now: datetime, name: str) -> LoopRow | None:
    """Return the last stretch of this loop; None when it never ran."""
    return next((loop for loop in list_loops(session, now) if loop.loop == name), None)


@dataclass(frozen=True)
class Watch:
    """When a loop ran: `windows` are the times in which no copy of it did, the oldest first.

    The last window has no end while the loop is silent.
    """

    loop: LoopRow
    windows: Sequence[tuple[datetime, datetime | None]]


def list_watches(
    session: Session, since: datetime, now: datetime, loops_off: Collection[str] = ()
) -> Sequence[Watch]:
    """Return every loop with the windows since then in which it did not run, ordered by name.

    A gap that is no longer than a silent loop's is none. Of each loop the last 200 stretches are read.
    """
    listing = start_reading(session, list_loops, now, loops_off)
    rows = session.connection().exec_driver_sql(sql.load("list_loop_stretches"), {"since": since})
    stretches: dict[str, list[tuple[datetime, datetime]]] = {}
    for loop, started_at, last_at in rows:
        stretches.setdefault(loop, []).append((started_at, last_at))
    return [
        Watch(loop, _windows(loop, stretches.get(loop.loop, []), since)) for loop in listing.value
    ]


def _windows(
    loop: LoopRow, stretches: Sequence[tuple[datetime, datetime]], since: datetime
) -> list[tuple[datetime, datetime | None]]:
    least = timedelta(seconds=_PASSES_MISSED * loop.every_seconds + GRACE_SECONDS)
    found: list[tuple[datetime, datetime | None]] = []
    seen_until = since
    for started_at, last_at in sorted(stretches):
        if started_at - seen_until > least:
            found.append((seen_until, started_at))
        seen_until = max(seen_until, last_at)
    if not loop.is_running:
        found.append((seen_until, None))
    return found

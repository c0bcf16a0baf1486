"""Records when each loop was awake, because a loop that slept must not count the missed time as silence."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import scalar_row

from ..core import sql
from ..core.db import Connection


@dataclass(frozen=True)
class Note:
    """One pass of a loop, its process and its result. `error` is None when it succeeded."""

    loop: str
    process: str
    every_seconds: float
    took_seconds: float
    said: str
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

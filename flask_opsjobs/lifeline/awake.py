"""Records when each loop was awake: a detector that slept has seen nothing and must conclude nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import scalar_row

from ..core import sql
from ..core.db import Connection


@dataclass(frozen=True)
class Note:
    """One pass of a loop: which, where, and what came of it. `error` is None when it went well."""

    loop: str
    process: str
    every_seconds: float
    took_seconds: float
    said: str
    error: str | None = None
    is_idle: bool = False


def note_pass(connection: Connection, run_id: int | None, note: Note, now: datetime) -> int:
    """Record a pass; the id of its stretch, to be given with the next pass of this process.

    A gap of three intervals or more, and a clock that was stepped back, begin a new stretch. The caller commits, or it
    commits at once in autocommit.
    """
    row = {"id": run_id, "now": now, **vars(note)}
    with connection.cursor(row_factory=scalar_row) as cursor:
        found: int | None = cursor.execute(sql.load("record_loop_run"), row).fetchone()
    assert found is not None
    return found


def seconds_since_last_pass(connection: Connection, loop: str, now: datetime) -> float:
    """How long ago any copy of the loop last made a pass; 0 when none ever did.

    Passes of all copies count as one watcher, so that two of them do not see time go by twice as fast.
    """
    with connection.cursor(row_factory=scalar_row) as cursor:
        last: datetime | None = cursor.execute(
            sql.load("find_last_pass"), {"loop": loop, "now": now}
        ).fetchone()
    return 0.0 if last is None else (now - last).total_seconds()

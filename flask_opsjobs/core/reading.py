"""Reads Postgres' clock, and a page or report on one snapshot, so that its numbers agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import scalar_row
from sqlalchemy import Connection, func, select
from sqlalchemy.orm import Session

from . import db

# Every query of a page or a scrape walks an index and stops early. So a sequential scan, or a bitmap scan
# that first collects all jobs of a state, is always wrong, even when outdated statistics suggest it. So is
# the generic plan that a prepared statement may get after its fifth run.
PAGE_PLANS = {
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "plan_cache_mode": "force_custom_plan",
}


@dataclass(frozen=True)
class Reading:
    """A session that can only read, and Postgres' time at its start."""

    session: Session
    now: datetime


@contextmanager
def read_snapshot(
    connection: Connection, seconds: float, settings: Mapping[str, str] | None = None
) -> Iterator[Reading]:
    """Yield the snapshot, and close the connection at the end. No statement may take longer than `seconds`.

    Its times are in UTC, whatever zone the database has. `settings` are further settings of Postgres, which
    last as long as the transaction.
    """
    options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with connection.execution_options(**options):
        # `set_config(…, true)` is SET LOCAL: all settings in one round trip, until the transaction ends.
        limit = f"{int(seconds * 1000)}"
        chosen = {"statement_timeout": limit, "TimeZone": "UTC", **(settings or {})}
        wanted = [func.set_config(name, value, True) for name, value in chosen.items()]
        now = connection.execute(select(func.clock_timestamp(), *wanted)).one()[0]
        with Session(connection, autoflush=False) as session:
            yield Reading(session, now)


def forbid_writes(connection: Connection, seconds: float) -> None:
    """Let the transaction that has just begun only read, and each statement take at most `seconds`."""
    limits = {"transaction_read_only": "on", "statement_timeout": f"{int(seconds * 1000)}"}
    connection.execute(
        select(*(func.set_config(name, value, True) for name, value in limits.items()))
    )


def read_clock(connection: db.Connection) -> datetime:
    """Return the time of Postgres' clock. A pass of a loop reads it once."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        now: datetime | None = cursor.execute("SELECT clock_timestamp()").fetchone()
    assert now is not None
    return now

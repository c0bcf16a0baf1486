"""Reads Postgres' clock, and a page or report on one snapshot, so that its numbers agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import count
from typing import Any

from psycopg.rows import scalar_row
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Executable,
    Result,
    Select,
    Text,
    cast,
    func,
    select,
)
from sqlalchemy.orm import Session

from . import db
from .round_trips import StartedRead, snapshot_of, start_reading

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

# What helps when a statement took longer than `read_snapshot` lets it; a search can also be narrowed.
WHAT_HELPS = "Try again. OPSJOBS_PAGE_TIMEOUT_SECONDS sets the limit."
WHAT_NARROWS = (
    "Narrow the filter, to one state or to created:<1d, or try again. "
    "OPSJOBS_PAGE_TIMEOUT_SECONDS sets the limit."
)


@dataclass(frozen=True)
class Reading:
    """A session that can only read."""

    session: Session
    began: StartedRead[datetime]

    @property
    def now(self) -> datetime:
        """Postgres' time at its start. The first to ask waits for it, together with what was started."""
        return self.began.value


@contextmanager
def read_snapshot(
    connection: Connection, seconds: float, settings: Mapping[str, str] | None = None
) -> Iterator[Reading]:
    """Yield the snapshot, and close the connection at the end. No statement may take longer than `seconds`.

    Its times are in UTC, whatever zone the database has. `settings` are further settings of Postgres, which
    last as long as the transaction. What is started by `start_reading` has ended when the snapshot ends.
    """
    # `set_config(…, true)` is SET LOCAL: all settings in one statement, until the transaction ends.
    limit = f"{int(seconds * 1000)}"
    chosen = {"statement_timeout": limit, "TimeZone": "UTC", **(settings or {})}
    wanted = [func.set_config(name, value, True) for name, value in chosen.items()]
    with connection, Session(connection, autoflush=False) as session, snapshot_of(connection):
        opening = select(func.clock_timestamp(), *wanted)
        read = Reading(session, start_reading(session, _begin, opening))
        yield read
        assert read.now  # pages name it after the snapshot too


def _begin(session: Session, statement: Select[Any]) -> datetime:
    now: datetime = session.execute(statement).one()[0]
    return now


def execute_with(
    session: Session,
    statement: Executable,
    params: Mapping[str, Any] | None = None,
    /,
    **settings: str | ColumnElement[str],
) -> Result[*tuple[Any, ...]]:
    """Execute a statement with other settings of Postgres, and set them back, in one round trip.

    No statement of another function comes between, whatever was started.
    """
    choose, set_back = _choose(tuple(settings.items()))
    start_reading(session, Session.execute, choose)
    found = start_reading(session, Session.execute, statement, params)
    start_reading(session, Session.execute, set_back)
    return found.value


@lru_cache(maxsize=8)
def _choose(
    settings: tuple[tuple[str, str | ColumnElement[str]], ...],
) -> tuple[Select[*tuple[Any, ...]], Select[*tuple[Any, ...]]]:
    """What sets these settings, and what sets them back: to make them takes longer than to send them."""
    chosen = [
        function
        for name, value in settings
        for function in (
            func.set_config(f"opsjobs.{name}", func.current_setting(name), True),
            func.set_config(name, value, True),
        )
    ]
    back = [
        func.set_config(
            name,
            func.coalesce(_read_setting(f"opsjobs.{name}"), func.current_setting(name)),
            True,
        )
        for name, _ in settings
    ]
    return select(*chosen), select(*back)


class KeptValue:
    """A value that one statement keeps in Postgres, so that later ones of the snapshot can use it.

    So they need not wait for its answer: all are sent in one round trip. The planner knows the value. Each
    has a setting of the transaction of its own, so that no two searches of a page mix theirs.
    """

    def __init__(self, session: Session, default: Any, kind: Any = BigInteger) -> None:
        # Numbers, since a connection remembers the name of each setting that it ever had.
        numbers = session.info.setdefault("opsjobs.kept", count(1))
        self.setting = f"opsjobs.kept_{next(numbers)}"
        self._default = default
        self._kind = kind

    def keep(self, value: ColumnElement[Any]) -> ColumnElement[str]:
        """What keeps the value, as a column of the statement that finds it."""
        return func.set_config(self.setting, cast(value, Text), True)

    def read(self) -> ColumnElement[Any]:
        """The value in a later statement; the default when none was kept."""
        return cast(func.coalesce(_read_setting(self.setting), str(self._default)), self._kind)


def _read_setting(name: str) -> ColumnElement[str]:
    # Where each statement is a transaction of its own, nothing is kept.
    return func.nullif(func.current_setting(name, True), "")


def estimate_rows(session: Session, statement: Select[*tuple[Any, ...]]) -> int:
    """How many rows Postgres expects of a statement, from its statistics. It reads none."""
    connection = session.connection()
    made = statement.compile(
        dialect=connection.dialect, compile_kwargs={"render_postcompile": True}
    )
    explain = f"EXPLAIN (FORMAT JSON) {made}"
    plan = connection.exec_driver_sql(explain, made.construct_params()).scalar_one()
    return int(plan[0]["Plan"]["Plan Rows"])


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

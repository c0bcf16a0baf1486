"""Each kind of change is found by the look of a poll, or is one that a page shows when it is made anew."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Column, Connection, NullPool, create_engine, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from flask_opsjobs.core.db import Base
from flask_opsjobs.host import Host
from flask_opsjobs.overview.changes import BEATS, BY_MINUTE, REFRESHED, SEEN, Changes, find_changes
from flask_opsjobs.tables import metadata
from tests.support.database import Administrator
from tests.web.rows import ago, make_incident, make_loops, make_worker

# Of what these tables hold, a page shows an update at the latest when it is made anew. A new table whose
# updates shall not count needs a line here, with each column that is not looked at otherwise.
ANEW: dict[str, set[str]] = {
    "opsjobs.workers": set(BEATS),
    "opsjobs.loop_runs": {
        "id",
        "every_seconds",
        "passes",
        "took_seconds",
        "report",
        "failed_in_a_row",
    },
    "opsjobs.incidents": set(SEEN),
    # What they tell of is wrong becomes an incident.
    "opsjobs.integrity_checks": {"*"},
    "opsjobs.rq_places": {"*"},
    "opsjobs.pending_findings": {"*"},
    # How often something was seen again.
    "opsjobs.evidence": {"*"},
}
LOOKED_AT = [name for name, columns in ANEW.items() if columns != {"*"}]
_VALUES = {
    "TEXT": ("'x'", "coalesce({}, '') || 'x'"),
    "BOOLEAN": ("true", "NOT coalesce({}, false)"),
    "JSONB": ("'{{}}'", """'{{"x": 1}}'"""),
    "BYTEA": (r"'\x00'", r"'\x01'"),
    "TIMESTAMP WITH TIME ZONE": ("now()", "coalesce({}, now()) - interval '1 h'"),
    "TEXT[]": ("'{{x}}'", "'{{y}}'"),
}
_NUMBERS = ("7", "coalesce({}, 0) + 1")
_ARRAYS = ("'{{1}}'", "'{{2}}'")


def value_of(column: Column[Any], *, other: bool = False) -> str:
    """An expression for a column of a new row, or for another value than the one that a row has."""
    kind = column.type.compile(dialect=postgresql.dialect())
    pair = _VALUES.get(kind, _ARRAYS if kind.endswith("[]") else _NUMBERS)
    return pair[other].format(f'"{column.name}"')


class Looking:
    """Writes to a database without its constraints and triggers, and looks for changes after each write."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def look(self, late_seconds: float = 20) -> Changes:
        return find_changes(self.connection, late_seconds)

    def free(self, table: str) -> None:
        """Let any row be written, until the transaction ends."""
        self.connection.execute(text("SET LOCAL session_replication_role = replica"))
        names = self.connection.scalars(
            text(
                "SELECT conname FROM pg_constraint WHERE conrelid = :table ::regclass AND contype = 'c'"
            ),
            {"table": table},
        ).all()
        for name in names:
            self.connection.execute(text(f"ALTER TABLE {table} DROP CONSTRAINT {name}"))

    def count(self, table: str, *statements: str) -> int:
        """How many changed rows are found after these. Postgres counts them although they are rolled back."""
        self.free(table)
        for statement in statements:
            self.connection.exec_driver_sql(statement)
        # Else it might keep the numbers for ten seconds.
        self.connection.execute(text("SELECT pg_stat_force_next_flush()"))
        self.connection.rollback()
        found = self.look().changed_rows
        self.connection.rollback()
        return found


@pytest.fixture
def session(host: Host) -> Iterator[Session]:
    with Session(host.engine, expire_on_commit=False) as session:
        yield session


@pytest.fixture
def looking(host: Host) -> Iterator[Looking]:
    with host.engine.connect() as connection:
        yield Looking(connection)


@pytest.mark.parametrize("name", sorted(metadata.tables))
def test_each_row_that_is_written_is_found(looking: Looking, name: str) -> None:
    table = metadata.tables[name]
    written = [column for column in table.columns if column.computed is None]
    columns = ", ".join(f'"{column.name}"' for column in written)
    values = ", ".join(map(value_of, written))
    column = next(iter(table.columns))
    add = f"INSERT INTO {name} ({columns}) VALUES ({values})"
    last = f"WHERE ctid = (SELECT max(ctid) FROM {name})"
    change = f'UPDATE {name} SET "{column.name}" = {value_of(column, other=True)} {last}'
    remove = f"DELETE FROM {name} {last}"
    before = looking.count(name)
    counts = [looking.count(name, *steps) for steps in ((add,), (add, change), (add, remove))]
    added, changed, deleted = (
        after - then for then, after in zip([before, *counts], counts, strict=False)
    )
    if name in BY_MINUTE:
        assert (added, changed, deleted) == (0, 0, 0)
    else:
        assert added == 1
        assert deleted == 2
        assert changed == (1 if name in REFRESHED else 2)


def test_no_table_is_left_out() -> None:
    assert set(Base.metadata.tables) == set(metadata.tables)
    assert set(ANEW) == set(REFRESHED)


@pytest.mark.parametrize("name", LOOKED_AT)
def test_an_update_that_does_not_count_is_seen_in_the_state(
    looking: Looking, session: Session, name: str
) -> None:
    make_worker(session)
    make_loops(session)
    make_incident(session)
    session.commit()
    for column in metadata.tables[name].columns:
        if column.name in ANEW[name]:
            continue
        looking.free(name)
        before = looking.look().state
        looking.connection.exec_driver_sql(
            f'UPDATE {name} SET "{column.name}" = {value_of(column, other=True)}'
        )
        assert looking.look().state != before, column.name
        looking.connection.rollback()


def test_the_state_changes_with_time_alone(looking: Looking, session: Session) -> None:
    make_worker(session, heartbeat_at=ago(seconds=1))
    make_loops(session)
    session.commit()
    first = looking.look()
    assert (
        find_changes(looking.connection, 20, first.now + timedelta(seconds=2)).state == first.state
    )
    late = find_changes(looking.connection, 20, first.now + timedelta(seconds=22))
    silent = find_changes(looking.connection, 20, first.now + timedelta(hours=2))
    assert len({first.state, late.state, silent.state}) == 3


def test_a_beating_worker_changes_nothing(looking: Looking, session: Session) -> None:
    worker = make_worker(session)
    session.commit()
    found = []
    for _ in range(2):
        # Else Postgres might keep the numbers of the session for ten seconds.
        session.execute(text("SELECT pg_stat_force_next_flush()"))
        worker.heartbeat_no += 1
        worker.heartbeat_at += timedelta(seconds=1)
        session.commit()
        looked = looking.look()
        looking.connection.rollback()
        found.append((looked.changed_rows, looked.state))
    assert found[0] == found[1]


def test_it_runs_on_a_schema_that_lacks_a_table(looking: Looking) -> None:
    looking.connection.exec_driver_sql("ALTER TABLE opsjobs.task_pauses RENAME TO later")
    assert looking.look().changed_rows >= 0


def test_a_role_that_owns_nothing_finds_the_same(
    looking: Looking, administrator: Administrator
) -> None:
    engine = create_engine(administrator.url_of_role(), poolclass=NullPool)
    with engine.connect() as connection:
        assert find_changes(connection, 20).changed_rows == looking.look().changed_rows > 0

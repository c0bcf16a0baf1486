"""Says what a downgrade of the schema would lose, and refuses it while processes need what it takes back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from flask import current_app, has_app_context
from sqlalchemy import Connection

from ..core import sql
from ..core.words import counted
from ..errors import MigrationBlocked
from ..lifeline.alive import list_processes_here
from ..settings import SETTINGS

_TABLES = re.compile(r"DROP TABLE (opsjobs\.\w+(?:, opsjobs\.\w+)*)")
_COLUMNS = re.compile(r"(DROP|ADD) COLUMN (\w+)")
_ALTERED = re.compile(r"ALTER TABLE (opsjobs\.\w+)")
_DELETED = re.compile(r"DELETE FROM (opsjobs\.\w+) WHERE (.+)")
_DEFAULT = """
SELECT pg_get_expr(d.adbin, d.adrelid)
FROM pg_attribute a JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = %s::regclass AND a.attname = %s
"""
# A larger table is not counted to its end.
_MOST_COUNTED = 1_000_000


class _Statements:
    """Takes the place of alembic's `op`, and runs nothing: keeps what a step would execute."""

    def __init__(self) -> None:
        self.kept: list[str] = []

    def execute(self, statement: str) -> None:
        """Keep a statement, on one line."""
        self.kept.append(" ".join(statement.split()))


def list_losses(connection: Connection, steps: Sequence[ModuleType]) -> Iterator[str]:
    """What a downgrade of these steps would remove that holds something, a line each."""
    undone = [_Statements() for _ in steps]
    for step, op in zip(steps, undone, strict=True):
        step.downgrade(op)
    dropped = {table for op in undone for each in op.kept for table in _list_tables(each)}
    for op in undone:
        # A step may fill a column for the older version, and delete by it: such rows are no loss.
        added = {name for each in op.kept for how, name in _COLUMNS.findall(each) if how == "ADD"}
        for statement in op.kept:
            for what, rows in _removed(connection, statement, added):
                # Of a table that goes, now or with a later step, nothing else is said.
                if what != rows and rows.partition(" ")[0] in dropped:
                    continue
                number = count_up_to_a_million(connection, rows)
                if number:
                    yield f"{what}: {say_rows(number)}"


def _list_tables(statement: str) -> list[str]:
    """The tables that a statement drops."""
    return [table for tables in _TABLES.findall(statement) for table in tables.split(", ")]


def _removed(connection: Connection, statement: str, added: set[str]) -> Iterator[tuple[str, str]]:
    """What a statement removes, and the rows that hold it, as they stand after FROM."""
    for table in _list_tables(statement):
        yield table, table
    for table in _ALTERED.findall(statement):
        for how, column in _COLUMNS.findall(statement):
            if how == "DROP":
                default = connection.exec_driver_sql(_DEFAULT, (table, column)).scalar()
                empty = f"{column} IS NOT DISTINCT FROM {default or 'NULL'}"
                yield f"{table}.{column}", f"{table} WHERE NOT ({empty})"
    for table, condition in _DELETED.findall(statement):
        if added.isdisjoint(re.findall(r"\w+", condition)):
            yield f"{table} where {condition}", f"{table} WHERE {condition}"


def count_up_to_a_million(connection: Connection, rows: str) -> int:
    """How many of these rows there are; a million and one when there are more than a million."""
    some = f"SELECT FROM {rows} LIMIT {_MOST_COUNTED + 1}".replace("%", "%%")
    number: int = connection.exec_driver_sql(
        f"SELECT count(*) FROM ({some}) AS counted"
    ).scalar_one()
    return number


def say_rows(number: int) -> str:
    """The number that `count_up_to_a_million` returned, in words."""
    more = "more than " if number > _MOST_COUNTED else ""
    return f"{more}{counted(min(number, _MOST_COUNTED), 'row')}"


def require_stopped(connection: Connection, to: int, *, are_all_here: bool) -> None:
    """Return when no loops sent a heartbeat just now, and no worker that knows a newer schema than `to`.

    Raises `MigrationBlocked` and names those that did. They would go on with a schema that is gone. When they
    `are_all_here`, on this machine, those whose process is gone do not count.
    """
    late = _late_seconds()
    running = list_running(connection, late, to, can_see_gone=are_all_here)
    if running:
        raise MigrationBlocked(
            f"the schema opsjobs is not downgraded to version {to}, because "
            f"{', '.join(running)} sent a heartbeat just now, and may work with a newer schema; "
            "nothing was changed. Stop all loops, and the workers whose code is newer than this version, "
            f"wait {late:g} s, and run the downgrade again"
        )


def list_running(
    connection: Connection, late_seconds: float, schema: int | None = None, *, can_see_gone: bool
) -> list[str]:
    """Which workers and loops of ours sent a heartbeat lately; of workers those that know a newer `schema`.

    When we `can_see_gone`, those of this machine whose process is gone are left out.
    """
    now = connection.exec_driver_sql("SELECT clock_timestamp()").scalar_one()
    values = {"now": now, "late_seconds": late_seconds, "schema": schema}
    running = {who for (who,) in connection.exec_driver_sql(sql.load("list_running"), values)}
    if running and can_see_gone:
        session: Any = connection.connection.driver_connection
        here = list_processes_here(session, None, None, late_seconds)
        running -= {process.who for process in here if process.is_gone}
    return sorted(running)


def _late_seconds() -> float:
    """After how many seconds without a heartbeat a process counts as gone."""
    if has_app_context() and "opsjobs" in current_app.extensions:
        late: float = current_app.extensions["opsjobs"].settings.late_seconds
        return late
    default: Any = next(each.default for each in SETTINGS if each.key == "LATE_SECONDS")
    return float(default)

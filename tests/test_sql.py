"""The statements in `*.sql`: Postgres prepares each one, and each that sets a state is named by an arrow."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest

from flask_opsjobs.batches import lifecycle as batches
from flask_opsjobs.core import sql
from flask_opsjobs.cron import lifecycle as cron
from flask_opsjobs.escalations import lifecycle as escalations
from flask_opsjobs.jobs import lifecycle as jobs
from flask_opsjobs.leases import lifecycle as leases
from flask_opsjobs.lifeline import lifecycle as lifeline
from flask_opsjobs.operations import lifecycle as operations
from flask_opsjobs.queues import lifecycle as queues
from flask_opsjobs.workers import lifecycle as workers
from flask_opsjobs.workflows import lifecycle as workflows
from tests.support import sources
from tests.support.database import Databases

# Part of other statements: Postgres prepares them there.
PARTS = (
    "append_workflow_end_events",
    "append_batch_end_events",
    "append_task_ends",
    "sum_task_counts",
    "add_task_counts",
)
FILES = [path for path in sources.files("flask_opsjobs", "*.sql") if path.stem not in PARTS]

# --- Postgres prepares them

# Postgres prepares only statements that read or write rows. These others run, without a row.
_UTILITY = re.compile(r"(COPY|CREATE|ANALYZE|DROP) ")


@pytest.fixture(scope="module")
def connection(databases: Databases) -> Iterator[psycopg.Connection[Any]]:
    """A session of a database with our schema, and in it the temporary table that `enqueue_many` fills."""
    url = databases.migrated()
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(dsn, prepare_threshold=None) as connection:
        connection.execute(_read("create_calls"))
        yield connection
        connection.rollback()
    databases.drop(url)


def _read(name: str, *, traced: bool = False) -> str:
    return sql.load(name, traced=traced).replace("{calls}", "calls")


def _prepare(connection: psycopg.Connection[Any], statement: str) -> None:
    """Let Postgres read a statement with its tables, columns and types, and plan it. Runs nothing.

    As psycopg sends it: `$1` for `%(name)s`, of a type that Postgres finds.
    """
    names: list[str] = []

    def number(parameter: re.Match[str]) -> str:
        if parameter[1] not in names:
            names.append(parameter[1])
        return f"${names.index(parameter[1]) + 1}"

    numbered = re.sub(r"%\((\w+)\)s", number, statement).replace("%%", "%")
    with connection.transaction(force_rollback=True):
        connection.execute("DEALLOCATE ALL")
        connection.execute(f"PREPARE statement AS {numbered}")
        values = f"({', '.join(['NULL'] * len(names))})" if names else ""
        connection.execute(f"EXPLAIN EXECUTE statement{values}")


def _run_utility(connection: psycopg.Connection[Any], statement: str) -> None:
    with connection.transaction(force_rollback=True), connection.cursor() as cursor:
        if statement.startswith("COPY"):
            with cursor.copy(statement):
                pass
        elif statement.startswith("CREATE"):
            cursor.execute(statement.replace(" calls ", " other_calls "))
        else:
            cursor.execute(statement)


# Those that enqueue jobs with a trace context too.
TRACED = [path for path in FILES if "{traced:" in path.read_text()]
# Those that read the trace context of another job.
READ_TRACES = ("find_traced_past", "run_jobs_again")


@pytest.mark.parametrize(
    ("path", "traced"),
    [*((path, False) for path in FILES), *((path, True) for path in TRACED)],
    ids=lambda value: value.stem if isinstance(value, Path) else "traced" * value,
)
def test_postgres_prepares_it(
    path: Path, traced: bool, connection: psycopg.Connection[Any]
) -> None:
    statement = _read(path.stem, traced=traced)
    assert ("traceparent" in statement) is (traced or path.stem in READ_TRACES)
    if _UTILITY.match(statement):
        _run_utility(connection, statement)
    else:
        _prepare(connection, statement)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_in_statements(part: str) -> None:
    assert any(f"{{{part}.sql}}" in path.read_text() for path in FILES)


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("SELECT id, colour FROM opsjobs.jobs", "UndefinedColumn"),
        ("UPDATE opsjobs.jobs SET colour = %(colour)s", "UndefinedColumn"),
        ("SELECT FROM opsjobs.colours", "UndefinedTable"),
        ("SELECT FROM opsjobs.jobs WHERE id = now()", "UndefinedFunction"),
        ("SELECT id FRM opsjobs.jobs", "SyntaxError"),
    ],
)
def test_a_broken_statement_is_found(
    statement: str, error: str, connection: psycopg.Connection[Any]
) -> None:
    with pytest.raises(getattr(psycopg.errors, error)):
        _prepare(connection, statement)


def test_a_broken_copy_is_found(connection: psycopg.Connection[Any]) -> None:
    with pytest.raises(psycopg.errors.UndefinedColumn):
        _run_utility(connection, "COPY opsjobs.jobs (colour) FROM STDIN")


# --- a statement that names jobs says whose rows it means

# By which condition a statement reads or writes only one kind of rows: as its header says it, and how it
# shows in the statement.
CONDITIONS = {
    "opsjobs, by origin": r"origin = 'opsjobs'",
    "opsjobs, since no other is available": r"'available'",
    "opsjobs, which it inserts": r"(INSERT INTO|COPY) opsjobs\.jobs\b",
    "opsjobs, by their runs": r"workflow_id|opsjobs\.steps",
    "opsjobs, by their batches": r"batch_id",
    "opsjobs, by their cron entries": r"cron_entry",
    "opsjobs, by their limiters": r"limiter",
    "opsjobs, by their reservations": r"reserved_by = ",
    "opsjobs, by their unique keys": r"unique_(key|until|locks)",
    # Only an adopted job has facts of RQ.
    "rq": r"origin = 'rq'|opsjobs\.rq_facts\b",
    "rq, which it inserts": r"INSERT INTO opsjobs\.jobs\b.*'rq'",
    "both": "",
}
_NAMES_JOBS = re.compile(r"opsjobs\.jobs\b")


def find_fault_of_rows(text: str) -> str | None:
    """What is wrong with what a statement says of its rows; None when it is right, or names no jobs."""
    lines = text.splitlines()
    body = "\n".join(line for line in lines if not line.lstrip().startswith("--"))
    said = [
        line.removeprefix("-- Rows: ").removesuffix(".") for line in lines if "-- Rows: " in line
    ]
    if not _NAMES_JOBS.search(body):
        return None
    if len(said) != 1:
        return "say once in its header whose rows it means: a line '-- Rows: …'"
    if said[0] not in CONDITIONS:
        return f"its rows are {said[0]!r}: say one of {', '.join(CONDITIONS)}"
    if not re.search(CONDITIONS[said[0]], body, re.DOTALL):
        return f"its rows are {said[0]!r}, and no condition makes that true: {CONDITIONS[said[0]]}"
    return None


@pytest.mark.parametrize(
    "path", sources.files("flask_opsjobs", "*.sql"), ids=lambda path: path.stem
)
def test_it_says_whose_rows_it_means(path: Path) -> None:
    assert find_fault_of_rows(path.read_text()) is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("SELECT FROM opsjobs.jobs", "say once"),
        ("-- Rows: both.\n-- Rows: both.\nSELECT FROM opsjobs.jobs", "say once"),
        ("-- Rows: ours.\nSELECT FROM opsjobs.jobs", "say one of"),
        ("-- Rows: opsjobs, by origin.\nSELECT FROM opsjobs.jobs", "no condition makes that true"),
        ("-- origin = 'rq'\n-- Rows: rq.\nSELECT FROM opsjobs.jobs", "no condition"),
    ],
)
def test_what_is_wrong_with_rows_is_found(text: str, fault: str) -> None:
    assert fault in (find_fault_of_rows(text) or "")


# --- a state is set by an arrow's statement

# The columns that make the state of a row.
STATE_COLUMNS = {
    "jobs": ("state",),
    "queues": ("is_paused", "is_draining"),
    "cron_entries": ("is_paused", "retired_at"),
    "workers": ("state",),
    "workflows": ("state",),
    "batches": ("state",),
    "incidents": ("state",),
    "operations": ("state",),
    # A lease has no column of its state: it begins and ends.
    "leases": ("dispatch_no",),
    "escalations": ("state",),
}


def _made_by(arrows: Sequence[Any]) -> set[str]:
    return {name for arrow in arrows for name in arrow.made_by}


# What the lifecycles say.
MADE_BY = {
    "jobs": _made_by(jobs.ARROWS) | {*jobs.BEGUN_BY},
    "queues": _made_by(queues.ARROWS) | {*queues.BEGUN_BY},
    "cron_entries": _made_by(cron.ARROWS) | {*cron.SYNCED_BY},
    "workers": _made_by(workers.ARROWS),
    "workflows": _made_by(workflows.ARROWS) | {*workflows.BEGUN_BY},
    "batches": _made_by(batches.ARROWS) | {*batches.BEGUN_BY},
    "incidents": _made_by(lifeline.ARROWS) | {*lifeline.BEGUN_BY},
    "operations": _made_by(operations.ARROWS) | {*operations.BEGUN_BY},
    "leases": _made_by(leases.ARROWS),
    "escalations": _made_by(escalations.ARROWS) | {*escalations.BEGUN_BY},
}


@pytest.mark.parametrize("table", STATE_COLUMNS)
def test_a_state_changes_only_by_an_arrow(table: str, connection: psycopg.Connection[Any]) -> None:
    """Postgres refuses them to a role that may not insert or delete rows
    of the table, nor set their state.
    """
    with connection.transaction(force_rollback=True):
        _become_a_role_that_keeps_states(connection, table)
        found = {path.stem for path in FILES if _is_refused(connection, _read(path.stem))}
        column, *_ = STATE_COLUMNS[table]
        assert _is_refused(connection, f"UPDATE opsjobs.{table} SET {column} = %(value)s")
        assert _is_refused(connection, f"DELETE FROM opsjobs.{table}")
        assert not _is_refused(connection, f"SELECT {column} FROM opsjobs.{table}")
    assert found == MADE_BY[table]


def _become_a_role_that_keeps_states(connection: psycopg.Connection[Any], table: str) -> None:
    """Become a role that may do everything but begin and end rows of `table` and change their state."""
    (role,) = connection.execute("SELECT 'keeps_states_of_' || current_database()").fetchone() or ()
    (columns,) = (
        connection.execute(
            """SELECT string_agg(column_name, ', ') FROM information_schema.columns
        WHERE table_schema = 'opsjobs' AND table_name = %s AND NOT column_name = ANY (%s)""",
            (table, list(STATE_COLUMNS[table])),
        ).fetchone()
        or ()
    )
    for statement in (
        f"CREATE ROLE {role}",
        f"GRANT {role} TO CURRENT_USER",
        f"GRANT USAGE ON SCHEMA opsjobs TO {role}",
        f"GRANT ALL ON ALL TABLES IN SCHEMA opsjobs TO {role}",
        f"GRANT ALL ON ALL SEQUENCES IN SCHEMA opsjobs TO {role}",
        f"GRANT ALL ON calls TO {role}",
        f"REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON opsjobs.{table} FROM {role}",
        f"GRANT UPDATE ({columns}) ON opsjobs.{table} TO {role}",
        f"SET LOCAL ROLE {role}",
    ):
        connection.execute(statement)


def _is_refused(connection: psycopg.Connection[Any], statement: str) -> bool:
    try:
        if statement.startswith("COPY"):
            _run_utility(connection, statement)
        elif not _UTILITY.match(statement):
            _prepare(connection, statement)
    except psycopg.errors.InsufficientPrivilege:
        return True
    return False

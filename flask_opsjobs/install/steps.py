"""Runs the numbered steps of our schema, within the host's revision that calls them."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from time import sleep
from types import ModuleType
from typing import Any

import click
import psycopg
from sqlalchemy.exc import DBAPIError

from .._folders import folder
from ..errors import ConfigError, MigrationBlocked, SchemaBehind
from . import database, grants, indexes, losses

_FILE = re.compile(r"v(\d{3})_\w+\.py")

_VERSIONS = """
CREATE TABLE opsjobs.schema_version (
    version integer NOT NULL,
    applied_at timestamptz DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT schema_version_pkey PRIMARY KEY (version)
)
"""

# A statement that waits for a table keeps everybody else waiting behind it. So the steps give up soon, unless
# the host's own `lock_timeout` is set: then it holds, and later statements of the host have it again. After
# `deadlock_timeout`, 1 s by default, Postgres would end whoever waits for a table that a step has locked,
# while the step waits for one of theirs.
_LOCK_TIMEOUT = "500ms"
_TRIES = 10
# Seconds between two tries, for those who waited.
_PAUSE = 0.5
_LIMIT_LOCK_WAIT = f"""
SELECT set_config('opsjobs.lock_timeout', current_setting('lock_timeout'), true),
    set_config('lock_timeout',
        CASE current_setting('lock_timeout')
            WHEN '0' THEN '{_LOCK_TIMEOUT}' ELSE current_setting('lock_timeout') END,
        true)
"""
_RESTORE_LOCK_WAIT = (
    "SELECT set_config('lock_timeout', current_setting('opsjobs.lock_timeout'), true)"
)

# All at once and first, so that no step waits for a table while it keeps another one locked. The first lock
# holds up no reader and no writer. An autovacuum keeps it, and gives way only to who waits for it for longer
# than `deadlock_timeout`.
_LOCK = """
DO $$
DECLARE
    tables text := (SELECT string_agg(oid::regclass::text, ', ') FROM pg_class
        WHERE relnamespace = 'opsjobs'::regnamespace AND relkind = 'r' AND pg_has_role(relowner, 'USAGE'));
    patience text := current_setting('lock_timeout');
BEGIN
    IF tables IS NOT NULL THEN
        PERFORM set_config('lock_timeout', '3s', true);
        EXECUTE 'LOCK TABLE ' || tables || ' IN SHARE UPDATE EXCLUSIVE MODE';
        PERFORM set_config('lock_timeout', patience, true);
        EXECUTE 'LOCK TABLE ' || tables;
    END IF;
END $$
"""


def latest() -> int:
    """The newest schema version of this release of the library."""
    return max(_files())


def version(connection: Any) -> int:
    """The schema version of the database of a SQLAlchemy connection; 0 when it has none of our tables."""
    found = connection.exec_driver_sql("SELECT to_regclass('opsjobs.schema_version')").scalar()
    if found is None:
        return 0
    newest = connection.exec_driver_sql("SELECT max(version) FROM opsjobs.schema_version").scalar()
    return int(newest or 0)


def upgrade(op: Any, to: int, since: int = 0) -> None:
    """Upgrade the schema to version `to`, in alembic's transaction; indexes on tables in use come last.

    Starts from the version of the database; when alembic only writes a script (`--sql`), from `since`.
    Does nothing when the database has `to` or a newer version, but creates indexes whose creation was
    interrupted. Raises `SchemaBehind` when this release of the library does not know `to`, `ConfigError` when
    the server is too old, and `MigrationBlocked` when another transaction keeps one of our tables locked.
    """
    _require_known(to)
    is_script = op.get_context().as_sql
    if not is_script and (
        old := database.say_too_old(database.read_postgres_version(op.get_bind()))
    ):
        raise ConfigError(old)
    start = since if is_script else version(op.get_bind())
    if is_script:
        _run(op, start, to)
    elif start < to:
        _run_patiently(op, start, to)
    if 0 < start < to and not is_script:
        indexes.unlock(op)
    if 0 < start <= to:
        # A later step may have an index of an earlier one anew, under the same name.
        wanted: dict[str, tuple[str, str]] = {}
        for number in range(start + 1 if is_script else 1, to + 1):
            wanted |= _step(number).INDEXES
        indexes.create_missing(op, wanted)
        indexes.validate_constraints(op)


def _run(op: Any, start: int, to: int) -> None:
    """Run the steps after `start`. Raises `MigrationBlocked`."""
    with _short_lock_waits(op):
        if start > 0 and not op.get_context().as_sql:
            op.execute(_LOCK)
        for number in range(start + 1, to + 1):
            if number == 1:
                op.execute("CREATE SCHEMA IF NOT EXISTS opsjobs")
                op.execute(_VERSIONS)
                grants.grant_schema(op)
            _step(number).upgrade(op)
            if start == 0:
                indexes.create(op, _step(number).INDEXES)
            op.execute(f"INSERT INTO opsjobs.schema_version (version) VALUES ({number:d})")
        if start == 0:
            op.execute(indexes.VALIDATE)


def _run_patiently(op: Any, start: int, to: int) -> None:
    """Run the steps in a savepoint, and again when they were blocked: meanwhile they keep no table locked."""
    for _ in range(_TRIES - 1):
        try:
            with op.get_bind().begin_nested():
                _run(op, start, to)
            return
        except MigrationBlocked:
            sleep(_PAUSE)
    with op.get_bind().begin_nested():
        _run(op, start, to)


def downgrade(op: Any, to: int, since: int | None = None) -> None:
    """Downgrade the schema to version `to`; 0 removes the schema with all its data.

    When alembic only writes a script, starts from `since`; None then means the newest version. Else says what
    is lost, and raises `MigrationBlocked` while loops or workers of this version run.
    """
    _require_known(to)
    is_script = op.get_context().as_sql
    start = (since or latest()) if is_script else version(op.get_bind())
    _require_known(start)
    if start > to and not is_script:
        _say_losses(op.get_bind(), [_step(number) for number in range(start, to, -1)])
        losses.require_stopped(op.get_bind(), to)
    with _short_lock_waits(op):
        if start > to and not is_script:
            op.execute(_LOCK)
        for number in range(start, to, -1):
            _step(number).downgrade(op)
            op.execute(f"DELETE FROM opsjobs.schema_version WHERE version = {number:d}")
        if to == 0 and start > 0:
            op.execute("DROP TABLE opsjobs.schema_version")
            # Not CASCADE, which would also drop what a host has put into our schema.
            op.execute("DROP SCHEMA opsjobs")


def _say_losses(connection: Any, undone: list[ModuleType]) -> None:
    lost = list(losses.list_losses(connection, undone))
    if lost:
        click.echo("This downgrade of the schema opsjobs loses:", err=True)
        click.echo("\n".join(f"    {line}" for line in lost), err=True)


@contextmanager
def _short_lock_waits(op: Any) -> Iterator[None]:
    """Give up when a statement waits for a lock too long. Raises `MigrationBlocked`."""
    op.execute(_LIMIT_LOCK_WAIT)
    try:
        yield
    except DBAPIError as error:
        blocked = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)
        if isinstance(error.orig, blocked):
            raise MigrationBlocked(
                "the migration of the schema opsjobs gave up, because another transaction keeps one of its "
                "tables locked; nothing was changed. Run it again. If this happens again, find the "
                "transaction with SELECT pid, state, query FROM pg_stat_activity WHERE datname = "
                "current_database() ORDER BY xact_start, and let it end"
            ) from error
        raise
    op.execute(_RESTORE_LOCK_WAIT)


def _require_known(number: int) -> None:
    if number != 0 and number not in _files():
        raise SchemaBehind(
            f"schema version {number} of opsjobs is unknown to this release of flask_opsjobs, which "
            f"knows up to {latest()}: install the release that wrote this revision, or a newer one"
        )


@cache
def _files() -> dict[int, Path]:
    found = {
        int(match[1]): path
        for path in folder("migrations").iterdir()
        if (match := _FILE.fullmatch(path.name))
    }
    if sorted(found) != list(range(1, len(found) + 1)):
        raise SchemaBehind(
            f"the schema steps of flask_opsjobs are incomplete: found {sorted(found)}"
        )
    return found


@cache
def _step(number: int) -> ModuleType:
    path = _files()[number]
    spec = importlib.util.spec_from_file_location(f"flask_opsjobs_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

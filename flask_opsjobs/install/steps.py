"""Runs the numbered steps of our schema, within the host's revision that calls them."""

from __future__ import annotations

import importlib.util
import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from time import sleep
from types import FrameType, ModuleType
from typing import Any

import click
import psycopg
from sqlalchemy.exc import DBAPIError

from .._folders import folder
from ..errors import ConfigError, MigrationBlocked, SchemaBehind
from . import database, grants, indexes, losses, turns

_FILE = re.compile(r"v(\d{3})_\w+\.py")

_VERSIONS = """
CREATE TABLE opsjobs.schema_version (
    version integer NOT NULL,
    applied_at timestamptz DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT schema_version_pkey PRIMARY KEY (version)
)
"""

# A statement that waits for a table keeps everybody else waiting behind it. So the steps give up soon, and
# sooner when the host's own `lock_timeout` is shorter; later statements of the host have its own again. After
# `deadlock_timeout`, 1 s by default, Postgres would end whoever waits for a table that a step has locked,
# while the step waits for one of theirs.
_LOCK_MILLISECONDS = 500
_TRIES = 10
# Seconds between two tries, for those who waited.
_PAUSE = 0.5
_LIMIT_LOCK_WAIT = f"""
SELECT set_config('opsjobs.lock_timeout', current_setting('lock_timeout'), true),
    set_config('lock_timeout', least(nullif(setting::int, 0), {_LOCK_MILLISECONDS})::text, true)
FROM pg_settings WHERE name = 'lock_timeout'
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
    interrupted. Another upgrade or downgrade waits until this one is committed. Raises `SchemaBehind` when
    this release of the library does not know `to`, `ConfigError` when the server is too old, and
    `MigrationBlocked` when another transaction keeps one of our tables locked, or when another
    `flask db upgrade` has just run these steps.
    """
    _require_known(to)
    if op.get_context().as_sql:
        _run(op, since, to)
        if since > 0:
            indexes.complete(op, _indexes(since + 1, to))
        return
    revision = _find_caller(inspect.currentframe())
    connection = op.get_bind()
    if old := database.say_too_old(database.read_postgres_version(connection)):
        raise ConfigError(old)
    turns.take_turn(connection)
    start = version(connection)
    if start < to:
        _run_patiently(op, start, to)
    if 0 < start < to:
        indexes.unlock(op)
    if 0 < start <= to:
        indexes.complete(op, _indexes(1, to))
        # Alembic has not yet noted the revision, and `unlock` has ended the turn.
        turns.take_turn(connection)
    _require_unnoted(op, revision)


def _indexes(since: int, to: int) -> indexes.Indexes:
    """The indexes of these steps. A later step may have one of an earlier step anew, under the same name."""
    return {
        name: index
        for number in range(since, to + 1)
        for name, index in _step(number).INDEXES.items()
    }


def _find_caller(frame: FrameType | None) -> str | None:
    """The id of the revision that calls `upgrade`, whose frame this is; None when no revision does."""
    caller = frame.f_back if frame is not None else None
    return caller.f_globals.get("revision") if caller is not None else None


def _require_unnoted(op: Any, revision: str | None) -> None:
    """Refuse to end a revision that another command of alembic has noted since this one began.

    Alembic read before its first revision which ones are applied, and would fail when it notes this one.
    Nobody else can note it from now on, since that takes the turn. Raises `MigrationBlocked`.
    """
    scripts, heads = op.get_context().opts.get("script"), op.get_context().get_current_heads()
    noted = scripts.iterate_revisions(heads, "base") if scripts is not None and heads else ()
    if revision in {script.revision for script in noted}:
        raise MigrationBlocked(
            "another `flask db upgrade` has run at the same time, and has done these steps of the schema "
            "opsjobs, so this one stops. Run it again: it goes on with what is left"
        )


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


def downgrade(op: Any, to: int, since: int | None = None, *, is_test: bool = False) -> None:
    """Downgrade the schema to version `to`; 0 removes the schema with all its data.

    When alembic only writes a script, starts from `since`; None then means the newest version. Else says what
    is lost, and raises `MigrationBlocked` while loops or workers of this version run, as their heartbeats
    tell. When it `is_test`, says nothing, and those do not count whose process on this machine is gone.
    """
    _require_known(to)
    is_script = op.get_context().as_sql
    if not is_script:
        turns.take_turn(op.get_bind())
    start = (since or latest()) if is_script else version(op.get_bind())
    _require_known(start)
    if start > to and not is_script:
        if not is_test:
            _say_losses(op.get_bind(), [_step(number) for number in range(start, to, -1)])
        losses.require_stopped(op.get_bind(), to, are_all_here=is_test)
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

"""Runs the numbered steps of our schema, within the host's revision that calls them."""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from .._folders import folder
from ..errors import SchemaBehind
from . import grants

_FILE = re.compile(r"v(\d{3})_\w+\.py")

_VERSIONS = """
CREATE TABLE opsjobs.schema_version (
    version integer NOT NULL,
    applied_at timestamptz DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT schema_version_pkey PRIMARY KEY (version)
)
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
    """Upgrade the schema to version `to`, in alembic's transaction.

    Starts from the version of the database; when alembic only writes a script (`--sql`), from `since`.
    Does nothing when the database has `to` or a newer version. Raises `SchemaBehind` when this release
    of the library does not know `to`.
    """
    _require_known(to)
    start = since if op.get_context().as_sql else version(op.get_bind())
    for number in range(start + 1, to + 1):
        if number == 1:
            op.execute("CREATE SCHEMA IF NOT EXISTS opsjobs")
            op.execute(_VERSIONS)
            grants.grant_schema(op)
        _step(number).upgrade(op)
        op.execute(f"INSERT INTO opsjobs.schema_version (version) VALUES ({number:d})")


def downgrade(op: Any, to: int, since: int | None = None) -> None:
    """Downgrade the schema to version `to`; 0 removes the schema with all its data.

    When alembic only writes a script, starts from `since`; None then means the newest version.
    """
    _require_known(to)
    start = (since or latest()) if op.get_context().as_sql else version(op.get_bind())
    _require_known(start)
    for number in range(start, to, -1):
        _step(number).downgrade(op)
        op.execute(f"DELETE FROM opsjobs.schema_version WHERE version = {number:d}")
    if to == 0 and start > 0:
        op.execute("DROP TABLE opsjobs.schema_version")
        # Not CASCADE, which would also drop what a host has put into our schema.
        op.execute("DROP SCHEMA opsjobs")


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

"""Excludes our tables from a host's `flask db migrate`, which would otherwise drop them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from alembic import context
from flask import current_app

from .. import tables
from ..core.db import SCHEMA

_OURS = {table.name for table in tables.metadata.tables.values()} | {"schema_version"}
_MARK = "leaves_out_opsjobs"

# Alembic gives no schema for tables on the search path, so only the database knows whether one is ours.
_WHERE = """
SELECT nspname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE relname = %s AND pg_table_is_visible(pg_class.oid)
"""

IncludeName = Callable[[Any, str, Any], bool]


def leave_out() -> None:
    """Exclude our tables from the current app's autogenerate; called from its env.py.

    Without it, a host with models in several schemas (`include_schemas=True`), or whose role has our
    schema in its `search_path`, would get a migration that drops our tables. An `include_name` that the
    host gave to `Migrate` still applies to all other tables.
    """
    arguments = current_app.extensions["migrate"].configure_args
    arguments["include_name"] = passing_by(arguments.get("include_name"))


def passing_by(include_name: IncludeName | None = None) -> IncludeName:
    """An `include_name` for `context.configure` that excludes our tables, then asks the given one."""
    if leaves_out(include_name):
        assert include_name is not None
        return include_name

    def without_opsjobs(name: str | None, type_: str, parent_names: Any) -> bool:
        if _is_ours(name, type_, parent_names):
            return False
        return include_name is None or include_name(name, type_, parent_names)

    setattr(without_opsjobs, _MARK, True)
    return without_opsjobs


def leaves_out(include_name: IncludeName | None) -> bool:
    """Whether an `include_name` was made by `passing_by`."""
    return getattr(include_name, _MARK, False)


def _is_ours(name: str | None, type_: str, parent_names: Any) -> bool:
    if type_ == "schema":
        return name == SCHEMA
    if type_ != "table":
        return False
    schema = parent_names.get("schema_name")
    if schema is not None or name not in _OURS:
        return bool(schema == SCHEMA)
    # A host may have a table with the same name, such as `jobs`, in a schema of its own.
    return bool(context.get_bind().exec_driver_sql(_WHERE, (name,)).scalar() == SCHEMA)

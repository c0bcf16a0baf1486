"""Grants rights on our tables to the app's role, when migrations run as another role."""

from __future__ import annotations

from typing import Any

from flask import current_app, has_app_context

from ..errors import ConfigError

ALL = "SELECT, INSERT, UPDATE, DELETE"


def app_role(op: Any) -> str | None:
    """The role that the app connects as; None when it is the role that migrates.

    From alembic's config (attribute or main option `opsjobs_app_role`, for migrations without an app),
    else from the app's `OPSJOBS_APP_ROLE`.
    """
    config = op.get_context().config
    if config is not None:
        role = config.attributes.get("opsjobs_app_role") or config.get_main_option(
            "opsjobs_app_role"
        )
        if role:
            return str(role)
    if has_app_context():
        role = current_app.config.get("OPSJOBS_APP_ROLE")
        return str(role) if role else None
    return None


def grant_tables(op: Any, *tables: str, rights: str = ALL) -> None:
    """Grant `rights` on tables of ours to the app's role. Nothing without such a role."""
    _grant(op, rights, "".join(f"opsjobs.{table}, " for table in tables).removesuffix(", "))


def grant_sequences(op: Any, *sequences: str) -> None:
    """Let the app's role call `nextval` itself. An insert into an identity column needs no such right."""
    for sequence in sequences:
        _grant(op, "USAGE", f"SEQUENCE opsjobs.{sequence}")


def grant_functions(op: Any, *functions: str) -> None:
    """Let the app's role call functions, also where a database allows that to nobody by default."""
    for function in functions:
        _grant(op, "EXECUTE", f"FUNCTION opsjobs.{function}")


def grant_schema(op: Any) -> None:
    """Grant the use of the schema, and the right to read its version, which `init_app` checks."""
    _grant(op, "USAGE", "SCHEMA opsjobs")
    _grant(op, "SELECT", "opsjobs.schema_version")


def _grant(op: Any, rights: str, on: str) -> None:
    role = app_role(op)
    if role is None:
        return
    context = op.get_context()
    if not context.as_sql:
        _require_role(op.get_bind(), role)
    quoted = context.dialect.identifier_preparer.quote(role)
    op.execute(f"GRANT {rights} ON {on} TO {quoted}")


def _require_role(connection: Any, role: str) -> None:
    known = connection.exec_driver_sql("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,))
    if known.scalar() is None:
        raise ConfigError(
            f"OPSJOBS_APP_ROLE = {role!r}: the database has no such role; create it first, or "
            "leave the setting out when the app connects as the role that migrates"
        )

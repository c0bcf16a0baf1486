"""Writes the manifest of the schema: what the migration steps make, on a PostgreSQL of its own."""

from __future__ import annotations

import json

from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from flask_opsjobs.install import manifest, steps
from flask_opsjobs.testing.postgres import TemporaryPostgres

ROLE = "opsjobs_app"


def operations_for(connection: Connection, role: str) -> Operations:
    """Alembic's `op` under a config that names the app's role."""
    config = Config()
    config.attributes["opsjobs_app_role"] = role
    environment = EnvironmentContext(config, ScriptDirectory("."))
    return Operations(MigrationContext.configure(connection, environment_context=environment))


def written(connection: Connection) -> str:
    """The text of the manifest, of an empty database in which it makes the schema and a role."""
    connection.exec_driver_sql(f"CREATE ROLE {ROLE}")
    steps.upgrade(operations_for(connection, ROLE), to=steps.latest())
    connection.exec_driver_sql("SET search_path = ''")
    found = manifest.make_manifest(connection, ROLE)
    return json.dumps(found, indent=1, sort_keys=True, ensure_ascii=True) + "\n"


def main() -> None:
    """Make the schema, and write the file."""
    with TemporaryPostgres() as server:
        engine = create_engine(server.url(), poolclass=NullPool)
        with engine.connect() as connection:
            manifest.manifest_path().write_text(written(connection), encoding="utf-8")


if __name__ == "__main__":
    main()

"""The numbered steps: they make exactly the models' tables, undo themselves, and grant what is asked."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from flask import Flask
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

from flask_opsjobs import tables
from flask_opsjobs.core import db
from flask_opsjobs.errors import ConfigError, SchemaBehind
from flask_opsjobs.install import steps
from tests.support.database import Databases, migrate, operations

# What Postgres keeps of the schema, each thing in its own normal form. The version's table is the runner's,
# not a model's.
CATALOG = {
    # A number may be kept as 5 or as '5'::smallint.
    "columns": r"""
        SELECT table_name, column_name, ordinal_position, data_type, udt_name, is_nullable,
               regexp_replace(column_default, '^''(-?\d+)''::[a-z ]+$', '\1'),
               is_identity, identity_generation
        FROM information_schema.columns WHERE table_schema = 'opsjobs'
          AND table_name <> 'schema_version'""",
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'opsjobs'::regnamespace AND contype <> 'n'
          AND conrelid::regclass::text <> 'opsjobs.schema_version'""",
    "indexes": """
        SELECT tablename, indexname, indexdef FROM pg_indexes
        WHERE schemaname = 'opsjobs' AND tablename <> 'schema_version'""",
}


@pytest.fixture
def connection(empty_database_url: str) -> Iterator[Connection]:
    """A connection to an empty database."""
    engine = create_engine(empty_database_url, poolclass=NullPool)
    with engine.connect() as connection:
        yield connection


def catalog(connection: Connection) -> dict[str, set[tuple[Any, ...]]]:
    """Everything that defines our tables, comparable between databases."""
    return {
        name: {tuple(row) for row in connection.execute(text(query))}
        for name, query in CATALOG.items()
    }


def test_up_down_up(connection: Connection) -> None:
    migrate(connection)
    first = catalog(connection)
    assert steps.version(connection) == steps.latest() == db.SCHEMA_VERSION

    steps.downgrade(operations(connection), to=0)
    assert steps.version(connection) == 0
    assert connection.scalar(text("SELECT to_regnamespace('opsjobs')")) is None

    migrate(connection)
    assert catalog(connection) == first
    connection.commit()


def test_up_and_down_again_do_nothing(connection: Connection) -> None:
    steps.downgrade(operations(connection), to=0)
    migrate(connection)
    connection.execute(text("INSERT INTO opsjobs.queues VALUES ('mail', true, 5, now())"))
    migrate(connection)
    assert connection.scalar(text("SELECT count(*) FROM opsjobs.queues")) == 1
    applied = connection.execute(text("SELECT version FROM opsjobs.schema_version"))
    assert list(applied.scalars()) == list(range(1, steps.latest() + 1))


def test_the_steps_make_what_the_models_say(connection: Connection, databases: Databases) -> None:
    migrate(connection)
    url = databases.empty()
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as other:
        other.execute(text("CREATE SCHEMA opsjobs"))
        tables.metadata.create_all(other)
        assert catalog(connection) == catalog(other)
    databases.drop(url)


def test_autogenerate_sees_no_change(connection: Connection) -> None:
    migrate(connection)
    context = MigrationContext.configure(
        connection,
        opts={
            "include_schemas": True,
            "include_object": lambda _object, name, *_rest: name != "schema_version",
            "include_name": lambda name, kind, _parents: kind != "schema" or name == "opsjobs",
            "compare_type": True,
            "compare_server_default": True,
        },
    )
    assert compare_metadata(context, tables.metadata) == []


def test_every_index_names_its_query(connection: Connection) -> None:
    migrate(connection)
    silent = connection.execute(
        text("""
            SELECT indexrelid::regclass::text FROM pg_index
            JOIN pg_class ON pg_class.oid = indexrelid
            WHERE relnamespace = 'opsjobs'::regnamespace
              AND obj_description(indexrelid, 'pg_class') IS NULL
              AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)""")
    )
    assert list(silent) == []


def test_every_foreign_key_to_jobs_is_indexed(connection: Connection) -> None:
    """Pitfall: without one, deleting 100 jobs takes a second."""
    migrate(connection)
    bare = connection.execute(
        text("""
            SELECT conname FROM pg_constraint AS fk
            WHERE contype = 'f' AND confrelid = 'opsjobs.jobs'::regclass AND NOT EXISTS (
                SELECT FROM pg_index WHERE indrelid = fk.conrelid AND indkey[0] = fk.conkey[1])""")
    )
    assert list(bare) == []


def test_jobs_vacuums_early(connection: Connection) -> None:
    migrate(connection)
    options = connection.scalar(
        text("SELECT reloptions FROM pg_class WHERE oid = 'opsjobs.jobs'::regclass")
    )
    assert "autovacuum_vacuum_scale_factor=0.02" in options


def test_a_version_of_the_future_is_refused(connection: Connection) -> None:
    with pytest.raises(SchemaBehind, match="schema version 99 of opsjobs is unknown"):
        steps.upgrade(operations(connection), to=99)
    migrate(connection)
    connection.execute(text("INSERT INTO opsjobs.schema_version (version) VALUES (99)"))
    with pytest.raises(SchemaBehind, match="install the release that wrote this revision"):
        steps.downgrade(operations(connection), to=0)


def test_a_downgrade_keeps_what_a_host_put_into_our_schema(connection: Connection) -> None:
    migrate(connection)
    connection.execute(text("CREATE TABLE opsjobs.of_the_host (id int)"))
    with pytest.raises(Exception, match="cannot drop schema opsjobs"):
        steps.downgrade(operations(connection), to=0)


@pytest.mark.parametrize("direction", ["upgrade", "downgrade"])
def test_a_script_can_be_written_without_a_database(direction: str) -> None:
    script = io.StringIO()
    options = {"as_sql": True, "output_buffer": script}
    op = Operations(MigrationContext.configure(dialect_name="postgresql", opts=options))
    if direction == "upgrade":
        steps.upgrade(op, since=0, to=1)
        assert "INSERT INTO opsjobs.schema_version (version) VALUES (1)" in script.getvalue()
    else:
        steps.downgrade(op, since=1, to=0)
        assert script.getvalue().rstrip().endswith("DROP SCHEMA opsjobs;")
    assert "opsjobs.jobs" in script.getvalue()


def operations_for(connection: Connection, role: str) -> Operations:
    """Alembic's `op` under a config that names the app's role."""
    config = Config()
    config.attributes["opsjobs_app_role"] = role
    environment = EnvironmentContext(config, ScriptDirectory("."))
    return Operations(MigrationContext.configure(connection, environment_context=environment))


def test_the_app_role_may_use_the_tables_and_nothing_else(
    connection: Connection, databases: Databases
) -> None:
    role = f"app {connection.engine.url.database}"
    connection.execute(text(f'CREATE ROLE "{role}"'))
    steps.upgrade(operations_for(connection, role), to=steps.latest())
    connection.execute(text(f'SET ROLE "{role}"'))
    connection.execute(text("SELECT max(version) FROM opsjobs.schema_version"))
    connection.execute(
        text("""INSERT INTO opsjobs.jobs
                    (task, queue, lane, state, args, max_attempts, created_at, due_at)
                VALUES ('w', 'q', 'q', 'available', '{}', 1, now(), now())""")
    )
    # As `enqueue` of a unique task does, before it inserts.
    connection.execute(text("SELECT nextval('opsjobs.jobs_id_seq')"))
    connection.execute(text("UPDATE opsjobs.jobs SET priority = 1"))
    connection.execute(text("DELETE FROM opsjobs.jobs"))
    with pytest.raises(Exception, match="permission denied"), connection.begin_nested():
        connection.execute(text("DELETE FROM opsjobs.schema_version"))
    with pytest.raises(Exception, match="must be owner"), connection.begin_nested():
        connection.execute(text("DROP TABLE opsjobs.jobs"))
    connection.rollback()


def test_an_app_role_that_does_not_exist_is_named(connection: Connection) -> None:
    with pytest.raises(ConfigError, match=r"OPSJOBS_APP_ROLE = 'nobody': .* no such role"):
        steps.upgrade(operations_for(connection, "nobody"), to=1)


def test_the_app_role_is_read_from_the_apps_config(connection: Connection) -> None:
    app = Flask("host")
    app.config["OPSJOBS_APP_ROLE"] = "nobody"
    with app.app_context(), pytest.raises(ConfigError, match="OPSJOBS_APP_ROLE = 'nobody'"):
        migrate(connection)

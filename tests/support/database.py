"""Databases for tests: a template that is migrated once, and a clone of it for each test."""

from __future__ import annotations

import itertools
import os

import psycopg
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import URL, Connection, create_engine, make_url, text
from sqlalchemy.pool import NullPool

from flask_opsjobs.install import steps

_numbers = itertools.count(1)


def migrate(connection: Connection, to: int | None = None) -> None:
    """Bring our schema up to version `to`, by default the newest; the caller commits."""
    steps.upgrade(operations(connection), steps.latest() if to is None else to)


def operations(connection: Connection) -> Operations:
    """Alembic's `op` on a connection, as a host's revision has it."""
    return Operations(MigrationContext.configure(connection))


class Databases:
    """Makes and drops databases on one server, named so that parallel runs cannot meet."""

    def __init__(self, server: URL) -> None:
        self.server = server
        self._admin = create_engine(server, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        self._template: str | None = None

    def empty(self) -> URL:
        """A new database without our schema."""
        return self._create("TEMPLATE template1")

    def migrated(self) -> URL:
        """A new database with our schema at its newest version."""
        if self._template is None:
            url = self.empty()
            engine = create_engine(url, poolclass=NullPool)
            with engine.begin() as connection:
                migrate(connection)
            self._template = url.database
        return self.copy(self.server.set(database=self._template))

    def copy(self, url: URL) -> URL:
        """A new database with all that another holds, to which nobody is connected."""
        # Copying files is twice as fast as logging every page, since what is copied is small.
        return self._create(f'TEMPLATE "{url.database}" STRATEGY file_copy')

    def drop(self, url: URL) -> None:
        """Remove it, whoever is still connected."""
        self._run(f'DROP DATABASE IF EXISTS "{url.database}" WITH (FORCE)')

    def close(self) -> None:
        """Remove the template."""
        if self._template is not None:
            self.drop(self.server.set(database=self._template))
        self._admin.dispose()

    def _create(self, how: str) -> URL:
        name = f"opsjobs_test_{os.getpid()}_{next(_numbers)}"
        self._run(f'CREATE DATABASE "{name}" {how}')
        return self.server.set(database=name)

    def _run(self, statement: str) -> None:
        with self._admin.connect() as connection:
            connection.execute(text(statement))


class Administrator:
    """A session beside the app's that takes from it what a failover or an administrator may take."""

    def __init__(self, database_url: str) -> None:
        self._url = make_url(database_url)
        # It writes also while the database is read-only for everybody else.
        always = self._url.set(drivername="postgresql").update_query_dict(
            {"options": "-c default_transaction_read_only=off"}
        )
        self.dsn = always.render_as_string(hide_password=False).replace("+", "%20")
        self._session = psycopg.connect(self.dsn, autocommit=True)
        self._role = f"{self._url.database}_worker"
        self._has_role = False

    def fail_over(self) -> None:
        """End every other session of the database; those that follow can only read."""
        self._alter("SET default_transaction_read_only = on")
        self.end_sessions()

    def fail_back(self) -> None:
        """New sessions may write. One that was opened meanwhile stays read-only."""
        self._alter("RESET default_transaction_read_only")

    def end_sessions(self, condition: str = "true") -> None:
        """End the other sessions of the database, or those of them with this condition on pg_stat_activity."""
        self._session.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE datname = current_database() AND pid <> pg_backend_pid() AND ({condition})"
        )

    def url_of_role(self) -> str:
        """SQLAlchemy's URL of the database for a role that owns nothing and may read and write all of ours."""
        if not self._has_role:
            self._session.execute(f"CREATE ROLE {self._role} LOGIN PASSWORD 'only for tests'")
            self._session.execute(f"GRANT USAGE ON SCHEMA opsjobs TO {self._role}")
            for kind in ("TABLES", "SEQUENCES"):
                grant = f"GRANT ALL ON ALL {kind} IN SCHEMA opsjobs TO {self._role}"
                self._session.execute(grant)
            self._has_role = True
        url = self._url.set(username=self._role, password="only for tests")
        return url.render_as_string(hide_password=False)

    def cut_recorders_off(self) -> None:
        """End the sessions with which workers of the role record, and refuse them new ones. Those that claim stay."""
        self._session.execute(f"ALTER ROLE {self._role} CONNECTION LIMIT 0")
        claims = "query LIKE '%hurried AS MATERIALIZED%' OR query LIKE '%INTO opsjobs.workers%'"
        self.end_sessions(f"usename = '{self._role}' AND NOT ({claims})")

    def let_recorders_in(self) -> None:
        """Sessions of the role are welcome again."""
        self._session.execute(f"ALTER ROLE {self._role} CONNECTION LIMIT -1")

    def close(self) -> None:
        """Leave, and remove the role; what it may do in a database goes with that."""
        if self._has_role:
            self.end_sessions(f"usename = '{self._role}'")
            self._session.execute(f"DROP OWNED BY {self._role}")
            self._session.execute(f"DROP ROLE {self._role}")
        self._session.close()

    def _alter(self, change: str) -> None:
        self._session.execute(f'ALTER DATABASE "{self._url.database}" {change}')

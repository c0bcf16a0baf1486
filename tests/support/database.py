"""Databases for tests: a template that is migrated once, and a clone of it for each test."""

from __future__ import annotations

import itertools
import os

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import URL, Connection, create_engine, text
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
        self._server = server
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
        # Copying files is twice as fast as logging every page, since the template is small.
        return self._create(f'TEMPLATE "{self._template}" STRATEGY file_copy')

    def drop(self, url: URL) -> None:
        """Remove it, whoever is still connected."""
        self._run(f'DROP DATABASE IF EXISTS "{url.database}" WITH (FORCE)')

    def close(self) -> None:
        """Remove the template."""
        if self._template is not None:
            self.drop(self._server.set(database=self._template))
        self._admin.dispose()

    def _create(self, how: str) -> URL:
        name = f"opsjobs_test_{os.getpid()}_{next(_numbers)}"
        self._run(f'CREATE DATABASE "{name}" {how}')
        return self._server.set(database=name)

    def _run(self, statement: str) -> None:
        with self._admin.connect() as connection:
            connection.execute(text(statement))

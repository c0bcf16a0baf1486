"""Databases for tests: a template that is migrated once, and for each test a clone of it,
or one that is as new again.

A clone costs Postgres a checkpoint and 450 files, twice. So the database of a test that left only rows is
emptied, and goes to the next test. Where somebody may come back, such as a process of that test, it gets
another name: whoever still writes to the old name is refused.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import URL, Connection, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from flask_opsjobs.install import steps
from flask_opsjobs.testing.postgres import TemporaryPostgres

from .sessions import KeptSessions
from .waiting import wait_until

_numbers = itertools.count(1)

# What a test changed besides rows (a column, a trigger, a grant, statistics) shows in how many rows of these
# catalogs are not Postgres' own, and which transaction wrote to one last. Each condition has an index.
_CATALOGS = {
    "pg_attribute": "attrelid >= 16384",
    "pg_attrdef": "oid >= 16384",
    "pg_constraint": "oid >= 16384",
    "pg_index": "indexrelid >= 16384",
    "pg_trigger": "oid >= 16384",
    "pg_type": "oid >= 16384",
    "pg_proc": "oid >= 16384 AND pronamespace <> pg_my_temp_schema()",
    "pg_namespace": "oid >= 16384 AND nspname !~ '^pg_'",
    "pg_statistic": "starelid >= 16384",
    "pg_db_role_setting": "setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())",
}
_CHANGES = " UNION ALL ".join(
    f"SELECT '{each}', count(*), max(xmin::text::bigint) FROM {each} WHERE {condition}"
    for each, condition in _CATALOGS.items()
)
# TRUNCATE writes to pg_class, so there it is its facts that count.
_CHANGES += """ UNION ALL SELECT 'pg_class', count(*),
    bit_xor(hashtextextended(concat_ws('|', oid, relname, relkind, relacl, reloptions, relrowsecurity), 0))
    FROM pg_class WHERE oid >= 16384"""
_TABLES = """SELECT format('%I.%I', relnamespace::regnamespace, relname) FROM pg_class
    WHERE relnamespace = 'opsjobs'::regnamespace AND relkind = 'r' AND pg_relation_size(oid) >= """
# TRUNCATE makes a table and each of its indexes anew, which costs more than to delete some rows. Deleted rows
# stay in the file, and Postgres plans alike for every size up to ten pages, so a larger table is truncated.
_MANY_BYTES = 9 * 8192
# A function of the session that empties tables. Postgres plans what it does once.
_EMPTIES = "CREATE FUNCTION pg_temp.empty() RETURNS void LANGUAGE plpgsql AS $$ BEGIN {} END $$"
_EMPTY_ONE = "IF EXISTS (SELECT FROM {0}) THEN DELETE FROM {0}; END IF;"
_OTHERS = """SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> ALL(%s)"""
# Seconds that Postgres may take to end a session whose client has left.
_LEAVING = 0.1
# Else Postgres may count the deleted rows up to ten seconds later, and a page of the next test sees a change.
_COUNTED = "PERFORM pg_stat_force_next_flush();"
_RESTART = """PERFORM setval(seqrelid, seqstart, false) FROM pg_sequence
    WHERE pg_sequence_last_value(seqrelid) IS NOT NULL;"""


def migrate(connection: Connection, to: int | None = None) -> None:
    """Bring our schema up to version `to`, by default the newest; the caller commits."""
    steps.upgrade(operations(connection), steps.latest() if to is None else to)


def operations(connection: Connection) -> Operations:
    """Alembic's `op` on a connection, as a host's revision has it."""
    return Operations(MigrationContext.configure(connection))


class Databases:
    """Makes and drops databases on one server, named so that parallel runs cannot meet."""

    def __init__(self, server: URL, *, kept: KeptSessions | None = None) -> None:
        """With `kept` it empties databases and uses them again, which needs a superuser."""
        self.server = server
        pool: dict[str, Any] = {"pool_size": 1} if kept else {"poolclass": NullPool}
        self._admin = create_engine(server, isolation_level="AUTOCOMMIT", **pool)
        self._kept = kept or KeptSessions()
        self._renews = kept is not None
        self._template: str | None = None
        # What the template is like: the rows it begins with, as COPY gives them, and its catalogs.
        self._seeds: dict[str, bytes] = {}
        self._empties = ""
        self._catalogs: list[Any] = []
        self._clones: set[str | None] = set()
        self._as_new: list[URL] = []
        # One of ours in each database that was emptied. A new session would read all of the catalogs first.
        self._sessions: dict[str | None, psycopg.Connection] = {}
        self._threads = threading.active_count()

    def empty(self) -> URL:
        """A new database without our schema."""
        return self._create("TEMPLATE template1")

    def make(self) -> URL:
        """A new database with our schema, made step by step."""
        url = self.empty()
        with create_engine(url, poolclass=NullPool).begin() as connection:
            migrate(connection)
        return url

    def migrated(self) -> URL:
        """A new database with our schema at its newest version, or one that is as new."""
        return self._as_new.pop() if self._as_new else self.clone()

    def clone(self) -> URL:
        """A new database with our schema at its newest version.

        For tests of what a plan reads: in one that was emptied, indexes still have entries of deleted rows.
        """
        if self._template is None:
            url = self.make()
            self._template = url.database
            with _connect(url) as session:
                self._catalogs = _read_catalogs(session)
                seeded = _list_tables(session, 1)
                self._seeds = {table: _copied(session, table) for table in seeded}
                others = [table for table in _list_tables(session, 0) if table not in seeded]
                made = [_RESTART, _COUNTED, *(_EMPTY_ONE.format(table) for table in others)]
                self._empties = _EMPTIES.format(" ".join(made))
        url = self.copy(self.server.set(database=self._template))
        if self._renews:
            self._clones.add(url.database)
            self._kept.databases.add(url.database)
        return url

    def copy(self, url: URL) -> URL:
        """A new database with all that another holds, to which nobody is connected."""
        # Copying files is twice as fast as logging every page, since what is copied is small.
        return self._create(f'TEMPLATE "{url.database}" STRATEGY file_copy')

    @contextlib.contextmanager
    def connection(self) -> Iterator[psycopg.Connection]:
        """A connection to a `clone`, in autocommit. Dropped at the end."""
        url = self.clone()
        with _connect(url) as connection:
            yield connection
        self.drop(url)

    def drop(self, url: URL, *, by_name: bool = False) -> None:
        """Take it back, whoever is still connected; `by_name` when somebody may yet come."""
        if url.database in self._clones:
            self._clones.remove(url.database)
            if by_name or threading.active_count() > self._threads or not self._is_left(url):
                url = self._renamed(url)
            else:
                self._clones.add(url.database)
            if self._renew(url):
                self._as_new.append(url)
                return
        self._leave(url)
        self._run(f'DROP DATABASE IF EXISTS "{url.database}" WITH (FORCE)')

    def close(self) -> None:
        """Remove the template, and all that is as new."""
        self._clones.clear()
        for url in self._as_new:
            self.drop(url)
        if self._template is not None:
            self.drop(self.server.set(database=self._template))
        self._admin.dispose()

    def _is_left(self, url: URL) -> bool:
        """Whether nobody but us is connected to the database."""
        session = self._enter(url)
        ours = [session.info.backend_pid, *self._kept.pids()]
        try:
            wait_until(
                lambda: session.execute(_OTHERS, [ours]).fetchone() == (0,), _LEAVING, every=0.002
            )
        except AssertionError:
            return False
        return True

    def _enter(self, url: URL) -> psycopg.Connection:
        """Our session in the database; a new one when a test has ended it."""
        session = self._sessions.get(url.database)
        if session is not None:
            with contextlib.suppress(psycopg.OperationalError):
                session.execute("SELECT")
                return session
            session.close()
        self._sessions[url.database] = session = _connect(url)
        # Triggers that keep the audit log as it is stay silent. To switch them off and on again would
        # make Postgres plan all anew.
        session.execute("SET session_replication_role = replica")
        session.execute(self._empties)
        return session

    def _leave(self, url: URL) -> None:
        if url.database in self._sessions:
            self._sessions.pop(url.database).close()
        self._kept.forget(url.database)

    def _renamed(self, url: URL) -> URL:
        """The database under a new name, without sessions;
        under its own one when somebody comes again and again.
        """
        self._leave(url)
        new = self.server.set(database=self._name())
        others = f"FROM pg_stat_activity WHERE datname = '{url.database}'"
        self._run(f"SELECT pg_terminate_backend(pid, 5000) {others}")
        try:
            self._run(f'ALTER DATABASE "{url.database}" RENAME TO "{new.database}"')
        except DBAPIError:
            return url
        self._clones.add(new.database)
        self._kept.databases.add(new.database)
        return new

    def _renew(self, url: URL) -> bool:
        """Empty a database of ours; False when its schema is no longer as it was."""
        if url.database not in self._clones:
            return False
        session = self._enter(url)
        if _read_catalogs(session) != self._catalogs:
            return False
        self._empty(session)
        return True

    def _empty(self, session: psycopg.Connection) -> None:
        with session.transaction():
            many = _list_tables(session, _MANY_BYTES)
            if large := [table for table in many if table not in self._seeds]:
                session.execute(f"TRUNCATE {', '.join(large)} CASCADE")
            session.execute("SELECT pg_temp.empty()")
            for table, rows in self._seeds.items():
                if _copied(session, table) != rows:
                    session.execute(f"DELETE FROM {table}")
                    with (
                        session.cursor() as cursor,
                        cursor.copy(f"COPY {table} FROM STDIN") as copy,
                    ):
                        copy.write(rows)

    def _create(self, how: str) -> URL:
        name = self._name()
        self._run(f'CREATE DATABASE "{name}" {how}')
        return self.server.set(database=name)

    def _name(self) -> str:
        return f"opsjobs_test_{os.getpid()}_{next(_numbers)}"

    def _run(self, statement: str) -> None:
        with self._admin.connect() as connection:
            connection.execute(text(statement))


class MigratedPostgres(TemporaryPostgres):
    """A durable server with a database that has our schema, as a copy of one that was made once."""

    def __init__(self, **settings: str) -> None:
        super().__init__(durable=True, settings=settings)

    @property
    def migrated(self) -> str:
        """SQLAlchemy's URL of that database."""
        return self.url(_migrated_data()[1]).render_as_string(hide_password=False)

    def _make(self) -> None:
        subprocess.run(["cp", "-a", _migrated_data()[0], self._data], check=True)


@functools.cache
def _migrated_data() -> tuple[Path, str]:
    """The data of a server that was stopped, which are removed when Python ends, and its database's name."""
    server = TemporaryPostgres(durable=True)
    server.start()
    url = Databases(server.url()).make()
    server.stop()
    return server._data, str(url.database)


def _connect(url: URL) -> psycopg.Connection:
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(dsn, autocommit=True)


def _read_catalogs(session: psycopg.Connection) -> list[Any]:
    return sorted(session.execute(_CHANGES).fetchall())


def _copied(session: psycopg.Connection, table: str) -> bytes:
    with session.cursor() as cursor, cursor.copy(f"COPY {table} TO STDOUT") as copy:
        return b"".join(copy)


def _list_tables(session: psycopg.Connection, size: int) -> list[str]:
    """Our tables whose files have so many bytes, or more."""
    return [table for (table,) in session.execute(f"{_TABLES}{size}")]


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
        """End the other sessions of the database,
        or those of them with this condition on pg_stat_activity.
        """
        self._session.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE datname = current_database() AND pid <> pg_backend_pid() AND ({condition})"
        )

    def url_of_role(self) -> str:
        """SQLAlchemy's URL of the database for a role that owns nothing
        and may read and write all of ours.
        """
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
        """End the sessions with which workers of the role record, and refuse them new ones.

        Those that claim stay.
        """
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

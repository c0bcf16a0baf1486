"""Finds the host's database, and refuses one that cannot hold jobs."""

from __future__ import annotations

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Connection, Engine

from ..errors import ConfigError

# As Postgres says its version: 150004 is 15.4.
OLDEST_POSTGRES = 150_000
_AGAIN = "then run `flask opsjobs install`"


def find_database(app: Flask, bind: str | None) -> tuple[SQLAlchemy, Engine]:
    """The app's Flask-SQLAlchemy, and its engine of `bind`. Connects to nothing.

    Raises `ConfigError` when there is none, or when it is not PostgreSQL through psycopg 3.
    """
    database = app.extensions.get("sqlalchemy")
    if database is None:
        raise ConfigError(
            "this app has no Flask-SQLAlchemy: set SQLALCHEMY_DATABASE_URI to postgresql+psycopg://…, "
            f"call SQLAlchemy(app) before OpsJobs(app), {_AGAIN}"
        )
    if not isinstance(database, SQLAlchemy):
        package = type(database).__module__.partition(".")[0]
        raise ConfigError(
            f"flask_opsjobs needs Flask-SQLAlchemy, and this app has {package}: "
            f"run `pip install flask-sqlalchemy`, call flask_sqlalchemy.SQLAlchemy(app), {_AGAIN}"
        )
    with app.app_context():
        engines = database.engines
    if bind not in engines:
        known = ", ".join(repr(name) for name in engines if name is not None)
        fix = f"name one of {known}" if known else "leave it out, or add it to SQLALCHEMY_BINDS"
        raise ConfigError(f"OPSJOBS_BIND = {bind!r} is not a bind of this app: {fix}, {_AGAIN}")
    engine: Engine = engines[bind]
    dialect = engine.dialect
    if (dialect.name, dialect.driver, dialect.is_async) != ("postgresql", "psycopg", False):
        how = f"{dialect.driver}, asynchronous" if dialect.is_async else dialect.driver
        raise ConfigError(
            f"flask_opsjobs needs PostgreSQL through psycopg 3, and this app's database is {dialect.name} "
            f"through {how}: write its URL as postgresql+psycopg://…, {_AGAIN}"
        )
    return database, engine


def read_postgres_version(connection: Connection) -> int:
    """The version of the server, such as 150004 for 15.4."""
    return int(connection.exec_driver_sql("SHOW server_version_num").scalar() or 0)


def say_too_old(version: int) -> str | None:
    """What is said of a server that is too old; None of one that is not."""
    if version >= OLDEST_POSTGRES:
        return None
    return (
        f"PostgreSQL {version // 10_000} is too old, "
        f"flask_opsjobs needs {OLDEST_POSTGRES // 10_000} or newer: "
        "upgrade the server, then run `flask db upgrade`"
    )

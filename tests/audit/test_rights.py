"""The role of the host's app may read the audit and add to it, and move the head; nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from flask_opsjobs.audit import transitions as audit_transitions
from flask_opsjobs.install import steps
from tools.manifest import operations_for

from .conftest import PAUSED

SECRETS = (b"only for tests",)


@pytest.fixture
def as_app(empty_database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection as the app's role, on a schema that another role made; one event is there."""
    engine = create_engine(empty_database_url, poolclass=NullPool)
    role = f"app {engine.url.database}"
    with engine.connect() as connection:
        connection.exec_driver_sql(f'CREATE ROLE "{role}"')
        steps.upgrade(operations_for(connection, role), to=steps.latest())
        connection.commit()
        driver: Any = connection.connection.driver_connection
        driver.execute(f'SET ROLE "{role}"')
        audit_transitions.append(driver, SECRETS, PAUSED)
        driver.commit()
        yield driver
        driver.rollback()
        driver.execute(f'RESET ROLE; DROP OWNED BY "{role}"; DROP ROLE "{role}"')
        driver.commit()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE opsjobs.audit_events SET reason = 'another'",
        "DELETE FROM opsjobs.audit_events",
        "TRUNCATE opsjobs.audit_events",
        "ALTER TABLE opsjobs.audit_events DISABLE TRIGGER ALL",
        "DELETE FROM opsjobs.audit_head",
        "INSERT INTO opsjobs.audit_head DEFAULT VALUES",
        "TRUNCATE opsjobs.audit_head",
        "SET session_replication_role = replica",
    ],
)
def test_everything_else_is_denied(as_app: psycopg.Connection[Any], statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match=r"denied|owner"):
        as_app.execute(statement)


def test_it_may_append_and_read(as_app: psycopg.Connection[Any]) -> None:
    assert audit_transitions.append(as_app, SECRETS, PAUSED) == 2
    as_app.commit()
    read = as_app.execute("SELECT sequence FROM opsjobs.audit_events ORDER BY 1").fetchall()
    assert read == [(1,), (2,)]


def test_it_may_keep_what_waits_and_append_it_later(as_app: psycopg.Connection[Any]) -> None:
    with as_app.transaction():
        as_app.execute("UPDATE opsjobs.audit_head SET sequence = 0")
        audit_transitions.append_or_keep(as_app, SECRETS, replace(PAUSED, previewed_at=None))
        as_app.execute("UPDATE opsjobs.audit_head SET sequence = 1")
        audit_transitions.append_pending(as_app, SECRETS, PAUSED.at)
    read = as_app.execute("SELECT sequence FROM opsjobs.audit_events ORDER BY 1").fetchall()
    assert read == [(1,), (2,)]

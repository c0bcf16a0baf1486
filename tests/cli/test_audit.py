"""`flask opsjobs audit verify` and `export`, as an operator and a cron job use them."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from flask_opsjobs.audit import chain
from flask_opsjobs.core.db import Connection
from flask_opsjobs.host import Host
from tests.audit.conftest import append, connection

__all__ = ["append", "connection"]

Command = Callable[..., Result]


@pytest.fixture
def command(app: Flask) -> Command:
    """Runs `flask opsjobs audit …`."""
    return lambda *words: app.test_cli_runner().invoke(args=["opsjobs", "audit", *words])


@pytest.fixture
def head(append: Callable[..., int], connection: Connection) -> str:
    """The head of a chain of three."""
    for _ in range(3):
        append()
    (hashed,) = connection.execute("SELECT hash FROM opsjobs.audit_head").fetchone()
    return f"3:{hashed.hex()}"


def _tamper(connection: Connection, statement: str) -> None:
    with connection.transaction():
        connection.execute("SET LOCAL session_replication_role = replica")
        connection.execute(statement)


def test_an_intact_chain_exits_with_0_and_says_its_head(command: Command, head: str) -> None:
    found = command("verify")
    assert (found.exit_code, found.output) == (0, f"intact: rows 1 to 3, head {head}\n")
    assert json.loads(command("verify", "--json").output) == {
        "format": 1,
        "state": "intact",
        "first": 1,
        "last": 3,
        "rows": 3,
        "outside": 0,
        "head": head,
        "broken": None,
        "unverifiable": None,
    }
    assert command("verify", "--head", head, "--since", "3").exit_code == 0


def test_nothing_decided_yet_is_intact(command: Command) -> None:
    assert command("verify").output == "intact: there is no row 1 or later\n"


def test_a_broken_chain_exits_with_1_and_names_the_row(
    command: Command, head: str, connection: Connection
) -> None:
    _tamper(connection, "UPDATE opsjobs.audit_events SET reason = 'x' WHERE sequence = 2")
    found = command("verify")
    assert found.exit_code == 1
    assert found.output.startswith("broken: at row 2 (columns): the column reason of row 2")
    said = json.loads(command("verify", "--json").output)
    assert (said["state"], said["broken"]["sequence"], said["last"]) == ("broken", 2, 1)


def test_a_head_from_the_log_must_still_be_there(
    command: Command, head: str, connection: Connection
) -> None:
    other = "2:" + "00" * 32
    assert command("verify", "--head", other).exit_code == 1
    assert command("verify", "--head", "nonsense").exit_code == 2
    _tamper(connection, "DELETE FROM opsjobs.audit_events WHERE sequence = 3")
    _tamper(
        connection,
        "UPDATE opsjobs.audit_head SET sequence = 2,"
        " hash = (SELECT hash FROM opsjobs.audit_events WHERE sequence = 2)",
    )
    assert command("verify").exit_code == 0
    found = command("verify", "--head", head)
    assert (found.exit_code, "row 3 is missing" in found.output) == (1, True)


def test_a_lost_key_exits_with_3_and_says_what_to_do(
    command: Command, head: str, host: Host, append: Callable[..., int]
) -> None:
    host.secrets = (b"rotated",)
    append()
    found = command("verify")
    assert found.exit_code == 3
    assert "3 of them, between 1 and 3" in found.output
    assert "SECRET_KEY_FALLBACKS" in found.output
    assert command("verify", "--since", "4").exit_code == 0


def test_what_cannot_be_read_exits_with_2(
    make_app: Callable[..., Flask], empty_database_url: str
) -> None:
    app = make_app(SQLALCHEMY_DATABASE_URI=empty_database_url)
    found = app.test_cli_runner().invoke(args=["opsjobs", "audit", "verify"])
    assert found.exit_code == 2
    assert "flask db upgrade" in found.output


def test_the_export_can_be_verified_with_the_key_alone(
    command: Command, head: str, host: Host
) -> None:
    rows: list[dict[str, Any]] = [
        json.loads(line) for line in command("export").output.splitlines()
    ]
    assert [row["sequence"] for row in rows] == [1, 2, 3]
    key, previous = chain.derive_key(host.secrets[0]), b""
    for row in rows:
        assert row["previous_hash"] == previous.hex()
        previous = hmac.digest(key, previous + row["canonical"].encode(), hashlib.sha256)
        assert row["hash"] == previous.hex()
    assert f"3:{previous.hex()}" == head
    assert len(command("export", "--since", "3").output.splitlines()) == 1

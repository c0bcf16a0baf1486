"""`flask opsjobs audit list`, `verify` and `export`, as an operator and a cron job use them."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from flask_opsjobs.audit import chain
from flask_opsjobs.core.db import Connection
from flask_opsjobs.host import Host
from tests.audit.conftest import append, connection
from tests.support.policies import ShowAll

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


@pytest.mark.parametrize(
    ("since", "why"),
    [
        ("4", "Error: there is no row 4\n"),
        ("99999", "Error: there is no row 99999\n"),
        ("9" * 30, f"there is no row {'9' * 30}: an id is at most"),
        ("2h", "'2h' is no number: the row 7 is written as 7"),
        ("0", "there is no row 0: an id is 1 or more"),
    ],
)
def test_a_row_that_is_not_there_exits_with_2(
    command: Command, head: str, since: str, why: str
) -> None:
    for words in (["verify"], ["verify", "--json"], ["export"]):
        found = command(*words, "--since", since)
        assert (found.exit_code, why in found.stderr, found.stdout) == (2, True, "")


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
    for nonsense in ("nonsense", "zz", "2:zz", "x:" + "00" * 32, "2:9f3c"):
        refused = command("verify", "--head", nonsense)
        assert refused.exit_code == 2
        assert "write it as in the log: 1204:9f3c…" in refused.output
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


def test_an_export_of_no_row_is_empty(command: Command) -> None:
    assert (command("export").exit_code, command("export").output) == (0, "")


# --- list


def test_a_list_has_the_filter_of_the_page(command: Command, append: Callable[..., int]) -> None:
    append(actor="anna", targets=("job/7", "incident/4"), request_id="01A")
    append(actor="anna", outcome="refused", code="drifted", reason=None)
    append(actor="ben", at=datetime.now(UTC), action="job.retry", targets=("operation/3",))

    def numbers(*words: str) -> list[int]:
        found = command("list", "--json", *words)
        assert found.exit_code == 0, found.output
        return [json.loads(line)["sequence"] for line in found.output.splitlines()]

    assert numbers() == [3, 2, 1]
    assert numbers("--limit", "2") == [3, 2]
    assert numbers("--actor", "anna", "--outcome", "done") == [1]
    assert numbers("--since", "1h") == [3]
    assert numbers("--until", "2026-11-25") == [2, 1]
    assert numbers("--incident", "4", "--request-id", "01A") == [1]
    assert numbers("--operation", "operation/3") == [3]
    assert numbers("--action", "job.retry", "--search", "operation/3") == [3]
    assert command("list", "--outcome", "refused").output == (
        "      2  2026-11-24 02:13:37  drifted       ops-demo  queue.pause  queue/mail\n".replace(
            "ops-demo", "anna"
        )
    )
    assert command("list", "--search", "nowhere").output == "no decision matches\n"
    assert command("list", "--search", "nowhere", "--json").output == ""
    backward = command("list", "--since", "1h", "--until", "2h")
    assert (backward.exit_code, "since: is not before until" in backward.output) == (2, True)
    refused = command("list", "--since", "soon")
    assert (refused.exit_code, "since: 'soon' is no time" in refused.output) == (2, True)


def test_a_long_list_goes_on_from_page_to_page(
    command: Command, append: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_opsjobs.cli.audit._PAGE", 3)
    for number in range(10):
        append(actor="anna" if number % 3 else "ben")
    lines = command("list", "--limit", "7").output.splitlines()
    assert [int(line.split()[0]) for line in lines] == [10, 9, 8, 7, 6, 5, 4]
    assert len(command("list", "--actor", "anna", "--limit", "100").output.splitlines()) == 6


def test_what_the_policy_hides_is_not_listed(
    make_app: Callable[..., Flask], append: Callable[..., int]
) -> None:
    class Policy(ShowAll):
        def clean_text(self, text: str) -> str:
            return text.replace("sesame", "[hidden]")

    append(actor="sesame", reason="open sesame", targets=("job/sesame",), request_id="sesame")
    runner = make_app(display=Policy()).test_cli_runner()
    for words in (["--json"], [], ["--search", "vendor"]):
        found = runner.invoke(args=["opsjobs", "audit", "list", *words])
        assert found.exit_code == 0
        assert "sesame" not in found.output
    found = runner.invoke(args=["opsjobs", "audit", "list", "--search", "open sesame"])
    assert found.output == "no decision matches\n"

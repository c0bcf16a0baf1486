"""Appending: one gap-free chain whoever appends, and a table that refuses every change."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta, timezone
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from flask_opsjobs.audit import chain
from flask_opsjobs.audit import transitions as audit_transitions
from flask_opsjobs.core.db import Connection, connect_apart
from flask_opsjobs.errors import AuditBlocked, AuditHeadMissing
from flask_opsjobs.host import Host
from tests.support.engine import race

from .conftest import PAUSED

Append = Callable[..., int]


def _rows(connection: Connection) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute("SELECT * FROM opsjobs.audit_events ORDER BY sequence").fetchall()


def _head(connection: Connection) -> Any:
    return connection.execute("SELECT sequence, hash FROM opsjobs.audit_head").fetchone()


def test_a_row_holds_the_decision_and_is_the_head(append: Append, connection: Connection) -> None:
    assert append() == 1
    (row,) = _rows(connection)
    for name in ("at", "actor", "via", "action", "reason", "previewed_at", "before", "after"):
        assert row[name] == getattr(PAUSED, name)
    assert row["targets"] == list(PAUSED.targets)
    assert row["previous_hash"] == b""
    assert _head(connection) == (1, row["hash"])


def test_rows_follow_each_other(append: Append, connection: Connection) -> None:
    assert [append(), append(), append()] == [1, 2, 3]
    first, second, third = _rows(connection)
    assert (second["previous_hash"], third["previous_hash"]) == (first["hash"], second["hash"])
    assert len({first["hash"], second["hash"], third["hash"]}) == 3


def test_the_canonical_text_says_everything_and_needs_no_session(
    append: Append, connection: Connection, host: Host
) -> None:
    zone = timezone(timedelta(hours=5, minutes=30))
    append(at=PAUSED.at.astimezone(zone), targets=("job/2", "job/1"), before={"ü": 1.0})
    connection.execute("SET timezone = 'Asia/Kolkata'")
    (row,) = _rows(connection)
    said = json.loads(row["canonical"])
    assert said["at"] == "2026-11-24T02:13:37.123456+00:00"
    assert (said["sequence"], said["targets"], said["before"]) == (
        1,
        ["job/2", "job/1"],
        {"ü": 1.0},
    )
    assert set(said) == set(row) - {"canonical", "previous_hash", "hash"}
    assert list(said) == sorted(said)
    key = chain.derive_key(host.secrets[0])
    assert row["hash"] == chain.hash_of(key, b"", row["canonical"])


def test_what_postgres_cannot_store_is_replaced(append: Append, connection: Connection) -> None:
    append(reason="nul \0 and \ud800", before={"a\0": ["\udfff"]}, actor="x\0")
    (row,) = _rows(connection)
    assert row["reason"] == "nul \ufffd and \ufffd"
    assert row["before"] == {"a\ufffd": ["\ufffd"]}
    assert row["actor"] == "x\ufffd"


def test_what_has_no_json_is_refused_and_nothing_is_written(
    append: Append, connection: Connection
) -> None:
    for bad in ({"x": object()}, {"x": float("nan")}):
        with pytest.raises((TypeError, ValueError)):
            append(after=bad)
    assert _rows(connection) == []
    assert append() == 1


def test_the_log_is_told_the_head_after_the_commit_only(
    connection: Connection, host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    effects: list[Callable[[], None]] = []
    with caplog.at_level(logging.INFO, "flask_opsjobs.audit"):
        with connection.transaction():
            audit_transitions.append(connection, host.secrets, PAUSED, after_commit=effects.append)
            assert caplog.messages == []
        for effect in effects:
            effect()
    (row,) = _rows(connection)
    assert caplog.messages == [f"audit head 1:{row['hash'].hex()}"]


def test_without_its_head_nothing_is_recorded(append: Append, connection: Connection) -> None:
    connection.execute("DELETE FROM opsjobs.audit_head")
    with pytest.raises(AuditHeadMissing, match=r"audit_head.*flask opsjobs audit verify"):
        append()
    assert _rows(connection) == []


@pytest.mark.parametrize(
    "fault",
    [
        "INSERT INTO opsjobs.audit_events SELECT"
        " (jsonb_populate_record(e, '{\"sequence\": 2}')).* FROM opsjobs.audit_events e",
        "UPDATE opsjobs.audit_head SET sequence = 0",
        "UPDATE opsjobs.audit_head SET sequence = -5",
    ],
)
def test_a_row_in_the_place_of_the_next_one_is_an_error_that_says_what_to_do(
    fault: str, append: Append, connection: Connection
) -> None:
    append()
    connection.execute(fault)
    before = _rows(connection)
    with pytest.raises(AuditBlocked, match=r"next row.*flask opsjobs audit verify.*docs/audit.md"):
        append()
    assert _rows(connection) == before


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE opsjobs.audit_events SET reason = 'another'",
        "DELETE FROM opsjobs.audit_events",
        "TRUNCATE opsjobs.audit_events",
        "INSERT INTO opsjobs.audit_events SELECT * FROM opsjobs.audit_events"
        " ON CONFLICT (sequence) DO UPDATE SET reason = 'another'",
    ],
)
def test_the_table_refuses_every_change_also_to_its_owner(
    append: Append, connection: Connection, statement: str
) -> None:
    append()
    before = _rows(connection)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
        connection.execute(statement)
    assert _rows(connection) == before


def test_many_appenders_make_one_chain_without_a_gap(host: Host, connection: Connection) -> None:
    each = 25

    def appender(name: str) -> Callable[[], list[int]]:
        own = connect_apart(host.engine)

        def act() -> list[int]:
            numbers = []
            for number in range(each):
                with own.transaction(force_rollback=number % 5 == 4):
                    decision = replace(PAUSED, actor=name)
                    numbers.append(audit_transitions.append(own, host.secrets, decision))
            own.close()
            return numbers

        return act

    answers = race(*(appender(f"actor-{number}") for number in range(4)))
    assert all(isinstance(answer, list) for answer in answers), answers
    rows = _rows(connection)
    assert [row["sequence"] for row in rows] == list(range(1, 4 * each * 4 // 5 + 1))
    hashes = [b"", *(row["hash"] for row in rows)]
    assert [row["previous_hash"] for row in rows] == hashes[:-1]
    assert _head(connection) == (len(rows), hashes[-1])

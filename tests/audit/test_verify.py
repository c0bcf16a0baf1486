"""Verifying: an untouched chain is intact,
and whatever is done to it names the first row that it was done to.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy.orm import Session

from flask_opsjobs.audit import chain, queries, transitions, verify
from flask_opsjobs.audit.verify import ChainCheck
from flask_opsjobs.core.db import Connection
from flask_opsjobs.errors import AuditBlocked
from flask_opsjobs.host import Host
from tests.support.processes import Children
from tests.support.sources import ROOT

from .conftest import PAUSED

Append = Callable[..., int]

# An operator of a process that runs through a rotation: it decides twenty times.
ROTATING = """
from flask_opsjobs.actions.operator import Operator
from tests.support.host import create_app

app = create_app()
operator = Operator(app.extensions["opsjobs"])
for number in range(20):
    receipt = operator.run(
        "queue.set_prefetch", ["queue/default"], params={"prefetch": number % 7 + 2}, actor="anna",
        reason="a deploy that rolls", authorize=False,
    )
    assert receipt.audit_sequence, receipt
"""


@pytest.fixture
def session(host: Host) -> Iterator[Session]:
    """Reads as the command does: no transaction is held from batch to batch."""
    with Session(host.engine.execution_options(isolation_level="AUTOCOMMIT")) as session:
        yield session


@pytest.fixture
def check(
    session: Session, host: Host, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., ChainCheck]:
    """Verifies, three rows at a time."""
    monkeypatch.setattr(verify, "BATCH", 3)
    return lambda secrets=host.secrets, **options: verify.verify(session, secrets, **options)


@pytest.fixture
def tamper(append: Append, connection: Connection) -> Callable[..., None]:
    """Makes eight rows, then does what only a superuser, or the owner who drops the trigger, can do."""
    for number in range(8):
        append(reason=f"reason number {number + 1}")

    def tamper(*statements: str) -> None:
        with connection.transaction():
            connection.execute("SET LOCAL session_replication_role = replica")
            for statement in statements:
                connection.execute(statement)

    return tamper


def test_an_empty_chain_is_intact(check: Callable[..., ChainCheck]) -> None:
    found = check()
    assert (found.state, found.rows, found.broken) == ("intact", 0, None)


def test_an_untouched_chain_is_intact_to_its_head(
    append: Append, check: Callable[..., ChainCheck], connection: Connection
) -> None:
    awkward = {"n": [1e23, 1e-7, -0.0, 10**30, 1.0, True, None], "ü": "\U0001f600 \0", "e": {}}
    for number in range(8):
        append(before=awkward, after=number, reason=None, previewed_at=None, preview_id=None)
    connection.execute("SET timezone = 'Asia/Kolkata'")
    told: list[int] = []
    found = check(after_batch=told.append)
    assert (found.state, found.rows, found.last, found.broken) == ("intact", 8, 8, None)
    assert told == [3, 6, 8]
    assert found.hash == connection.execute("SELECT hash FROM opsjobs.audit_head").fetchone()[0]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("at", "at + interval '1 microsecond'"),
        ("actor", "'another'"),
        ("via", "'cli'"),
        ("action", "'queue.resume'"),
        ("subject", "'queue/other'"),
        ("targets", "'{queue/mail,queue/other}'"),
        ("permission", "NULL"),
        ("reason", "reason || ' '"),
        ("request_id", "'x'"),
        ("preview_id", "preview_id + 1"),
        ("previewed_at", "NULL"),
        ("before", '\'{"is_paused": true, "prefetch": 40}\''),
        ("after", "NULL"),
        ("key_id", "'0000000000000000'"),
    ],
)
def test_a_changed_column_is_found(
    column: str, value: str, tamper: Callable[..., None], check: Callable[..., ChainCheck]
) -> None:
    tamper(f"UPDATE opsjobs.audit_events SET {column} = {value} WHERE sequence = 5")
    broken = check().broken
    assert broken is not None
    assert (broken.sequence, broken.code) == (5, "columns")
    assert column in broken.says


def test_a_changed_outcome_is_found(
    tamper: Callable[..., None], check: Callable[..., ChainCheck]
) -> None:
    tamper("UPDATE opsjobs.audit_events SET outcome = 'refused', code = 'x' WHERE sequence = 5")
    broken = check().broken
    assert broken is not None
    assert (broken.sequence, broken.code) == (5, "columns")


# As one row of another sequence, once its owner has dropped the CHECK.
_COPY = """
    ALTER TABLE opsjobs.audit_events DROP CONSTRAINT audit_events_sequence_check;
    INSERT INTO opsjobs.audit_events SELECT (jsonb_populate_record(e, jsonb_build_object('sequence',"""
_COPIED = "))).* FROM opsjobs.audit_events e WHERE sequence = 5"
_TEXT = "canonical = replace(canonical, 'number 5', 'number 6')"
CASES = [
    (f"UPDATE opsjobs.audit_events SET {_TEXT} WHERE sequence = 5", 5, "hash"),
    (
        f"UPDATE opsjobs.audit_events SET {_TEXT}, reason = 'reason number 6' WHERE sequence = 5",
        5,
        "hash",
    ),
    ("UPDATE opsjobs.audit_events SET hash = sha256('x') WHERE sequence = 5", 5, "hash"),
    (
        "UPDATE opsjobs.audit_events SET previous_hash = sha256('x') WHERE sequence = 5",
        5,
        "previous_hash",
    ),
    ("UPDATE opsjobs.audit_events SET previous_hash = 'x' WHERE sequence = 1", 1, "previous_hash"),
    ("DELETE FROM opsjobs.audit_events WHERE sequence = 5", 5, "missing"),
    ("DELETE FROM opsjobs.audit_events WHERE sequence = 1", 1, "missing"),
    ("DELETE FROM opsjobs.audit_events WHERE sequence > 6", 7, "missing"),
    ("DELETE FROM opsjobs.audit_events", 1, "missing"),
    ("UPDATE opsjobs.audit_events SET sequence = 50 WHERE sequence = 8", 8, "missing"),
    ("UPDATE opsjobs.audit_head SET hash = sha256('x')", 8, "head"),
    ("UPDATE opsjobs.audit_head SET sequence = 6", 7, "behind_head"),
    ("UPDATE opsjobs.audit_head SET sequence = 9", 9, "missing"),
    ("UPDATE opsjobs.audit_head SET sequence = 0, hash = ''", 1, "behind_head"),
    (f"{_COPY} -7{_COPIED}", -7, "outside"),
    (f"{_COPY} 0{_COPIED}", 0, "outside"),
    (f"{_COPY} 9{_COPIED}", 9, "behind_head"),
    (f"{_COPY} 77{_COPIED}", 77, "behind_head"),
    ("DELETE FROM opsjobs.audit_head", 0, "no_head"),
]


@pytest.mark.parametrize(("statement", "sequence", "code"), CASES)
def test_what_was_done_to_the_chain_is_found_where_it_was_done(
    statement: str,
    sequence: int,
    code: str,
    tamper: Callable[..., None],
    check: Callable[..., ChainCheck],
) -> None:
    tamper(statement)
    found = check()
    assert found.broken is not None
    assert (found.broken.sequence, found.broken.code) == (sequence, code)
    assert found.state == "broken"


def test_the_table_takes_no_row_before_the_first(
    append: Append, connection: Connection, check: Callable[..., ChainCheck]
) -> None:
    append()
    for sequence in (0, -1):
        with pytest.raises(psycopg.errors.CheckViolation, match="audit_events_sequence_check"):
            connection.execute(
                "INSERT INTO opsjobs.audit_events SELECT"
                f" (jsonb_populate_record(e, '{{\"sequence\": {sequence}}}')).* FROM opsjobs.audit_events e"
            )
    assert check().outside == 0


def test_every_row_outside_the_chain_is_counted(
    tamper: Callable[..., None], check: Callable[..., ChainCheck]
) -> None:
    tamper(
        f"{_COPY} n{_COPIED}".replace(
            "e WHERE", "e, generate_series(-3, 12) AS n WHERE n NOT BETWEEN 1 AND 8 AND"
        )
    )
    found = check()
    assert found.outside == 8
    assert found.broken is not None
    assert found.broken.says.startswith(
        "8 rows of the audit are outside the chain, which has rows 1 to 8: the first is row -3"
    )


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (f"{_COPY} 9{_COPIED}", "row 9 is not signed as the row after 8, so somebody inserted it"),
        (
            "UPDATE opsjobs.audit_head SET (sequence, hash) ="
            " (SELECT sequence, hash FROM opsjobs.audit_events WHERE sequence = 6)",
            "row 7 is signed and follows row 6, so the head was set back",
        ),
    ],
)
def test_of_a_row_right_behind_the_head_it_is_said_whether_it_is_genuine(
    statement: str, said: str, tamper: Callable[..., None], check: Callable[..., ChainCheck]
) -> None:
    tamper(statement)
    broken = check().broken
    assert broken is not None
    assert broken.says.endswith(said)


def test_the_documented_repair_of_a_head_that_was_set_back_keeps_the_true_decisions(
    tamper: Callable[..., None],
    check: Callable[..., ChainCheck],
    append: Append,
    connection: Connection,
) -> None:
    tamper(
        "UPDATE opsjobs.audit_head SET (sequence, hash, at) ="
        " (SELECT sequence, hash, at FROM opsjobs.audit_events WHERE sequence = 6)"
    )
    with pytest.raises(AuditBlocked):
        append()
    documented = re.findall(r"```sql\n(.*?)```", (ROOT / "docs/audit.md").read_text(), re.S)
    (repair,) = [block for block in documented if block.startswith("UPDATE opsjobs.audit_head")]
    connection.execute(repair)
    assert (check().state, check().rows, check().last) == ("intact", 8, 8)
    assert append() == 9
    assert check().state == "intact"


def test_two_rows_that_changed_places_are_found(
    tamper: Callable[..., None], check: Callable[..., ChainCheck]
) -> None:
    tamper(
        "UPDATE opsjobs.audit_events SET sequence = 99 WHERE sequence = 5",
        "UPDATE opsjobs.audit_events SET sequence = 5 WHERE sequence = 6",
        "UPDATE opsjobs.audit_events SET sequence = 6 WHERE sequence = 99",
    )
    broken = check().broken
    assert broken is not None
    assert broken.sequence == 5


def test_a_hash_without_the_key_is_no_signature(
    tamper: Callable[..., None], check: Callable[..., ChainCheck], connection: Connection
) -> None:
    """Who knows how it is done, but not SECRET_KEY, cannot write the end of the chain anew."""
    previous, text = connection.execute(
        "SELECT previous_hash, canonical FROM opsjobs.audit_events WHERE sequence = 8"
    ).fetchone()
    forged = text.replace("number 8", "number 9")
    hashed = hashlib.sha256(previous + forged.encode()).hexdigest()
    tamper(
        f"UPDATE opsjobs.audit_events SET canonical = '{forged}', reason = 'reason number 9',"
        f" hash = '\\x{hashed}' WHERE sequence = 8",
        f"UPDATE opsjobs.audit_head SET hash = '\\x{hashed}'",
    )
    broken = check().broken
    assert broken is not None
    assert (broken.sequence, broken.code) == (8, "hash")


def test_rows_taken_off_the_end_with_their_head_are_found_by_a_head_from_the_log_only(
    tamper: Callable[..., None], check: Callable[..., ChainCheck], connection: Connection
) -> None:
    noted = {8: connection.execute("SELECT hash FROM opsjobs.audit_head").fetchone()[0]}
    assert check(expected=noted).state == "intact"
    tamper(
        "DELETE FROM opsjobs.audit_events WHERE sequence > 6",
        "UPDATE opsjobs.audit_head h SET sequence = e.sequence, hash = e.hash"
        " FROM opsjobs.audit_events e WHERE e.sequence = 6",
    )
    assert check().state == "intact"  # nothing in the database says otherwise
    broken = check(expected=noted).broken
    assert broken is not None
    assert (broken.sequence, broken.code) == (8, "missing")


@pytest.mark.parametrize("first", [1, 5, 9])
def test_a_row_must_still_have_the_hash_that_was_noted_wherever_it_begins(
    first: int, tamper: Callable[..., None], check: Callable[..., ChainCheck]
) -> None:
    broken = check(first=first, expected={4: b"another"}).broken
    assert broken is not None
    assert (broken.sequence, broken.code) == (4, "expected")
    broken = check(first=first, expected={9: b"another"}).broken
    assert broken is not None
    assert (broken.sequence, broken.code) == (9, "missing")


def test_rotated_keys_verify_as_long_as_they_are_given(
    append: Append, check: Callable[..., ChainCheck], host: Host
) -> None:
    old, new = host.secrets[0], b"the new one"
    append()
    append()
    host.secrets = (new, old)
    append()
    assert check((new, old)).state == "intact"
    lost = check((new,))
    assert (lost.state, lost.unknown_rows, lost.unknown) == ("unverifiable", 2, (1, 2))
    assert check((new,), first=3).state == "intact"


@pytest.mark.parametrize(
    ("minutes", "state"), [(0, "intact"), (59, "intact"), (60, "intact"), (61, "broken")]
)
def test_an_old_key_signs_for_an_hour_after_the_first_row_of_a_newer_one(
    minutes: int, state: str, append: Append, check: Callable[..., ChainCheck], host: Host
) -> None:
    old, new = host.secrets[0], b"the new one"
    append()
    host.secrets = (new, old)
    append(at=PAUSED.at + timedelta(days=30))
    append(at=PAUSED.at + timedelta(days=30, minutes=30))
    host.secrets = (old,)
    append(at=PAUSED.at + timedelta(days=30, minutes=minutes))
    found = check((new, old))
    assert found.state == state
    if found.broken is not None:
        assert (found.broken.sequence, found.broken.code) == (4, "old_key")
        assert "more than an hour after a newer one came into use at 2026-12-24 02:13:37 UTC" in (
            found.broken.says
        )
    # Without the newer key nothing is known of an order, and the rows in between cannot be verified.
    assert check((old,)).state == "unverifiable"


def test_the_order_of_keys_is_that_of_the_settings(
    append: Append, check: Callable[..., ChainCheck], host: Host
) -> None:
    """Three keys, each in its turn; in another order the same rows are broken."""
    keys = [b"one", b"two", b"three"]
    for day, key in enumerate(keys):
        host.secrets = (key,)
        append(at=PAUSED.at + timedelta(days=day))
    assert check(tuple(reversed(keys))).state == "intact"
    broken = check((b"one", b"two", b"three")).broken
    assert broken is not None
    assert (broken.sequence, broken.code) == (2, "old_key")


def test_a_part_knows_the_key_and_the_time_of_the_row_before_it(
    append: Append, check: Callable[..., ChainCheck], host: Host
) -> None:
    old, new = host.secrets[0], b"the new one"
    host.secrets = (new,)
    append()
    host.secrets = (old,)
    append(at=PAUSED.at + timedelta(hours=2))
    broken = check((new, old), first=2).broken
    assert broken is not None
    assert (broken.sequence, broken.code) == (2, "old_key")


def test_a_row_whose_time_goes_back_by_more_than_a_minute_is_broken(
    append: Append, check: Callable[..., ChainCheck], connection: Connection
) -> None:
    append()
    append(at=PAUSED.at - timedelta(minutes=1))
    assert check().state == "intact"
    # `append` writes no such row by itself: the head that it looks at is changed.
    connection.execute("UPDATE opsjobs.audit_head SET at = NULL")
    append(at=PAUSED.at - timedelta(minutes=2, microseconds=1))
    broken = check().broken
    assert broken is not None
    assert (broken.sequence, broken.code) == (3, "time")


def test_a_clock_that_was_set_back_breaks_no_chain(
    append: Append, check: Callable[..., ChainCheck], connection: Connection
) -> None:
    append()
    for _ in range(3):
        append(at=PAUSED.at - timedelta(hours=1))
    times = connection.execute("SELECT at FROM opsjobs.audit_events ORDER BY sequence").fetchall()
    assert [PAUSED.at - at for (at,) in times] == [timedelta(minutes=n) for n in range(4)]
    assert check().state == "intact"


def test_two_processes_rotate_the_key_and_verify(
    children: Children, host: Host, session: Session, connection: Connection
) -> None:
    """The old process goes on beside the new one, as in a rolling deploy;
    then it writes once more, too late.
    """
    old = children.python("-c", ROTATING, env={"TEST_CONFIG_SECRET_KEY": '"old"'})
    new = children.python("-c", ROTATING, env={"TEST_CONFIG_SECRET_KEY": '"new"'})
    for child in (old, new):
        assert child.wait(60) == 0
    keys = (b"new", b"old")
    found = verify.verify(session, keys)
    assert (found.state, found.rows, found.unknown_rows) == ("intact", 40, 0)
    used = connection.execute("SELECT DISTINCT key_id FROM opsjobs.audit_events").fetchall()
    assert {name for (name,) in used} == set(chain.keys_by_name(keys))
    late = datetime.now(UTC) + timedelta(hours=2)
    with connection.transaction():
        transitions.append(connection, (b"old",), replace(PAUSED, at=late))
    broken = verify.verify(session, keys).broken
    assert broken is not None
    assert (broken.sequence, broken.code) == (41, "old_key")


def test_of_a_row_whose_key_is_lost_the_place_and_the_columns_are_still_checked(
    tamper: Callable[..., None], check: Callable[..., ChainCheck]
) -> None:
    assert check((b"another",)).unknown_rows == 8
    tamper("UPDATE opsjobs.audit_events SET reason = 'another' WHERE sequence = 5")
    found = check((b"another",))
    assert found.broken is not None
    assert found.broken.sequence == 5
    tamper("UPDATE opsjobs.audit_events SET canonical = 'no json' WHERE sequence = 2")
    found = check((b"another",))
    assert found.broken is not None
    assert (found.broken.sequence, found.broken.code) == (2, "columns")


def test_a_row_that_names_a_key_nobody_has_is_not_called_intact(
    tamper: Callable[..., None], check: Callable[..., ChainCheck], connection: Connection
) -> None:
    """Text, columns and key changed together look like a lost key: it says so, of exactly that row."""
    (text,) = connection.execute(
        "SELECT canonical FROM opsjobs.audit_events WHERE sequence = 5"
    ).fetchone()
    forged = chain.canonical_of(json.loads(text) | {"key_id": "feed", "reason": "another"})
    tamper(
        f"UPDATE opsjobs.audit_events SET canonical = '{forged}', reason = 'another', key_id = 'feed'"
        " WHERE sequence = 5"
    )
    found = check()
    assert (found.state, found.unknown) == ("unverifiable", (5, 5))


def test_a_part_begins_from_the_row_before_it(
    tamper: Callable[..., None], check: Callable[..., ChainCheck]
) -> None:
    tamper("UPDATE opsjobs.audit_events SET reason = 'another' WHERE sequence = 2")
    found = check(first=3)
    assert (found.state, found.first, found.last) == ("intact", 3, 8)
    tamper("DELETE FROM opsjobs.audit_events WHERE sequence = 2")
    assert check(first=3).broken is not None
    assert check(first=9).state == "intact"


def test_what_is_appended_meanwhile_is_left_for_the_next_time(
    append: Append, check: Callable[..., ChainCheck]
) -> None:
    for _ in range(5):
        append()
    found = check(after_batch=lambda sequence: append())
    assert (found.state, found.last) == ("intact", 5)


def test_memory_does_not_grow_with_the_chain(
    append: Append, connection: Connection, check: Callable[..., ChainCheck], monkeypatch: Any
) -> None:
    sizes: list[int] = []
    original = queries.list_links

    def note(*arguments: Any) -> Any:
        links = original(*arguments)
        sizes.append(len(links))
        return links

    for _ in range(20):
        append()
    monkeypatch.setattr(queries, "list_links", note)
    assert check().rows == 20
    assert max(sizes) == 3

"""Appends to the audit, in the transaction of what it records, or keeps what cannot be appended yet."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from ..core import sql
from ..core.db import Connection
from ..errors import AuditBlocked, AuditHeadMissing, AuditUnwritable
from . import chain
from .verify import TIME_SLACK

_log = logging.getLogger("flask_opsjobs.audit")
# What waits is appended in bounded steps, since other appenders wait meanwhile.
_MOST_PENDING = 100


@dataclass(frozen=True)
class Decision:
    """Who decided what, on what, why, and what came of it: `done`, or `refused` with a `code`.

    `before` and `after` are None or what has JSON. `via` is `page`, `cli`, `python` or `system`.
    """

    at: datetime
    actor: str
    via: str
    action: str
    subject: str
    targets: tuple[str, ...]
    outcome: str
    code: str | None = None
    permission: str | None = None
    reason: str | None = None
    request_id: str | None = None
    preview_id: int | None = None
    previewed_at: datetime | None = None
    before: Any = None
    after: Any = None


def append(
    connection: Connection,
    secrets: Sequence[bytes],
    decision: Decision,
    *,
    after_commit: Callable[[Callable[[], None]], object] | None = None,
) -> int:
    """Add the decision to the chain; its sequence. The caller commits, and commits soon.

    Locks the head, so other appenders wait from here to the commit: call it as the last thing of a transaction.
    Signed with the first of `secrets`. `after_commit` is given a function to be called once this is committed: it
    tells the log the new head, which only then is true. A time more than a minute before that of the row before is
    moved up to a minute before it, since the clock of Postgres was set back and the chain would count as broken.
    Raises `AuditHeadMissing` and `AuditBlocked`, and what Postgres raises.
    """
    with connection.cursor(row_factory=tuple_row) as cursor:
        head = cursor.execute(sql.load("lock_audit_head")).fetchone()
        if head is None:
            raise AuditHeadMissing(
                "opsjobs.audit_head has lost its one row, so no decision can be recorded and none is carried out: "
                "run `flask opsjobs audit verify`, find out who removed it, then put back the sequence and hash of "
                "the last row of opsjobs.audit_events"
            )
        sequence, previous_hash, previous_at = head[0] + 1, head[1], head[2]
        if previous_at is not None and decision.at < previous_at - TIME_SLACK:
            decision = replace(decision, at=previous_at - TIME_SLACK)
        event = _make_event(sequence, previous_hash, secrets[0], decision)
        try:
            cursor.execute(sql.load("append_audit_event"), event)
        except (psycopg.errors.UniqueViolation, psycopg.errors.CheckViolation) as error:
            raise AuditBlocked(
                f"opsjobs.audit_events cannot take its next row, {sequence}: a row outside the chain is there already, "
                "or opsjobs.audit_head was changed. So no decision can be recorded and none is carried out: run "
                '`flask opsjobs audit verify`, then follow "When the audit is blocked" in docs/audit.md'
            ) from error
    if after_commit is not None:
        after_commit(lambda: _log.info("audit head %d:%s", event["sequence"], event["hash"].hex()))
    return int(sequence)


def append_or_keep(
    connection: Connection,
    secrets: Sequence[bytes],
    decision: Decision,
    *,
    after_commit: Callable[[Callable[[], None]], object] | None = None,
) -> None:
    """As `append`, for what must be done also while the audit cannot be written: then it is kept, to be appended later.

    It is for the system alone. An operator's decision that cannot be recorded is not carried out.
    """
    try:
        with connection.transaction():  # a savepoint: what is done stays, whatever the audit says
            append(connection, secrets, decision, after_commit=after_commit)
    except AuditUnwritable as fault:
        _log.error(
            "%s of %s is done, and its audit waits: %s", decision.action, decision.subject, fault
        )
        values = {"decided_at": decision.at, "decision": _json(chain.storable(_kept(decision)))}
        connection.execute(sql.load("keep_audit_pending"), values)


def append_pending(
    connection: Connection,
    secrets: Sequence[bytes],
    now: datetime,
    *,
    after_commit: Callable[[Callable[[], None]], object] | None = None,
) -> None:
    """Append what was kept because the audit could not be written, if it can be now; else it stays. The caller commits.

    A row of the audit is of the time when it was written, so its reason says when it was done.
    """
    told: list[Callable[[], None]] = []
    try:
        with connection.transaction():
            _append_kept(connection, secrets, now, told.append)
    except AuditUnwritable:
        return  # as was said when it was kept
    if after_commit is not None:
        for tell in told:
            after_commit(tell)


def _append_kept(
    connection: Connection,
    secrets: Sequence[bytes],
    now: datetime,
    after_commit: Callable[[Callable[[], None]], object],
) -> None:
    with connection.cursor(row_factory=tuple_row) as cursor:
        kept = cursor.execute(sql.load("take_audit_pending"), {"limit": _MOST_PENDING}).fetchall()
    for _, decided_at, decision in kept:
        done = f"done at {decided_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC, when the audit could not be written"
        reason = f"{decision['reason']}; {done}"
        made = Decision(
            **decision | {"at": now, "reason": reason, "targets": tuple(decision["targets"])}
        )
        append(connection, secrets, made, after_commit=after_commit)


def _kept(decision: Decision) -> dict[str, Any]:
    """A decision of the system as JSON, without its time, which is a column of its own."""
    return {name: value for name, value in asdict(decision).items() if name != "at"}


def _make_event(
    sequence: int, previous_hash: bytes, secret: bytes, decision: Decision
) -> dict[str, Any]:
    """The row, as parameters of its statement."""
    key = chain.derive_key(secret)
    columns: dict[str, Any] = chain.storable(
        {"sequence": sequence, "key_id": chain.name_key(key)} | asdict(decision)
    )
    canonical = chain.canonical_of(columns)
    return columns | {
        "before": _json(columns["before"]),
        "after": _json(columns["after"]),
        "canonical": canonical,
        "previous_hash": previous_hash,
        "hash": chain.hash_of(key, previous_hash, canonical),
    }


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, allow_nan=False)

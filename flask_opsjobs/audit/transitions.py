"""Appends decisions to the audit in the transaction that executes them, or keeps them for later."""

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

_log = logging.getLogger("flask_opsjobs.audit")
# How many kept decisions are appended at once. It is bounded, since other appenders wait meanwhile.
_MOST_PENDING = 100


@dataclass(frozen=True)
class Decision:
    """Who decided what, on which targets, why, and the outcome: `done`, or `refused` with a `code`.

    `before` and `after` are JSON values or None. `via` is `page`, `cli`, `python` or `system`.
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
    """Append the decision to the chain and return its sequence. The caller commits, and commits soon.

    Locks the head, so other appenders wait until the commit: call it last in a transaction. The row is signed
    with the first of `secrets`. `after_commit` gets a function that writes the new head to the log, and must
    call it after the commit.

    The clock of Postgres may have been set back. If the decision is then more than a minute earlier than the
    last row, the new row gets the time one minute before the last row: an earlier time would count as a
    broken chain. Raises `AuditHeadMissing` and `AuditBlocked`, and what Postgres raises.
    """
    with connection.cursor(row_factory=tuple_row) as cursor:
        head = cursor.execute(sql.load("lock_audit_head")).fetchone()
        if head is None:
            raise AuditHeadMissing(
                "opsjobs.audit_head has lost its one row, so no decision can be recorded and none is carried "
                "out: run `flask opsjobs audit verify`, find out who removed it, then put back the sequence "
                "and hash of the last row of opsjobs.audit_events"
            )
        sequence, previous_hash, previous_at = head[0] + 1, head[1], head[2]
        if previous_at is not None and decision.at < previous_at - chain.TIME_SLACK:
            decision = replace(decision, at=previous_at - chain.TIME_SLACK)
        event = _make_event(sequence, previous_hash, secrets[0], decision)
        try:
            cursor.execute(sql.load("append_audit_event"), event)
        except (psycopg.errors.UniqueViolation, psycopg.errors.CheckViolation) as error:
            raise AuditBlocked(
                f"opsjobs.audit_events cannot take its next row, {sequence}: a row outside the chain is "
                "there already, or opsjobs.audit_head was changed. So no decision can be recorded and none "
                'is carried out: run `flask opsjobs audit verify`, then follow "When the audit is blocked" '
                "in docs/audit.md"
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
    """Append a decision, or keep it for later when the audit cannot be written. The caller commits.

    Only decisions of the system may be kept: a rescue, for example, must happen even when the audit fails. An
    operator's decision that cannot be audited is not executed.
    """
    try:
        with connection.transaction():  # a savepoint: when the audit fails, the rescue itself stays
            append(connection, secrets, decision, after_commit=after_commit)
    except AuditUnwritable as fault:
        _log.error(
            "%s of %s is done, but cannot be audited yet: %s",
            decision.action,
            decision.subject,
            fault,
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
    """Append the decisions that were kept while the audit could not be written. The caller commits.

    When the audit still cannot be written, they stay kept. Each row gets the time at which it is written. So
    its reason says when the decision was executed.
    """
    log_heads: list[Callable[[], None]] = []
    try:
        with connection.transaction():
            _append_kept(connection, secrets, now, log_heads.append)
    except AuditUnwritable:
        return  # logged already, when the decision was kept
    if after_commit is not None:
        for log_head in log_heads:
            after_commit(log_head)


def _append_kept(
    connection: Connection,
    secrets: Sequence[bytes],
    now: datetime,
    after_commit: Callable[[Callable[[], None]], object],
) -> None:
    with connection.cursor(row_factory=tuple_row) as cursor:
        kept = cursor.execute(sql.load("take_audit_pending"), {"limit": _MOST_PENDING}).fetchall()
    for _, decided_at, decision in kept:
        done_at = f"{decided_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
        reason = f"{decision['reason']}; done at {done_at}, when the audit could not be written"
        made = Decision(
            **decision | {"at": now, "reason": reason, "targets": tuple(decision["targets"])}
        )
        append(connection, secrets, made, after_commit=after_commit)


def _kept(decision: Decision) -> dict[str, Any]:
    """A decision of the system as JSON, without its time, which has its own column."""
    return {name: value for name, value in asdict(decision).items() if name != "at"}


def _make_event(
    sequence: int, previous_hash: bytes, secret: bytes, decision: Decision
) -> dict[str, Any]:
    """The new row, as parameters of its statement."""
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

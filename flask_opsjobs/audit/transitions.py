"""The one arrow of the audit: append. It joins the transaction of what it tells of."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import tuple_row

from .. import sql
from ..db import Connection
from ..errors import AuditHeadMissing
from . import chain

_log = logging.getLogger("flask_opsjobs.audit")


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

    Locks the head, so appenders stand in line from here to their commits: call it as the last thing of a transaction.
    Signed with the first of `secrets`. `after_commit` is given a function to be called once this is committed: it
    tells the log the new head, which only then is true. Raises `AuditHeadMissing`, and what Postgres raises.
    """
    with connection.cursor(row_factory=tuple_row) as cursor:
        head = cursor.execute(sql.load("lock_audit_head")).fetchone()
        if head is None:
            raise AuditHeadMissing(
                "opsjobs.audit_head has lost its one row, so no decision can be recorded and none is carried out: "
                "run `flask opsjobs audit verify`, find out who removed it, then put back the sequence and hash of "
                "the last row of opsjobs.audit_events"
            )
        event = _make_event(head[0] + 1, head[1], secrets[0], decision)
        cursor.execute(sql.load("append_audit_event"), event)
    if after_commit is not None:
        after_commit(lambda: _log.info("audit head %d:%s", event["sequence"], event["hash"].hex()))
    sequence: int = event["sequence"]
    return sequence


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

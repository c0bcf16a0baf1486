"""Writes the rows of previews: stores a preview, locks it, and spends it once."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from ..core import sql
from ..core.db import Connection
from . import documents
from .catalog import PREVIEW_MINUTES
from .planning import PlanWithFacts, Request
from .shapes import Preview, Receipt
from .tokens import make_token


def limit_waits(connection: Connection, seconds: int) -> None:
    """Set how many seconds the caller's transaction waits for a locked row."""
    connection.execute(sql.load("limit_lock_wait"), {"wait": f"{seconds}s"})


def keep(
    connection: Connection, secret: bytes, request: Request, planned: PlanWithFacts, now: datetime
) -> Preview:
    """Store a preview and return it with its token. Commits unless the caller has a transaction."""
    plan, expires_at = planned.plan, now + timedelta(minutes=PREVIEW_MINUTES)
    row = {
        "actor": request.actor,
        "via": request.via,
        "action": request.action.name,
        "targets": list(request.targets),
        "params": Jsonb(dict(request.params)),
        "plan": Jsonb(documents.write_plan(plan, planned.facts)),
        "fingerprint": plan.fingerprint,
        "created_at": now,
        "expires_at": expires_at,
    }
    found = connection.execute(sql.load("insert_preview"), row).fetchone()
    assert found is not None
    token = make_token(secret, found[0], request.actor, plan.fingerprint, now)
    return Preview(found[0], token, request.actor, plan, now, expires_at)


def lock(connection: Connection, preview_id: int) -> dict[str, Any] | None:
    """Lock the row of a preview until the caller commits, and return it; None when there is none."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(sql.load("lock_preview"), {"id": preview_id}).fetchone()


def spend(connection: Connection, preview_id: int, receipt: Receipt, now: datetime) -> None:
    """Store the receipt of a preview. After the first time it cannot be executed again."""
    kept = Jsonb(documents.write_receipt(receipt))
    values = {"id": preview_id, "outcome": receipt.outcome, "receipt": kept, "now": now}
    connection.execute(sql.load("spend_preview"), values)


def note_reuse(connection: Connection, preview_id: int, now: datetime) -> None:
    """Record that its actor tried to execute a spent preview again. Only the first attempt is audited."""
    connection.execute(sql.load("note_preview_reuse"), {"id": preview_id, "now": now})

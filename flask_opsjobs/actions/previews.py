"""Stores a plan that was shown to an actor, finds it again, and spends it once.

Its token is derived from the row and the host's secret, so that it is never stored or logged.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from sqlalchemy import select
from sqlalchemy.orm import Session

from ..core import sql
from ..core.db import Connection
from ..core.signing import is_signed, sign
from .domain import Request
from .models import PreviewRow
from .shapes import Change, Item, Plan, Preview, Receipt, Skip, write_json

PREVIEW_MINUTES = 15
_PURPOSE = "preview"


def limit_waits(connection: Connection, seconds: int) -> None:
    """Set how many seconds the caller's transaction waits for a locked row."""
    connection.execute(sql.load("limit_lock_wait"), {"wait": f"{seconds}s"})


def keep_preview(connection: Connection, request: Request, plan: Plan) -> Preview:
    """Store a preview and return it with its token. Commits unless the caller has a transaction."""
    expires_at = request.now + timedelta(minutes=PREVIEW_MINUTES)
    row = {
        "actor": request.actor,
        "via": request.via,
        "action": request.action.name,
        "targets": list(request.targets),
        "params": Jsonb(dict(request.params)),
        "plan": Jsonb(_write_plan(plan)),
        "fingerprint": plan.fingerprint,
        "created_at": request.now,
        "expires_at": expires_at,
    }
    stored = connection.execute(sql.load("insert_preview"), row).fetchone()
    assert stored is not None
    text = _signed_text(stored[0], request.actor, plan.fingerprint, request.now)
    return Preview(
        id=stored[0],
        token=_make_token(request.host.secrets, text),
        actor=request.actor,
        targets=request.targets,
        plan=plan,
        created_at=request.now,
        expires_at=expires_at,
    )


def lock_preview(
    connection: Connection, secrets: Sequence[bytes], preview_id: int
) -> Preview | None:
    """Lock the row of a preview until the caller commits, and return it; None when there is none."""
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(sql.load("lock_preview"), {"id": preview_id}).fetchone()
    return None if row is None else _read_preview(row, secrets)


def find_preview(
    session: Session, secrets: Sequence[bytes], preview_id: int, actor: str
) -> Preview | None:
    """The preview with its token and, once it is used, its receipt. None if `actor` has no such preview."""
    wanted = select(*PreviewRow.__table__.columns).where(PreviewRow.id == preview_id)
    row = session.execute(wanted).mappings().one_or_none()
    if row is None or row["actor"] != actor:
        return None
    return _read_preview({str(name): value for name, value in row.items()}, secrets)


def spend_preview(connection: Connection, preview_id: int, receipt: Receipt, now: datetime) -> None:
    """Store the receipt of a preview. After the first time it cannot be executed again."""
    kept = Jsonb(write_json(receipt))
    values = {"id": preview_id, "outcome": receipt.outcome, "receipt": kept, "now": now}
    connection.execute(sql.load("spend_preview"), values)


def note_reuse(connection: Connection, preview_id: int, now: datetime) -> None:
    """Record that its actor tried to execute a spent preview again. Only the first attempt is audited."""
    connection.execute(sql.load("note_preview_reuse"), {"id": preview_id, "now": now})


def is_token_of(preview: Preview, secrets: Sequence[bytes], token: str) -> bool:
    """Whether `token` belongs to this preview, under any of the secrets: a key may have been replaced."""
    try:
        signature = bytes.fromhex(token)
    except (TypeError, ValueError):
        return False
    text = _signed_text(preview.id, preview.actor, preview.plan.fingerprint, preview.created_at)
    return is_signed(secrets, _PURPOSE, text, signature)


def list_drift(preview: Preview, plan: Plan) -> Iterator[Change]:
    """What has changed since the preview: the facts of each target, and whether it can be acted on."""
    shown = {skip.target: skip for skip in preview.plan.skipped}
    skipped = {skip.target: skip for skip in plan.skipped}
    facts_before, facts_now = preview.plan.facts, plan.facts
    for target in preview.targets:
        before, now = shown.get(target), skipped.get(target)
        if before is not None and now is not None and before.code == now.code:
            continue
        was, facts = facts_before[target], facts_now[target]
        for what in dict.fromkeys([*was, *facts]):
            if was.get(what) != facts.get(what):
                yield Change(f"{target} {what}", _words(was.get(what)), _words(facts.get(what)))
        if (before is None) != (now is None):
            yield Change(target, _say_skip(before), _say_skip(now))


def _say_skip(skip: Skip | None) -> str:
    return "can be acted on" if skip is None else skip.says


def _words(value: Any) -> str | None:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):  # the arguments of a cron entry, which a page recognises as JSON
        return json.dumps(value)
    return None if value is None else str(value)


# --- the token: with it this actor, and nobody else, may execute this preview


def _make_token(secrets: Sequence[bytes], text: bytes) -> str:
    return sign(secrets[0], _PURPOSE, text).hex()


def _signed_text(preview_id: int, actor: str, fingerprint: str, created_at: datetime) -> bytes:
    parts = [preview_id, actor, fingerprint, created_at.astimezone(UTC).isoformat()]
    return json.dumps(parts).encode()


# --- the row: plan and receipt are stored as JSON


def _read_preview(row: Mapping[str, Any], secrets: Sequence[bytes]) -> Preview:
    text = _signed_text(row["id"], row["actor"], row["fingerprint"], row["created_at"])
    return Preview(
        id=row["id"],
        token=_make_token(secrets, text),
        actor=row["actor"],
        targets=tuple(row["targets"]),
        plan=_read_plan(row),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        spent_at=row["spent_at"],
        reused_at=row["reused_at"],
        receipt=None if row["receipt"] is None else _read_receipt(row["receipt"]),
    )


def _write_plan(plan: Plan) -> dict[str, Any]:
    """The part of a plan that has no column of its own, with the facts,
    so that later changes can be named.
    """
    items, skipped = map(write_json, plan.items), map(write_json, plan.skipped)
    return {"items": [*items], "skipped": [*skipped], "risk": plan.risk, "facts": plan.facts}


def _read_plan(row: Mapping[str, Any]) -> Plan:
    stored = row["plan"]
    facts = stored["facts"]
    return Plan(
        action=row["action"],
        items=tuple(_read_item(each, facts[each["target"]]) for each in stored["items"]),
        skipped=tuple(Skip(**each, facts=facts[each["target"]]) for each in stored["skipped"]),
        risk=stored["risk"],
        fingerprint=row["fingerprint"],
        params=row["params"],
    )


def _read_receipt(stored: Mapping[str, Any]) -> Receipt:
    lists = {
        "done": tuple(_read_item(each) for each in stored["done"]),
        "skipped": tuple(Skip(**each) for each in stored["skipped"]),
        "drifted": tuple(Change(**each) for each in stored["drifted"]),
    }
    return Receipt(**{**stored, **lists})


def _read_item(stored: Mapping[str, Any], facts: Mapping[str, Any] = {}) -> Item:
    changes = tuple(Change(**each) for each in stored["changes"])
    return Item(**{**stored, "changes": changes}, facts=facts)

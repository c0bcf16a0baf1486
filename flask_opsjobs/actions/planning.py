"""Plans what a request would do, and keeps the plan as a preview, which one person may execute once.

A plan asks the access policy, lets the domain decide, and has a fingerprint. A preview has a token for each
person who opens it, which is derived from its row, the person and the host's secret, so that it is never
stored or logged.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Unpack

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from sqlalchemy import select
from sqlalchemy.orm import Session

from ..core import sql
from ..core.db import Connection, say_too_large
from ..core.signing import is_signed, sign
from ..core.words import show_value
from ..errors import ActionRefused
from ..host import Host
from .domain import Action, Domain, Request, Row, Who, say_cannot
from .models import PreviewRow
from .permission import find_excess, is_permitted
from .registry import ACTIONS, DOMAINS
from .shapes import Change, Item, Plan, Preview, Receipt, Skip, write_json

_log = logging.getLogger("flask_opsjobs")

UNREADABLE = "unreadable"
# The most targets of one plan: a page of a list.
MOST_TARGETS = 100
PREVIEW_MINUTES = 15
_PURPOSE = "preview"


# --- a request


def make_request(
    host: Host,
    action: str,
    targets: Iterable[str],
    params: Mapping[str, Any] | None,
    **who: Unpack[Who],
) -> Request:
    """Make the request, with canonical targets and parameters. Raises `ActionRefused` when it is invalid."""
    found = ACTIONS.get(action)
    if found is None:
        raise _unreadable(action, f"there is no action {show_value(action)}")
    actor = who["actor"]
    if not isinstance(actor, str) or not actor.strip():
        sentence = f"{action} needs an actor: nobody is signed in"
        raise ActionRefused(
            Receipt("refused", action, "unauthorized", sentence, audit_sequence=None)
        )
    texts = [targets] if isinstance(targets, str) else targets
    canonical = tuple(dict.fromkeys(_canonical(found, target) for target in texts))
    if not canonical:
        raise _unreadable(action, f"{action} needs at least one {found.domain}")
    if len(canonical) > MOST_TARGETS:
        sentence = (
            f"{action} takes at most {MOST_TARGETS} {found.plural} at once, got {len(canonical)}"
        )
        if found.is_operable:
            sentence += (
                "; for more, start an operation, which takes all jobs of a filter: "
                f"operator.start({action!r}, …)"
            )
        raise _unreadable(action, sentence)
    request = Request(host, found, canonical, params or {}, **who)
    return replace(request, params=_canonical_params(request))


def _canonical(action: Action[Any], target: object) -> str:
    found: str | None = None
    if isinstance(target, str):
        found = DOMAINS[action.domain].read_target(target)
    if found is None:
        raise _unreadable(action.name, _say_no_target(action, target))
    return found


def _say_no_target(action: Action[Any], text: object) -> str:
    domain, _, name = text.partition("/") if isinstance(text, str) else ("", "", "")
    kinds = action.about or (action.domain,)
    if domain in kinds and (too_large := say_too_large(domain, name)):
        return too_large
    allowed = ", ".join(f"{kind}/…" for kind in kinds)
    return f"{show_value(text)} is not a target of {action.name}: write {allowed}"


def _canonical_params(request: Request) -> dict[str, Any]:
    action = request.action
    if wrong := sorted(set(request.params) ^ set(action.params)):
        what = "needs" if wrong[0] in action.params else "does not take"
        raise _unreadable(action.name, f"{action.name} {what} the parameter {wrong[0]}")
    try:
        return action.read_params(request)
    except ValueError as fault:
        raise _unreadable(action.name, str(fault)) from None


def _unreadable(action: object, says: str) -> ActionRefused:
    """The refusal of a request that is invalid in any state. It is no decision, so it is not audited."""
    return ActionRefused(Receipt("refused", str(action), UNREADABLE, says, audit_sequence=None))


# --- its plan


def make_plan(connection: Connection, request: Request) -> Plan:
    """Make the plan as of now. Locks and writes nothing."""
    plan, _ = decide_targets(connection, request, DOMAINS[request.action.domain])
    return plan


def decide_targets(
    connection: Connection, request: Request, domain: Domain[Row], *, lock: bool = False
) -> tuple[Plan, dict[str, Row]]:
    """Make the plan, and return with it the rows from which it was made, by target.

    With `lock` nobody else changes the targets until the caller commits. Targets that the actor may not
    change are neither read nor locked.
    """
    permitted = [target for target in request.targets if is_permitted(request, target)]
    excess = find_excess(request, request.action.permission, len(permitted))
    allowed = permitted if excess is None else []
    if lock:
        domain.lock_rows(connection, request, allowed)
    rows = domain.find_rows(connection, request, allowed)
    forbidden = {
        target: skip for target, row in rows.items() if (skip := domain.forbid(row, request))
    }
    legal = {target: row for target, row in rows.items() if target not in forbidden}
    rows = {**rows, **request.action.read_more(connection, request, legal)}

    def decide_target(target: str) -> Item | Skip:
        if target not in permitted:
            return _denial(request, target)
        if excess is not None:
            says = say_cannot(request.action, target, excess)
            return Skip(target, None, "most_targets", says)
        row = rows.get(target)
        if row is None:
            return Skip(target, None, "not_found", domain.say_unknown(target))
        decided = forbidden.get(target) or request.action.decide(row, request)
        return replace(decided, facts=domain.list_facts(row, request.now))

    decisions = [decide_target(target) for target in request.targets]
    plan = Plan(
        action=request.action.name,
        items=tuple(each for each in decisions if isinstance(each, Item)),
        skipped=tuple(each for each in decisions if isinstance(each, Skip)),
        risk=request.action.risk,
        fingerprint=_fingerprint(request, decisions),
        params=request.params,
    )
    return plan, rows


def may_act(request: Request) -> bool:
    """Whether the actor may do this to at least one target. Does not read the targets."""
    return any(is_permitted(request, target) for target in request.targets)


def deny(request: Request) -> tuple[Skip, ...]:
    """A skip for every target: the actor has no permission."""
    return tuple(_denial(request, target) for target in request.targets)


def _denial(request: Request, target: str) -> Skip:
    action = request.action
    says = say_cannot(action, target, f"it needs {action.permission}")
    return Skip(target, None, "unauthorized", says)


def _fingerprint(request: Request, decisions: Iterable[Item | Skip]) -> str:
    """A hash of what must not change until the execution: the facts of each item, the code of each skip."""
    weighed = [
        [each.target, dict(each.facts) if isinstance(each, Item) else each.code]
        for each in decisions
    ]
    text = json.dumps([request.action.name, dict(request.params), weighed], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


# --- the plan as a preview


def make_preview(connection: Connection, request: Request) -> Preview:
    """Make a plan, store it, and return it with its token. Commits unless the caller has a transaction.

    Raises `ActionRefused`, and stores nothing, when arguments are invalid: one may be redacted.
    """
    plan = make_plan(connection, request)
    for skip in plan.skipped:
        if skip.code == "invalid_args":
            receipt = Receipt("refused", plan.action, skip.code, skip.says, audit_sequence=None)
            raise ActionRefused(receipt)
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


def limit_waits(connection: Connection, seconds: int) -> None:
    """Set how many seconds the caller's transaction waits for a locked row."""
    connection.execute(sql.load("limit_lock_wait"), {"wait": f"{seconds}s"})


def find_targets(connection: Connection, preview_id: int) -> tuple[str, Sequence[str]] | None:
    """The action and the targets of a preview, whoever asks; None when there is none. Locks nothing."""
    row = connection.execute(sql.load("find_preview_targets"), {"id": preview_id}).fetchone()
    return None if row is None else (row[0], row[1])


def lock_preview(
    connection: Connection, secrets: Sequence[bytes], preview_id: int, actor: str
) -> Preview | None:
    """As `find_preview`, and the row stays locked until the caller commits."""
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(sql.load("lock_preview"), {"id": preview_id}).fetchone()
    return None if row is None else _read_preview(row, secrets, actor)


def find_preview(
    session: Session, secrets: Sequence[bytes], preview_id: int, actor: str
) -> Preview | None:
    """The preview with the token of `actor` and, once it is used, its receipt. None when there is none.

    Who may open it is for the caller to decide.
    """
    wanted = select(*PreviewRow.__table__.columns).where(PreviewRow.id == preview_id)
    row = session.execute(wanted).mappings().one_or_none()
    if row is None:
        return None
    return _read_preview({str(name): value for name, value in row.items()}, secrets, actor)


def spend_preview(connection: Connection, preview_id: int, receipt: Receipt, now: datetime) -> None:
    """Store the receipt of a preview. After the first time it cannot be executed again."""
    kept = Jsonb(write_json(receipt))
    values = {"id": preview_id, "outcome": receipt.outcome, "receipt": kept, "now": now}
    connection.execute(sql.load("spend_preview"), values)


def note_reuse(connection: Connection, preview_id: int, now: datetime) -> None:
    """Record that somebody tried to execute a spent preview again. Only the first attempt is audited."""
    connection.execute(sql.load("note_preview_reuse"), {"id": preview_id, "now": now})


def is_token_of(preview: Preview, secrets: Sequence[bytes], token: str, actor: str) -> bool:
    """Whether `token` is that of `actor` for this preview, under any of the secrets: one may be new."""
    try:
        signature = bytes.fromhex(token)
    except (TypeError, ValueError):
        return False
    text = _signed_text(preview.id, actor, preview.plan.fingerprint, preview.created_at)
    return is_signed(secrets, _PURPOSE, text, signature)


# --- the token of a preview: with it the actor who opened it, and nobody else, may execute it


def _make_token(secrets: Sequence[bytes], text: bytes) -> str:
    return sign(secrets[0], _PURPOSE, text).hex()


def _signed_text(preview_id: int, actor: str, fingerprint: str, created_at: datetime) -> bytes:
    parts = [preview_id, actor, fingerprint, created_at.astimezone(UTC).isoformat()]
    return json.dumps(parts).encode()


# --- the row of a preview: plan and receipt are stored as JSON


def _read_preview(row: Mapping[str, Any], secrets: Sequence[bytes], actor: str) -> Preview:
    text = _signed_text(row["id"], actor, row["fingerprint"], row["created_at"])
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

"""Reads a preview for a page, for its own actor only."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session, raiseload

from . import documents
from .models import PreviewRow
from .shapes import Preview
from .tokens import make_token


def find_preview(
    session: Session, secrets: Sequence[bytes], preview_id: int, actor: str
) -> Preview | None:
    """The preview with its token and, once it is used, its receipt. None if `actor` has no such preview."""
    wanted = select(PreviewRow).where(PreviewRow.id == preview_id).options(raiseload("*"))
    row = session.scalars(wanted).one_or_none()
    if row is None or row.actor != actor:
        return None
    plan = documents.read_plan(
        row.plan, action=row.action, fingerprint=row.fingerprint, params=row.params
    )
    return Preview(
        id=row.id,
        token=make_token(secrets[0], row.id, row.actor, row.fingerprint, row.created_at),
        actor=row.actor,
        plan=plan,
        created_at=row.created_at,
        expires_at=row.expires_at,
        spent_at=row.spent_at,
        receipt=None if row.receipt is None else documents.read_receipt(row.receipt),
    )

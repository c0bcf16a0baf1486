"""Derives the token of a preview from its row and the host's secret, so that it is never stored or logged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from ..core.signing import is_signed, sign

_PURPOSE = "preview"


def make_token(
    secret: bytes, preview_id: int, actor: str, fingerprint: str, created_at: datetime
) -> str:
    """The token with which this actor, and nobody else, may execute this preview."""
    return sign(secret, _PURPOSE, _text(preview_id, actor, fingerprint, created_at)).hex()


def is_token(
    secrets: Sequence[bytes],
    token: str,
    preview_id: int,
    actor: str,
    fingerprint: str,
    created_at: datetime,
) -> bool:
    """Whether `token` belongs to this preview, under any of the secrets: a key may have been replaced."""
    try:
        signature = bytes.fromhex(token)
    except (TypeError, ValueError):
        return False
    text = _text(preview_id, actor, fingerprint, created_at)
    return is_signed(secrets, _PURPOSE, text, signature)


def _text(preview_id: int, actor: str, fingerprint: str, created_at: datetime) -> bytes:
    parts = [preview_id, actor, fingerprint, created_at.astimezone(UTC).isoformat()]
    return json.dumps(parts).encode()

"""The token of a preview: derived from its row and the host's secret, so that no table and no log ever holds it."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from datetime import UTC, datetime

# What is signed with the host's SECRET_KEY here can be confused with nothing else that it signs.
_PURPOSE = b"flask_opsjobs.preview\0"


def make_token(
    secret: bytes, preview_id: int, actor: str, fingerprint: str, created_at: datetime
) -> str:
    """What lets this actor, and nobody else, execute this preview."""
    parts = [preview_id, actor, fingerprint, created_at.astimezone(UTC).isoformat()]
    return hmac.new(secret, _PURPOSE + json.dumps(parts).encode(), hashlib.sha256).hexdigest()


def is_token(
    secrets: Sequence[bytes], token: str, preview_id: int, actor: str, fingerprint: str,
    created_at: datetime,
) -> bool:  # fmt: skip
    """Whether `token` is that preview's, under any of the secrets: one may have been replaced since."""
    given = token.encode(errors="replace") if isinstance(token, str) else b""
    return any(
        hmac.compare_digest(
            make_token(secret, preview_id, actor, fingerprint, created_at).encode(), given
        )
        for secret in secrets
    )

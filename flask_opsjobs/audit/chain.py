"""Computes the chain of hashes: the text of a row that is hashed, the keys, and the hash itself. Pure."""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ..core.signing import sign

# Postgres stores neither in a text.
_UNSTORABLE = {0: "\ufffd"} | dict.fromkeys(range(0xD800, 0xE000), "\ufffd")


def derive_key(secret: bytes) -> bytes:
    """The key that `secret` stands for here."""
    return sign(secret, "audit", b"key")


def name_key(key: bytes) -> str:
    """The name under which rows say which key signed them; gives nothing of it away."""
    return sign(key, "audit", b"name", 8).hex()


def keys_by_name(secrets: Sequence[bytes]) -> dict[str, bytes]:
    """Every key that may have signed a row, the newest first: of the secret in use, then of those that it replaced."""
    return {name_key(key): key for key in map(derive_key, secrets)}


def hash_of(key: bytes, previous_hash: bytes, canonical: str) -> bytes:
    """HMAC-SHA256 over the hash before and the row's text."""
    return hmac.digest(key, previous_hash + canonical.encode(), "sha256")


def canonical_of(columns: Mapping[str, Any]) -> str:
    """The row as one text: JSON with sorted keys, moments in UTC with microseconds.

    It is stored, since neither `jsonb` nor `timestamptz` would give the same text back under every session and version.
    Raises `TypeError` or `ValueError` for what has no JSON.
    """
    return json.dumps(
        {name: _plain(value) for name, value in columns.items()},
        sort_keys=True,
        ensure_ascii=False,
        allow_nan=False,
        separators=(",", ":"),
    )


def storable(value: Any) -> Any:
    """The value with every character that Postgres cannot store replaced, and lists for tuples."""
    if isinstance(value, str):
        return value.translate(_UNSTORABLE)
    if isinstance(value, Mapping):
        return {storable(key): storable(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [storable(one) for one in value]
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    return value

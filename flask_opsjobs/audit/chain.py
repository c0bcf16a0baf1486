"""Computes the audit's chain of hashes: the canonical text of a row, the keys, and the hash itself. Pure."""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from ..core.signing import sign

# How much earlier than the previous row a row's time may be, since processes wait for each other at the head.
TIME_SLACK = timedelta(minutes=1)
# Postgres cannot store NUL or surrogates in a text.
_UNSTORABLE = {0: "\ufffd"} | dict.fromkeys(range(0xD800, 0xE000), "\ufffd")


def derive_key(secret: bytes) -> bytes:
    """The audit's key, derived from `secret`."""
    return sign(secret, "audit", b"key")


def name_key(key: bytes) -> str:
    """The name by which a row tells which key signed it. It reveals nothing about the key."""
    return sign(key, "audit", b"name", 8).hex()


def keys_by_name(secrets: Sequence[bytes]) -> dict[str, bytes]:
    """The keys that may have signed a row, newest first: of the current secret, then of older secrets."""
    return {name_key(key): key for key in map(derive_key, secrets)}


def hash_of(key: bytes, previous_hash: bytes, canonical: str) -> bytes:
    """HMAC-SHA256 of the previous row's hash and this row's canonical text."""
    return hmac.digest(key, previous_hash + canonical.encode(), "sha256")


def canonical_of(columns: Mapping[str, Any]) -> str:
    """The row as one text: JSON with sorted keys, and times in UTC with microseconds.

    The text is stored, since `jsonb` and `timestamptz` may be written differently by another session or
    version. Raises `TypeError` or `ValueError` for a value that has no JSON.
    """
    return json.dumps(
        {name: _plain(value) for name, value in columns.items()},
        sort_keys=True,
        ensure_ascii=False,
        allow_nan=False,
        separators=(",", ":"),
    )


def storable(value: Any) -> Any:
    """The value with characters that Postgres cannot store replaced, and with lists instead of tuples."""
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

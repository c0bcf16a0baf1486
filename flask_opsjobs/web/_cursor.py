"""Where a page of a list begins, as an opaque word that only we can make."""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence

_MAC = 12


class BadCursor(ValueError):
    """The word was not made by us, or for another list."""


def make(keys: Sequence[bytes], purpose: str, position: int) -> str:
    """The word for `position` in the list that `purpose` names; signed with the first key."""
    packed = position.to_bytes(8, "big")
    return urlsafe_b64encode(packed + _sign(keys[0], purpose, packed)).decode().rstrip("=")


def read(keys: Sequence[bytes], purpose: str, word: str) -> int:
    """The position. Raises `BadCursor` unless one of the keys signed it for this purpose."""
    try:
        raw = urlsafe_b64decode(word.encode("ascii") + b"=" * (-len(word) % 4))
    except ValueError:
        raise BadCursor(word) from None
    packed, mac = raw[:8], raw[8:]
    if not any(hmac.compare_digest(mac, _sign(key, purpose, packed)) for key in keys):
        raise BadCursor(word)
    return int.from_bytes(packed, "big")


def _sign(key: bytes, purpose: str, packed: bytes) -> bytes:
    text = b"flask_opsjobs cursor\n" + purpose.encode() + b"\n" + packed
    return hmac.digest(key, text, "sha256")[:_MAC]

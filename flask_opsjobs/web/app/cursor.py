"""Writes and reads cursors: signed opaque words that say where a page of a list begins."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.signing import is_signed, read_word, sign, write_word

_SIZE = 12


class BadCursor(ValueError):
    """The cursor was made for another list, or not by us."""


def make(keys: Sequence[bytes], purpose: str, position: int) -> str:
    """The cursor for `position` in the list named by `purpose`, signed with the first key."""
    packed = position.to_bytes(8, "big")
    return write_word(packed + sign(keys[0], "cursor", _text(purpose, packed), _SIZE))


def read_cursor(keys: Sequence[bytes], purpose: str, word: str) -> int:
    """The position. Raises `BadCursor` unless one of the keys signed it for this purpose."""
    try:
        raw = read_word(word)
    except ValueError:
        raise BadCursor(word) from None
    packed, signature = raw[:8], raw[8:]
    if not is_signed(keys, "cursor", _text(purpose, packed), signature, _SIZE):
        raise BadCursor(word)
    return int.from_bytes(packed, "big")


def _text(purpose: str, packed: bytes) -> bytes:
    return purpose.encode() + b"\n" + packed

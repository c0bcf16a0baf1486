"""Writes values as JSON that Postgres can store and Python can read back, or says why it cannot."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from pydantic_core import from_json, to_json

# The escape of NUL, not preceded by an odd number of backslashes: `\\u0000` is six harmless characters.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_UNKNOWN_TYPE = re.compile(r"unknown type: <class '(?:[\w.<>]*\.)?(\w+)'>")

_HOLDERS = (dict, list, tuple)

NUL = "has a NUL character, which Postgres cannot store"
SURROGATE = "has one half of a surrogate pair, which is no character and cannot be stored"


class NotStorable(ValueError):
    """A value has no JSON that can be kept. `kind` is a word for programs, the text says why, never the value."""

    def __init__(self, kind: str, why: str) -> None:
        self.kind = kind
        super().__init__(why)


def dump(value: Any, to_json: Callable[[Any], bytes] = to_json) -> bytes:
    """The value as JSON by the given serializer. Raises `NotStorable`, whatever the serializer raises."""
    try:
        raw = to_json(value)
    except Exception as error:
        reason = _reason(error)
    else:
        require_storable(raw)
        return raw
    # Raised here, so that the serializer's own error, which may carry the value, is not its context.
    raise reason


def require_storable(raw: bytes) -> None:
    """Return when JSON made by pydantic can be kept as `jsonb`; else raise `NotStorable`."""
    if b"\\u0000" in raw and _NUL.search(raw):
        raise NotStorable("nul", NUL)
    if (b"NaN" in raw or b"Infinity" in raw) and not _can_be_read(raw):
        raise NotStorable("not_finite", "has NaN or Infinity, which JSON does not know")


def check_readable(raw: bytes) -> None:
    """Return when it can be read back: neither an integer of thousands of digits nor nested hundreds deep."""
    if not _can_be_read(raw):
        raise NotStorable(
            "unreadable", "is nested too deep, or has a number that cannot be read back"
        )


def check_keys(value: Any) -> None:
    """Return when no two keys of a dict are the same text in JSON, as 1 and "1" are: the first would be lost."""
    if isinstance(value, dict):
        # Texts differ from each other already.
        if not all(type(key) is str for key in value) and len({*map(_key, value)}) < len(value):
            raise NotStorable(
                "same_keys", "has keys that are the same text in JSON, such as 1 and '1'"
            )
        for one in value.values():
            if type(one) in _HOLDERS:
                check_keys(one)
    elif isinstance(value, list | tuple):
        for one in value:
            if type(one) in _HOLDERS:
                check_keys(one)


def clean_text(text: str) -> str:
    """The text with NUL and lone surrogates replaced by U+FFFD, so that one bad character costs nobody a row."""
    if text.isascii():
        return text.replace("\0", "\ufffd")
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return whole.replace("\0", "\ufffd")


def complain(text: str) -> str | None:
    """What is wrong with a text that shall be stored as it is; None when nothing is."""
    if "\0" in text:
        return NUL
    try:
        text.encode()
    except UnicodeEncodeError:
        return SURROGATE
    return None


def _key(key: Any) -> str:
    """The text that a key of a dict becomes."""
    return str(next(iter(from_json(to_json({key: None})))))


def _can_be_read(raw: bytes) -> bool:
    try:
        from_json(raw, allow_inf_nan=False)
    except ValueError:
        return False
    return True


def _reason(error: Exception) -> NotStorable:
    said = str(error)
    if "surrogates not allowed" in said:
        return NotStorable("surrogate", SURROGATE)
    if found := _UNKNOWN_TYPE.search(said):
        return NotStorable("not_json", f"a {found[1]} cannot be stored as JSON")
    if "depth exceeded" in said or "Circular reference" in said:
        return NotStorable("not_json", "is nested too deep or contains itself")
    return NotStorable("not_json", f"cannot be stored as JSON ({type(error).__name__})")

"""Writes values as JSON that Postgres can store and Python can read back, or explains why that fails."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from pydantic_core import from_json, to_json

# The escape of NUL. After an odd number of backslashes it is none: `\\u0000` is six harmless characters.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_UNKNOWN_TYPE = re.compile(r"unknown type: <class '(?:[\w.<>]*\.)?(\w+)'>")

_HOLDERS = (dict, list, tuple)

NUL = "has a NUL character, which Postgres cannot store"
SURROGATE = "has one half of a surrogate pair, which is not a character and cannot be stored"


class NotStorable(ValueError):
    """A value cannot be stored as JSON. `kind` is a code; the message says why, without the value."""

    def __init__(self, kind: str, why: str) -> None:
        self.kind = kind
        super().__init__(why)


def dump(value: Any, to_json: Callable[[Any], bytes] = to_json) -> bytes:
    """The value as JSON from the given serializer.

    Raises only `NotStorable`, whatever the serializer raises.
    """
    try:
        raw = to_json(value)
    except Exception as error:
        reason = _reason(error, type(value).__name__)
    else:
        require_storable(raw)
        return raw
    # Outside of `except`: the serializer's error may hold the value, and must not become the context.
    raise reason


def require_storable(raw: bytes) -> None:
    """Raise `NotStorable` unless JSON from pydantic can be stored as `jsonb`."""
    if b"\\u0000" in raw and _NUL.search(raw):
        raise NotStorable("nul", NUL)
    if (b"NaN" in raw or b"Infinity" in raw) and not _can_be_read(raw):
        raise NotStorable("not_finite", "has NaN or Infinity, which JSON does not know")


def check_readable(raw: bytes) -> None:
    """Return when the JSON can be read back; raise `NotStorable` for huge integers and very deep nesting."""
    if not _can_be_read(raw):
        raise NotStorable(
            "unreadable", "is nested too deep, or has a number that cannot be read back"
        )


def check_keys(value: Any) -> None:
    """Raise `NotStorable` unless all keys of each dict differ as JSON.

    For example 1 and "1" become the same key, and the first value would be lost.
    """
    if isinstance(value, dict):
        # Keys that are all texts differ already.
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
    """The text with NUL and lone surrogates replaced by U+FFFD: a bad character must not cost the row."""
    if text.isascii():
        return text.replace("\0", "\ufffd")
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return whole.replace("\0", "\ufffd")


def complain(text: str) -> str | None:
    """Why a text cannot be stored unchanged; None when it can."""
    if "\0" in text:
        return NUL
    try:
        text.encode()
    except UnicodeEncodeError:
        return SURROGATE
    return None


def _key(key: Any) -> str:
    """The text that a key of a dict becomes in JSON."""
    return str(next(iter(from_json(to_json({key: None})))))


def _can_be_read(raw: bytes) -> bool:
    try:
        from_json(raw, allow_inf_nan=False)
    except ValueError:
        return False
    return True


def _reason(error: Exception, kind: str) -> NotStorable:
    """Why a value whose type has this name became no JSON."""
    message = str(error)
    if "surrogates not allowed" in message:
        return NotStorable("surrogate", SURROGATE)
    if found := _UNKNOWN_TYPE.search(message):
        has = "is" if found[1] == kind else "has a value"
        return NotStorable("not_json", f"{has} of type {found[1]}, which JSON does not know")
    if "depth exceeded" in message or "Circular reference" in message:
        return NotStorable("not_json", "is nested too deep or contains itself")
    return NotStorable("not_json", f"cannot be stored as JSON ({type(error).__name__})")

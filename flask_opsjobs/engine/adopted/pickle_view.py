"""Shows the call, result, meta and error of an RQ job as bounded text, from the raw fields of its hash.

Nothing is unpickled: `inert_pickle.py` reads pickles, and the JSON of RQ's JSON serializer is read as JSON.
Values under keys that the host's display policy hides are left out. A long text is left out whole, never cut,
because half a secret is no pattern that a policy knows.
"""

from __future__ import annotations

import json
import math
import zlib
from base64 import b64decode
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from rq.defaults import UNSERIALIZABLE_RETURN_VALUE_PAYLOAD

from ...jobs.perform.describe_error import shorten_traceback
from ...jobs.record.json_storage import clean_text
from .inert_pickle import Opaque, Pairs, Unreadable, read_pickle

# What a caller reads of a field at most; it asks for the length first.
MOST_BYTES = 256_000
_MOST_UNFOLDED = 1_000_000
_DEEPEST = 20
_MOST_ITEMS = 1_000
_MOST_CHARACTERS = 20_000
_LONGEST_TEXT = 10_000
_LONGEST_KEY = 200
_LONGEST_BYTES = 200
_LONGEST_FUNCTION = 500
_MOST_BITS = 256
# Values of JSON and protocol-0 pickles begin with different characters.
_JSON_BEGINS = b'[{"-0123456789tfn'
_UNSERIALIZABLE = UNSERIALIZABLE_RETURN_VALUE_PAYLOAD.encode()

# Gives the note to show in place of the value under a key; None when the value may be shown.
Hides = Callable[[str], str | None]


@dataclass(frozen=True)
class RqView:
    """What is shown of a plain RQ job. A value that cannot be shown is a sentence in brackets.

    `function` is None when it is not known. `arguments`, `result` and `meta` are JSON texts, which Postgres
    can store; `error` is a traceback. `arguments` is an object: positional arguments as a list under `*args`,
    keyword arguments by name.
    """

    function: str | None
    arguments: str
    result: str | None
    meta: str | None
    error: str | None


def view_job(fields: Mapping[str, bytes | int], hides: Hides) -> RqView:
    """The view of a job from its raw fields: `data`, `meta`, `result`, `exc_info`.

    `return_value` and `exc_string`, from the newest entry of its result stream, count before `result` and
    `exc_info`. An int in place of the bytes is the length of a field that was not read because it exceeds
    `MOST_BYTES`. Never raises.
    """
    function, arguments = _view_call(fields.get("data"), hides)
    result, meta, error = fields.get("result"), fields.get("meta"), fields.get("exc_info")
    if returned := fields.get("return_value"):
        result = _from_stream(returned)
    if raised := fields.get("exc_string"):
        error = _from_stream(raised)
    return RqView(
        function,
        arguments,
        view_value(result, hides) if result else None,
        view_value(meta, hides) if meta else None,
        view_error(error) if error else None,
    )


def view_value(raw: bytes | int, hides: Hides) -> str:
    """A serialized value as JSON text."""
    if raw == _UNSERIALIZABLE:  # RQ's own words, in place of a value that it could not serialize
        return json.dumps(UNSERIALIZABLE_RETURN_VALUE_PAYLOAD)
    try:
        return _write(_load(_require_bytes(raw)), hides)
    except Unreadable as error:
        return json.dumps(_sentence(error))


def view_error(raw: bytes | int) -> str:
    """A compressed traceback as text, its middle left out beyond 32 kB."""
    try:
        return shorten_traceback(_unfold(_require_bytes(raw)).decode(errors="replace"))
    except Unreadable as error:
        return _sentence(error)


def _view_call(raw: bytes | int | None, hides: Hides) -> tuple[str | None, str]:
    """The function's name, None when it is unknown, and the arguments."""
    if raw is None:
        return None, json.dumps("[not shown: the job has no data]")
    try:
        name, instance, positional, keywords = _as_call(_load(_unfold(_require_bytes(raw))))
        arguments = Pairs([*([("*args", positional)] if positional else []), *keywords])
        return name_function(name, instance), _write(arguments, hides)
    except Unreadable as error:
        function = None if error.first is None else name_function(error.first, None)
        return function, json.dumps(_sentence(error))


def _as_call(value: Any) -> tuple[str, Any, list[Any], list[tuple[Any, Any]]]:
    """The function's name, its instance, the positional arguments and the keyword arguments."""
    match value:
        case [str(name), instance, [*positional], Pairs(keywords)]:
            return name, instance, positional, keywords
        case [str(name), instance, [*positional], dict(keywords)]:
            return name, instance, positional, [*keywords.items()]
    raise Unreadable("it is not a call of RQ")


def name_function(name: str, instance: Any) -> str:
    """`module.function`, or `module.Class.method` for a method of an object."""
    if instance is not None:
        owner = instance.name if isinstance(instance, Opaque) else type(instance).__name__
        name = f"{owner}.{name}"
    name = clean_text(name)
    return name if len(name) <= _LONGEST_FUNCTION else f"{name[: _LONGEST_FUNCTION - 1]}…"


def _require_bytes(raw: bytes | int) -> bytes:
    size = raw if isinstance(raw, int) else len(raw)
    if isinstance(raw, int) or size > MOST_BYTES:
        raise Unreadable(f"it has {size:,} bytes, and at most {MOST_BYTES:,} are read")
    return raw


def _unfold(raw: bytes) -> bytes:
    """The bytes decompressed. As in RQ, bytes that are not compressed are taken as they are."""
    unfolding = zlib.decompressobj()
    try:
        unfolded = unfolding.decompress(raw, _MOST_UNFOLDED)
    except zlib.error:
        return raw
    if unfolding.eof:
        return unfolded
    if len(unfolded) < _MOST_UNFOLDED:
        return raw  # cut off
    raise Unreadable(f"it has more than {_MOST_UNFOLDED:,} bytes when it is decompressed")


def _from_stream(raw: bytes | int) -> bytes | int:
    """A field of a result stream, which RQ writes as base64."""
    if isinstance(raw, int):
        return raw
    try:
        return b64decode(raw, validate=True)
    except ValueError:
        return raw


def _load(raw: bytes) -> Any:
    if raw.lstrip()[:1] not in _JSON_BEGINS:
        return read_pickle(raw)
    try:
        return json.loads(raw)
    except RecursionError:
        why = "it is nested too deeply"
    except ValueError as error:
        why = f"it is not valid JSON ({type(error).__name__})"
    raise Unreadable(why)


def _sentence(error: Unreadable) -> str:
    return f"[not shown: {error}]"


def _write(value: Any, hides: Hides) -> str:
    return json.dumps(_Writer(hides).show(value, 0), ensure_ascii=False)


class _Writer:
    """Turns one value into one that JSON and Postgres accept, within bounds of depth and size."""

    def __init__(self, hides: Hides) -> None:
        self._hides = hides
        self._items_left = _MOST_ITEMS
        self._characters_left = _MOST_CHARACTERS

    def show(self, value: Any, depth: int) -> Any:
        self._items_left -= 1
        match value:
            case None | bool():
                return value
            case int():
                is_short = value.bit_length() <= _MOST_BITS
                return value if is_short else f"[integer of {value.bit_length():,} bits]"
            case float():
                return value if math.isfinite(value) else str(value)
            case str():
                return self._show_text(value)
            case bytes():
                is_short = len(value) <= _LONGEST_BYTES
                return self._show_text(repr(value) if is_short else f"[{len(value):,} bytes]")
            case Opaque(name):
                return self._show_text(f"<{name}>")
        if depth == _DEEPEST:
            return "[not shown: nested too deeply]"
        if isinstance(value, list | tuple):
            return self._show_list(value, depth + 1)
        return self._show_dict(
            value.pairs if isinstance(value, Pairs) else [*value.items()], depth + 1
        )

    def _show_text(self, text: str, longest: int = _LONGEST_TEXT, what: str = "text") -> str:
        if len(text) > min(longest, self._characters_left):
            return f"[{what} of {len(text):,} characters]"
        self._characters_left -= len(text)
        return clean_text(text)

    def _show_list(self, values: Any, depth: int) -> list[Any]:
        shown: list[Any] = []
        for value in values:
            if self._items_left <= 0:
                shown.append(f"[{len(values) - len(shown):,} more]")
                break
            shown.append(self.show(value, depth))
        return shown

    def _show_dict(self, pairs: list[tuple[Any, Any]], depth: int) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        for key, value in pairs:
            if self._items_left <= 0:
                shown["…"] = f"[{len(pairs) - len(shown):,} more]"
                break
            note = self._note_for(key)
            text = self._show_key(key, shown)
            shown[text] = self.show(value, depth) if note is None else note
        return shown

    def _note_for(self, key: Any) -> str | None:
        """What to show in place of the value under a key; None when the value may be shown."""
        texts = [_text_of_key(part) for part in (key if isinstance(key, tuple) else [key])]
        if None in texts:
            return "[not shown: its key is an object]"  # which may be equal to a hidden key
        notes = (self._hides(text) for text in texts if text is not None)
        return next((note for note in notes if note is not None), None)

    def _show_key(self, key: Any, others: Collection[str]) -> str:
        text = key if isinstance(key, str) else json.dumps(self.show(key, _DEEPEST - 1))
        shown = base = self._show_text(text, _LONGEST_KEY, "key")
        number = 1
        while shown in others:  # 1 and "1" are different keys, but the same text
            number += 1
            shown = f"{base} ({number})"
        return shown


def _text_of_key(key: Any) -> str | None:
    """The text that a display policy is asked about. None for an object, whose value is unknown."""
    match key:
        case str():
            return key
        case bytes():
            return key.decode(errors="replace")
        case None | bool() | float():
            return str(key)
        case int():
            return format(key, "x") if key.bit_length() > _MOST_BITS else str(key)
    return None

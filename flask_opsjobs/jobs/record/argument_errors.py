"""Describes invalid arguments without their values: the location, the reason and a code."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core.core_schema import ErrorType

from . import json_storage

ArgumentError = dict[str, Any]

_KNOWN = frozenset(get_args(ErrorType))

# Most of pydantic's messages are safe to show. These are not: they quote the input or another exception.
_OUR_WORDS = {
    "assertion_error": "its own validator refused it",
    "bytes_invalid_encoding": "Data should be valid in its encoding",
    "datetime_object_invalid": "Invalid datetime object",
    "extra_forbidden": "the task takes no such argument",
    "get_attribute_error": "Error extracting attribute",
    "iteration_error": "Error iterating over object",
    "json_invalid": "Invalid JSON",
    "mapping_type": "Input should be a valid mapping",
    "missing": "is required",
    "string_unicode": json_storage.SURROGATE,
    "union_tag_invalid": "its tag fits none of the expected variants",
    "uuid_parsing": "Input should be a valid UUID",
    "value_error": "its own validator refused it",
}
_LARGEST_INDEX = 99_999


def tell(
    error: ValidationError, fields: frozenset[str], secret: frozenset[str]
) -> list[ArgumentError]:
    """One dict per error: `{"loc": "items[3].price", "msg": "…", "type": "…"}`.

    A location holds argument names, indices and `fields`, the names in the signature. Keys of a dict argument
    are left out, since they are input like its values. For a `secret` argument only its name and the type are
    returned.
    """
    errors = error.errors(include_input=False, include_context=False, include_url=False)
    return [_describe(one["loc"], one["type"], one["msg"], fields, secret) for one in errors]


def name_fields(schema: Any) -> frozenset[str]:
    """The names of all fields in a core schema, at any depth, with their aliases."""
    names: set[str] = set()
    seen: set[int] = set()
    todo = [schema]
    while todo:
        node = todo.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, dict):
            names |= set(_names_in(node))
            todo.extend(node.values())
        elif isinstance(node, list | tuple):
            todo.extend(node)
    return frozenset(names)


def _names_in(node: dict[Any, Any]) -> Iterable[str]:
    fields = node.get("fields")
    if isinstance(fields, dict):
        yield from (name for name in fields if isinstance(name, str))
    elif isinstance(fields, list):
        yield from (
            field["name"] for field in fields if isinstance(field, dict) and "name" in field
        )
    if isinstance(node.get("validation_alias"), str):
        yield node["validation_alias"]


def _describe(
    loc: tuple[int | str, ...],
    kind: str,
    message: str,
    fields: frozenset[str],
    secret: frozenset[str],
) -> ArgumentError:
    if not loc:
        return {"loc": "arguments", "msg": _safe_message(kind, message), "type": kind}
    name = str(loc[0])[:100]
    if name in secret:
        return {"loc": name, "msg": "is not valid", "type": kind}
    where = name + "".join(_step(step, fields) for step in loc[1:])
    return {"loc": where, "msg": _safe_message(kind, message), "type": kind}


def _step(step: int | str, fields: frozenset[str]) -> str:
    if isinstance(step, int):
        return f"[{step}]" if 0 <= step <= _LARGEST_INDEX else ""
    return f".{step}" if step in fields else ""


def _safe_message(kind: str, message: str) -> str:
    if kind in _OUR_WORDS:
        return _OUR_WORDS[kind]
    # The message of a host's own error type may quote any value.
    return message if kind in _KNOWN else "is not valid"

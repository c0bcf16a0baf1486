"""Reads the fields of a form from a task's signature, and typed texts as arguments in JSON. Pure.

What is typed is only read here: the task's own validator decides whether it fits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

from .declaration import TaskDeclaration

# The field for each format of a text in a JSON schema; any other text is a text.
_FORMATS = {"date": "date", "time": "time", "date-time": "moment"}
_TYPES = {"integer": "number", "number": "number", "boolean": "checkbox"}
# A decimal may be a number or a text. It is sent as a text, so that no digit is lost.
_DECIMAL = {"number", "string"}


@dataclass(frozen=True)
class FormField:
    """A parameter as a field of a form.

    `kind` is `text`, `number`, `checkbox`, `date`, `time`, `moment`, `choice` or `json`. `default` is the
    declared default as JSON; None without one, or when JSON cannot write it. `choices` are as JSON too.
    `accepts_null`: left empty, a required field means null.
    """

    name: str
    kind: str
    is_required: bool
    accepts_null: bool = False
    is_whole: bool = False
    default: str | None = None
    choices: tuple[str, ...] = ()
    description: str = ""

    def read(self, text: str) -> Any:
        """The value of a typed text, as JSON has it.

        A text that is no such value is returned unchanged, for the validator to refuse. Raises `ValueError`
        for a text that should be JSON and is not.
        """
        if self.kind == "json":
            return _read_json(text)
        if self.kind == "moment":
            return _in_utc(text.strip())
        if self.kind in ("number", "checkbox"):
            return _read_scalar(text.strip(), self.kind)
        if self.kind == "choice":
            return next(
                (found for one in self.choices if text in (one, str(found := json.loads(one)))),
                text,
            )
        return text

    def read_argument(self, text: str) -> dict[str, Any]:
        """The argument of a typed text by its name, with the value of `read`.

        An empty text is left out, so that the function's default counts. It means null when there is no
        default and null is accepted.
        """
        if text.strip():
            return {self.name: self.read(text)}
        return {self.name: None} if self.is_required and self.accepts_null else {}


def list_fields(task: TaskDeclaration) -> list[FormField]:
    """The fields of a task's stored parameters, in the order of its signature.

    A redacted parameter has none: its value is never stored.
    """
    return [_make_field(task, name) for name in task.arguments.names]


def read_typed(
    fields: list[FormField], typed: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The arguments of a filled form, by name, and its faults: sentences by field.

    A checkbox that is not ticked is sent as nothing, and means false.
    """
    args: dict[str, Any] = {}
    faults: dict[str, str] = {}
    for field in fields:
        text = typed.get(field.name, "")
        if field.kind == "checkbox":
            args[field.name] = bool(text)
            continue
        try:
            args |= field.read_argument(text)
        except ValueError as wrong:
            faults[field.name] = str(wrong)
    return args, faults


def _make_field(task: TaskDeclaration, name: str) -> FormField:
    schema = _schema_of(task.arguments.annotation_of(name))
    defaults = task.arguments.defaults
    inner, accepts_null = _without_null(schema)
    kind, choices = _kind_of(inner)
    if kind == "checkbox" and accepts_null:
        # Ticked or not are two answers, and here are three.
        kind, choices = "choice", (True, False)
    return FormField(
        name=name,
        kind=kind,
        is_required=name not in defaults,
        accepts_null=accepts_null,
        is_whole=inner.get("type") == "integer",
        default=_as_json(defaults[name]) if name in defaults else None,
        choices=tuple(map(json.dumps, choices)),
        description=str(schema.get("description", "")),
    )


def _schema_of(annotation: Any) -> Mapping[str, Any]:
    """The JSON schema of an annotation; empty when it has none, such as for a type of the host's own."""
    try:
        return TypeAdapter(annotation).json_schema()
    except Exception:
        return {}


def _without_null(schema: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    """The schema of `X | None` as that of `X`, and whether null is accepted."""
    options = schema.get("anyOf", ())
    rest = [one for one in options if one != {"type": "null"}]
    if len(rest) == len(options):
        return schema, False
    inner = rest[0] if len(rest) == 1 else {"anyOf": rest}
    named = str(inner.get("$ref", "")).rpartition("/")[2]
    return schema.get("$defs", {}).get(named, inner), True


def _kind_of(schema: Mapping[str, Any]) -> tuple[str, tuple[Any, ...]]:
    """The kind of a field, and its choices."""
    if "enum" in schema or "const" in schema:
        return "choice", tuple(schema.get("enum", [schema.get("const")]))
    if {one.get("type") for one in schema.get("anyOf", ())} == _DECIMAL:
        return "text", ()
    if (type_ := schema.get("type")) == "string":
        return _FORMATS.get(schema.get("format", ""), "text"), ()
    return _TYPES.get(str(type_), "json"), ()


def _as_json(value: Any) -> str | None:
    try:
        return json.dumps(to_jsonable_python(value), ensure_ascii=False)
    except Exception:
        return None


def _read_scalar(text: str, kind: str) -> Any:
    try:
        found = json.loads(text)
    except ValueError:
        return text
    wanted: tuple[type, ...] = (bool,) if kind == "checkbox" else (int, float)
    # A bool is an int; NaN and infinity are no JSON.
    is_wanted = type(found) in wanted and (kind == "checkbox" or math.isfinite(found))
    return found if is_wanted else text


def _in_utc(text: str) -> str:
    """The time with Z, unless it has an offset: a browser's field has none."""
    clock = text.partition("T")[2]
    return f"{text}Z" if clock and not any(sign in clock for sign in "Zz+-") else text


def _read_json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("is nested too deep") from None
    except ValueError as wrong:
        hint = 'write a text in double quotes, as in "text"'
        raise ValueError(f"is not JSON: {wrong}; {hint}") from None


def _refuse(constant: str) -> Any:
    raise ValueError(f"it has no {constant}")

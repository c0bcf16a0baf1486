"""Reads a task's signature once: its parameters, and their validator and serializer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, NotRequired, Required, get_args, get_type_hints

from pydantic import ConfigDict, SecretBytes, SecretStr, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import CoreConfig, SchemaSerializer, SchemaValidator
from typing_extensions import TypedDict

from ...errors import DeclarationError

_CONFIG = ConfigDict(
    extra="forbid",
    hide_input_in_errors=True,
    # Base64 holds any bytes; the default holds only UTF-8.
    ser_json_bytes="base64",
    val_json_bytes="base64",
    # Refuse NaN with an error; pydantic's default would store null instead.
    allow_inf_nan=False,
    ser_json_inf_nan="constants",
)
# The validator is configured by the TypedDict, the serializer only by this. Models have their own.
_SERIALIZED = CoreConfig(ser_json_bytes="base64", ser_json_inf_nan="constants")
_REFUSED_KINDS = {
    inspect.Parameter.VAR_POSITIONAL: "*{name}: name every parameter, since calls are stored by name",
    inspect.Parameter.VAR_KEYWORD: "**{name}: name every parameter, or take one dict",
    inspect.Parameter.POSITIONAL_ONLY: "{name} is positional-only: calls are stored by name, so drop the /",
}


@dataclass(frozen=True)
class Codec:
    """The validators and serializers of one signature. `fields` are the names of all fields in it."""

    validate: Callable[[Any], dict[str, Any]]
    validate_json: Callable[[str | bytes], dict[str, Any]]
    dump: Callable[[Any], bytes]
    flatten: Callable[[Any], Any]
    fields: frozenset[str]


class Signature:
    """The parameters of a task's function. Raises `DeclarationError` with every fault and its fix."""

    def __init__(self, task: str, function: Callable[..., Any], redact: frozenset[str]) -> None:
        self._task = task
        self._globals = getattr(inspect.unwrap(function), "__globals__", {})
        parameters = inspect.signature(function).parameters
        faults = [*_faults_of(function, parameters), *_faults_of_redaction(parameters, redact)]
        if faults:
            raise DeclarationError(f"task {task}: " + "; ".join(faults))
        self._parameters = parameters
        self.names = tuple(parameters)
        self.positional = tuple(
            name for name, one in parameters.items() if one.kind is not one.KEYWORD_ONLY
        )
        self.defaults = {
            name: one.default
            for name, one in parameters.items()
            if one.default is not one.empty and name not in redact
        }
        self._redact = redact

    def try_codec(self) -> Codec | None:
        """The codec; None while an annotation names something that is not defined yet."""
        try:
            return self._build()
        except NameError:
            return None

    def codec(self, without: frozenset[str] = frozenset()) -> Codec:
        """The codec, or one that does not know the parameters `without`.

        Raises `DeclarationError` when an annotation names something that is still not defined.
        """
        try:
            return self._build(without)
        except NameError as error:
            raise DeclarationError(
                f"task {self._task}: its annotations name {error.name!r}, which its module does not have: "
                "import it at run time, not under TYPE_CHECKING"
            ) from None

    def annotation_of(self, name: str) -> Any:
        """The annotation of a parameter; None while an annotation names something that is not defined yet."""
        try:
            return self._annotations()[name]
        except NameError:
            return None

    def _build(self, without: frozenset[str] = frozenset()) -> Codec:
        annotations = self._annotations()
        for name in without:
            annotations.pop(name, None)
        for name, annotation in annotations.items():
            if name not in self._redact and _holds_secret(annotation):
                raise DeclarationError(
                    f"task {self._task}: {name} is a secret, which is stored as asterisks: "
                    "give it a default and name it in redact, and fetch the secret in the task"
                )
        schema = self._schema(annotations)
        validator = SchemaValidator(schema)
        serializer = SchemaSerializer(schema, _SERIALIZED)
        return Codec(
            validate=validator.validate_python,
            validate_json=validator.validate_json,
            # No warnings: for a value of the wrong type they would quote the value.
            dump=partial(serializer.to_json, warnings=False),
            flatten=partial(serializer.to_python, warnings=False),
            fields=_name_fields(schema),
        )

    def _annotations(self) -> dict[str, Any]:
        # Not on the function itself: that would also resolve its return annotation, which may fail.
        bare = SimpleNamespace(
            __annotations__={
                name: Any if one.annotation is one.empty else one.annotation
                for name, one in self._parameters.items()
            }
        )
        return get_type_hints(bare, globalns=self._globals, include_extras=True)

    def _schema(self, annotations: Mapping[str, Any]) -> Any:
        try:
            return _core_schema(self._fields(annotations))
        except NameError:
            raise
        except Exception:
            for name, annotation in annotations.items():
                self._require_type(name, annotation)
            raise

    def _fields(self, annotations: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: Required[annotation]
            if self._parameters[name].default is inspect.Parameter.empty
            else NotRequired[annotation]
            for name, annotation in annotations.items()
        }

    def _require_type(self, name: str, annotation: Any) -> None:
        try:
            _core_schema({name: Required[annotation]})
        except Exception as error:
            kind = getattr(annotation, "__name__", repr(annotation))
            raise DeclarationError(
                f"task {self._task}: {name} is annotated {kind}, which can be neither validated nor stored; "
                f"pydantic says: {_advice_of(error)}. Or take plain values or a pydantic model, such as the "
                "id of the row"
            ) from None


def _advice_of(error: Exception) -> str:
    """Pydantic's message about an annotation, which may say how to fix it, without its links."""
    return " ".join(str(error).partition("\n\n")[0].split()).rstrip(".") or type(error).__name__


def _core_schema(fields: Mapping[str, Any]) -> Any:
    # A TypedDict, not a model: in it any parameter name is legal, also `json`, `copy` or `_x`.
    make: Any = TypedDict
    shape = make("Arguments", dict(fields))
    shape.__pydantic_config__ = _CONFIG
    return TypeAdapter(shape).core_schema


def _faults_of(
    function: Callable[..., Any], parameters: Mapping[str, inspect.Parameter]
) -> list[str]:
    faults = []
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        faults.append(
            "it is a generator: calling it does not run its body, so return a value instead"
        )
    if next(iter(parameters), None) in ("self", "cls"):
        faults.append("it is a method: a job has no instance to call it on, so declare a function")
    for name, one in parameters.items():
        if one.kind in _REFUSED_KINDS:
            faults.append(_REFUSED_KINDS[one.kind].format(name=name))
        if isinstance(one.default, FieldInfo):
            faults.append(f"{name} has a Field as its default: write Annotated[…, Field(…)]")
    return faults


def _faults_of_redaction(
    parameters: Mapping[str, inspect.Parameter], redact: frozenset[str]
) -> list[str]:
    faults = []
    for name in sorted(redact):
        if name not in parameters:
            faults.append(f"redact names {name!r}, which is not a parameter of it")
        elif parameters[name].default is inspect.Parameter.empty:
            faults.append(
                f"{name} is redacted and has no default: its value is never stored, so the function "
                f"is called without it; write {name}=None"
            )
    return faults


def _holds_secret(annotation: Any) -> bool:
    if annotation is SecretStr or annotation is SecretBytes:
        return True
    return any(_holds_secret(one) for one in get_args(annotation))


def _name_fields(schema: Any) -> frozenset[str]:
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

"""Validates a task's arguments by its signature, stores them as JSON, and validates them again at the start.

Errors name the argument, the reason and a code, never the value: it may be secret.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core.core_schema import ErrorType

from ...errors import InvalidArgs
from . import json_storage
from .signature import Codec, Signature


class Arguments:
    """The arguments that a task accepts.

    Validates redacted parameters too, but never returns their values.
    """

    def __init__(self, task: str, function: Callable[..., Any], redact: frozenset[str]) -> None:
        """Raises `DeclarationError` with every fault of the signature."""
        self._task = task
        self._redact = redact
        self._signature = Signature(task, function, redact)
        # The parameters whose values are stored, in the order of the signature.
        self.names = tuple(name for name in self._signature.names if name not in redact)
        # Annotations may name classes further down in the module: then the first call builds the codec.
        self._codec: Codec | None = self._signature.try_codec()
        self._left_out: frozenset[str] = frozenset()
        self._without: dict[frozenset[str], Arguments] = {}

    def annotation_of(self, name: str) -> Any:
        """The annotation of a parameter; None while it names something that is not defined yet."""
        return self._signature.annotation_of(name)

    @property
    def defaults(self) -> Mapping[str, Any]:
        """The defaults, by parameter; parameters without a default are left out."""
        defaults = self._signature.defaults
        if not self._left_out:
            return defaults
        return {name: value for name, value in defaults.items() if name not in self._left_out}

    def without(self, names: frozenset[str]) -> Arguments:
        """The arguments without these, which are given later.

        Raises `DeclarationError` when an annotation names something that is still not defined.
        """
        if not names:
            return self
        if names not in self._without:
            fewer = copy(self)
            fewer._codec = self._signature.codec(without=names)
            fewer._redact = self._redact - names
            fewer._left_out = names
            self._without[names] = fewer
        return self._without[names]

    def validate(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The call's values by name, converted to their annotations.

        Arguments that were not given are left out. Raises `InvalidArgs` with every fault.
        """
        codec = self._built
        call, found = self.by_name(args, kwargs) if args else (kwargs, [])
        try:
            values = codec.validate(call)
        except ValidationError as error:
            found += self._tell(error)
        except Exception as error:
            found.append(_crash(error))
        if found:
            # Outside of `except`: pydantic's error holds the values, and must not become the context.
            raise InvalidArgs(self._task, found)
        for name in self._redact:
            values.pop(name, None)
        return values

    def dump(self, values: dict[str, Any], max_bytes: int) -> bytes:
        """Validated values as JSON that can be stored and read back.

        Raises `InvalidArgs` with the arguments that cannot, and when the JSON is larger than `max_bytes`.
        """
        codec = self._built
        found: list[ArgumentError] = []
        raw = b""
        try:
            raw = json_storage.dump(values, codec.dump)
            codec.validate_json(raw)
            json_storage.check_keys(values)
        except ValidationError as error:
            found = self._tell_unstorable(values) or self._tell_unreadable(error)
        except Exception as error:
            found = self._tell_unstorable(values) or [_crash(error)]
        if len(raw) > max_bytes:
            found.append(_too_large(len(raw), max_bytes))
        if found:
            raise InvalidArgs(self._task, found)
        return raw

    def load(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Stored arguments as the function takes them.

        Raises `InvalidArgs` when they no longer fit the signature. Drops a value whose parameter was redacted
        after it was stored: the function gets its default instead.
        """
        # As JSON, not as Python values: in JSON mode a strict type accepts the text that it was stored as.
        call = {name: value for name, value in stored.items() if name not in self._redact}
        return self._load(json.dumps(call))

    def load_json(self, stored: str) -> dict[str, Any]:
        """The same of stored arguments as JSON text."""
        return self.load(json.loads(stored)) if self._redact else self._load(stored)

    def _load(self, stored: str) -> dict[str, Any]:
        codec = self._built
        found: list[ArgumentError] = []
        try:
            values = codec.validate_json(stored)
        except ValidationError as error:
            found = self._tell(error)
        except Exception as error:
            found = [_crash(error)]
        if found:
            raise InvalidArgs(self._task, found)
        return values

    def with_defaults(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values of all stored parameters; a parameter that was left out has its default."""
        return {**self.defaults, **values}

    def flatten(self, values: Mapping[str, Any]) -> Any:
        """Validated values, with models and dataclasses converted to dicts; other values stay as they are."""
        return self._built.flatten(values)

    def by_name(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[ArgumentError]]:
        """A call by position and by name as a call by name, and what is wrong with that."""
        names = self._signature.positional
        call = dict(zip(names, args, strict=False))
        found = [
            {"loc": name, "msg": "was given twice, by position and by name", "type": "given_twice"}
            for name in call
            if name in kwargs
        ]
        if len(args) > len(names):
            message = f"takes at most {len(names)} by position, got {len(args)}"
            found.append({"loc": "arguments", "msg": message, "type": "too_many_positional"})
        return {**call, **kwargs}, found

    @property
    def _built(self) -> Codec:
        if self._codec is None:
            self._codec = self._signature.codec()
        return self._codec

    def _tell(self, error: ValidationError) -> list[ArgumentError]:
        return _describe_errors(error, self._built.fields, self._redact)

    def _tell_unreadable(self, error: ValidationError) -> list[ArgumentError]:
        # Some types do not accept their own JSON. Find this at enqueue, not when the job starts.
        errors = self._tell(error)
        for one in errors:
            one["msg"] = f"cannot be read back from its JSON: {one['msg']}"
        return errors

    def _tell_unstorable(self, values: dict[str, Any]) -> list[ArgumentError]:
        found = []
        for name, value in values.items():
            try:
                json_storage.check_readable(json_storage.dump({name: value}, self._built.dump))
                json_storage.check_keys(value)
            except json_storage.NotStorable as why:
                found.append({"loc": name, "msg": str(why), "type": why.kind})
        return found


def _crash(error: Exception) -> ArgumentError:
    # Only the class of the error: the message of a host's own validator may quote the value.
    message = f"a validator or serializer raised {type(error).__name__}"
    return {"loc": "arguments", "msg": message, "type": "crash"}


def _too_large(size: int, limit: int) -> ArgumentError:
    message = (
        f"are {size} bytes as JSON, more than OPSJOBS_MAX_ARGS_BYTES = {limit}: "
        "store the value elsewhere and pass a reference to it"
    )
    return {"loc": "arguments", "msg": message, "type": "too_large"}


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


def _describe_errors(
    error: ValidationError, fields: frozenset[str], secret: frozenset[str]
) -> list[ArgumentError]:
    """One dict per error: `{"loc": "items[3].price", "msg": "…", "type": "…"}`.

    A location holds argument names, indices and `fields`, the names in the signature. Keys of a dict argument
    are left out, since they are input like its values. For a `secret` argument only its name and the type are
    returned.
    """
    errors = error.errors(include_input=False, include_context=False, include_url=False)
    return [_describe(one["loc"], one["type"], one["msg"], fields, secret) for one in errors]


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

"""The fields of a form from a signature: the kind of each, and what a typed text means."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel
from pydantic import Field as Described

from flask_opsjobs.jobs.record.declaration import TaskDeclaration
from flask_opsjobs.jobs.record.fields import FormField, list_fields, read_typed


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Address(BaseModel):
    street: str
    color: Color | None = None


class OfTheHost:
    """A type that pydantic validates by isinstance alone."""


def fields_of(function: Callable[..., Any], **options: Any) -> dict[str, FormField]:
    return {field.name: field for field in list_fields(TaskDeclaration(function, **options))}


def field_of(annotation: Any) -> FormField:
    def function(value):  # type: ignore[no-untyped-def]
        """Does nothing."""

    function.__annotations__["value"] = annotation
    return fields_of(function)["value"]


KINDS: list[tuple[Any, str]] = [
    (str, "text"),
    (str | None, "text"),
    (UUID, "text"),
    (bytes, "text"),
    (timedelta, "text"),
    (Decimal, "text"),
    (int, "number"),
    (Annotated[int, Described(ge=1)] | None, "number"),
    (float, "number"),
    (bool, "checkbox"),
    (bool | None, "choice"),
    (date, "date"),
    (time, "time"),
    (datetime, "moment"),
    (datetime | None, "moment"),
    (Color, "choice"),
    (Color | None, "choice"),
    (Literal["a", 3], "choice"),
    (Address, "json"),
    (Address | None, "json"),
    (list[int], "json"),
    (dict[str, int], "json"),
    (int | str, "json"),
    (Any, "json"),
]


@pytest.mark.parametrize(("annotation", "kind"), KINDS, ids=lambda value: str(value)[-40:])
def test_each_type_has_its_kind_of_field(annotation: Any, kind: str) -> None:
    assert field_of(annotation).kind == kind


def test_a_field_says_what_it_accepts_when_it_is_empty() -> None:
    def call(one: int, two: int | None, three: int = 3, four: Color = Color.RED) -> None:
        """Does nothing."""

    one, two, three, four = fields_of(call).values()
    assert (one.is_required, one.accepts_null, one.default) == (True, False, None)
    assert (two.is_required, two.accepts_null, two.default) == (True, True, None)
    assert (three.is_required, three.default) == (False, "3")
    assert (four.default, four.choices) == ('"red"', ('"red"', '"blue"'))


def test_a_description_is_its_help() -> None:
    assert field_of(Annotated[int, Described(description="how many")]).description == "how many"


def test_a_redacted_parameter_has_no_field() -> None:
    def call(name: str, token: str = "") -> None:
        """Does nothing."""

    assert list(fields_of(call, redact={"token"})) == ["name"]


def test_a_default_that_is_no_json_is_not_shown() -> None:
    def call(name: Any = object()) -> None:  # noqa: B008
        """Does nothing."""

    field = fields_of(call)["name"]
    assert (field.is_required, field.default) == (False, None)


TYPED: list[tuple[Any, str, Any]] = [
    (int, " 42 ", 42),
    (int, "-1", -1),
    (float, "1.5e3", 1500.0),
    # The validator refuses what is no number, and says why.
    (int, "many", "many"),
    (float, "NaN", "NaN"),
    (float, "1e999", "1e999"),
    (int, "true", "true"),
    (int, "9" * 5_000, "9" * 5_000),
    (bool, "true", True),
    (bool | None, "false", False),
    (str, " 42 ", " 42 "),
    (Decimal, "12.50", "12.50"),
    (date, "2026-11-28", "2026-11-28"),
    (datetime, "2026-11-28T04:00", "2026-11-28T04:00Z"),
    (datetime, "2026-11-28T04:00+02:00", "2026-11-28T04:00+02:00"),
    (datetime, "2026-11-28T04:00Z", "2026-11-28T04:00Z"),
    (datetime, "tomorrow", "tomorrow"),
    (Color, '"blue"', "blue"),
    (Color, "blue", "blue"),
    (Literal["a", 3], "3", 3),
    (Color, "green", "green"),
    (list[int], "[1, 2]", [1, 2]),
    (Any, '"text"', "text"),
]


@pytest.mark.parametrize(("annotation", "text", "value"), TYPED, ids=lambda value: str(value)[:20])
def test_a_typed_text_is_read_as_its_kind(annotation: Any, text: str, value: Any) -> None:
    found = field_of(annotation).read(text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("text", "is not JSON: Expecting value"),
        ("[1, 2", "is not JSON"),
        ("[NaN]", "it has no NaN"),
        ("9" * 5_000, "is not JSON"),
        ("[" * 100_000, "is nested too deep"),
    ],
)
def test_what_is_no_json_is_a_fault_that_says_how_to_write_it(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as raised:
        field_of(Any).read(text)
    assert "99999" not in str(raised.value)


def test_an_empty_field_is_left_out_and_an_empty_box_is_false() -> None:
    def call(one: int, two: int | None, three: bool, four: str = "x", five: Any = None) -> None:
        """Does nothing."""

    fields = list(fields_of(call).values())
    assert read_typed(fields, {}) == ({"two": None, "three": False}, {})
    typed = {"one": "1", "two": " ", "three": "true", "four": "", "five": "{"}
    args, faults = read_typed(fields, typed)
    assert args == {"one": 1, "two": None, "three": True}
    assert list(faults) == ["five"]
    assert json.dumps(args)

from __future__ import annotations

import enum
import json
import math
import traceback
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, PlainSerializer

from flask_opsjobs.errors import InvalidArgs
from flask_opsjobs.jobs.record.arguments import Arguments

pytestmark = pytest.mark.lane

SECRET = "s3cr3t-value"
LIMIT = 1_000_000


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Point:
    x: int
    at: datetime


class Line(BaseModel):
    sku: str
    price: Decimal


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


def arguments(function: Any, *redact: str) -> Arguments:
    return Arguments("task", function, frozenset(redact))


def stored(found: Arguments, *args: Any, **kwargs: Any) -> Any:
    """What a call's row holds, as Postgres gives it back."""
    return json.loads(found.dump(found.validate(args, kwargs), LIMIT))


def refused(found: Arguments, *args: Any, **kwargs: Any) -> dict[str, str]:
    """The sentences of a refused call by location; the values are nowhere in its error."""
    with pytest.raises(InvalidArgs) as error:
        found.dump(found.validate(args, kwargs), LIMIT)
    told = "".join(traceback.format_exception(error.value))
    assert SECRET not in told
    assert SECRET not in repr(error.value.errors)
    # A tool that prints every context, whatever `raise … from None` says, must find nothing either.
    assert error.value.__context__ is None
    return {one["loc"]: one["msg"] for one in error.value.errors}


def rich(
    when: datetime,
    day: date,
    wait: timedelta,
    who: uuid.UUID,
    cents: Decimal,
    colour: Colour,
    point: Point,
    lines: list[Line],
    raw: bytes,
    tags: set[str],
    pair: tuple[int, str],
    prices: dict[int, float],
    maybe: int | None = None,
) -> None: ...


RICH: dict[str, st.SearchStrategy[Any]] = {
    "when": st.datetimes(timezones=st.just(UTC)),
    "day": st.dates(),
    "wait": st.timedeltas(timedelta(days=-999_999), timedelta(days=999_999)),
    "who": st.uuids(),
    "cents": st.decimals(allow_nan=False, allow_infinity=False),
    "colour": st.sampled_from(Colour),
    "point": st.builds(Point, st.integers(-(2**70), 2**70), st.datetimes(timezones=st.just(UTC))),
    "lines": st.lists(
        st.builds(
            Line,
            sku=st.text(st.characters(exclude_characters="\0", codec="utf-8")),
            price=st.decimals(0, 100, places=2),
        ),
        max_size=3,
    ),
    "raw": st.binary(max_size=20),
    "tags": st.sets(st.text(st.characters(exclude_characters="\0", codec="utf-8"))),
    "pair": st.tuples(
        st.integers(), st.text(st.characters(exclude_characters="\0", codec="utf-8"))
    ),
    "prices": st.dictionaries(st.integers(), st.floats(allow_nan=False, allow_infinity=False)),
    "maybe": st.none() | st.integers(),
}


@given(st.fixed_dictionaries(RICH))
def test_rich_types_come_back_as_they_were(values: dict[str, Any]) -> None:
    found = arguments(rich)
    assert found.load(stored(found, **values)) == values


plain_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**100), 10**100)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(exclude_characters="\0", codec="utf-8")), inner, max_size=4
        )
    ),
    max_leaves=20,
)


@given(plain_json)
def test_unannotated_json_comes_back_as_it_was(value: Any) -> None:
    def plain(value) -> None: ...  # type: ignore[no-untyped-def]

    found = arguments(plain)
    assert found.load(stored(found, value)) == {"value": value}


@given(st.text(st.characters(codec=None), max_size=30))
def test_a_text_is_stored_as_it_is_or_refused(text: str) -> None:
    """NUL and emoji in text; also halves of emoji, and backslashes that only look like an escaped NUL."""

    def plain(text: str, anything: Any) -> None: ...

    found = arguments(plain)
    is_sound = "\0" not in text and not any("\ud800" <= one <= "\udfff" for one in text)
    if is_sound:
        assert stored(found, text, [text]) == {"text": text, "anything": [text]}
    else:
        assert refused(found, text, [text]).keys() >= {"text"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a\0b", "has a NUL character, which Postgres cannot store"),
        ("a\ud83d", "has one half of a surrogate pair"),
    ],
)
def test_nul_and_half_characters_are_refused_by_argument(text: str, words: str) -> None:
    def plain(a: str, b: Any, c: Any = None, d: int = 0) -> None: ...

    found = arguments(plain)
    assert words in refused(found, text, 1)["a"]
    assert words in refused(found, "x", {"deep": [text]})["b"]
    assert words in refused(found, "x", {text: 1})["b"]
    told = refused(found, "x", text, [text])
    assert set(told) == {"b", "c"}


def test_emoji_and_escaped_nul_are_text() -> None:
    def plain(a: str) -> None: ...

    for text in ("😀 ünï\\u0000", "\\\\u0000", "\\", "NaN Infinity", '"'):
        assert stored(arguments(plain), text) == {"a": text}


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_refused(number: float) -> None:
    def plain(a: float, b: Any) -> None: ...

    assert refused(arguments(plain), number, 1) == {"a": "Input should be a finite number"}
    assert "NaN or Infinity" in refused(arguments(plain), 1.0, [number])["b"]


def test_a_number_that_python_cannot_read_back_is_refused() -> None:
    """Read by the worker's parent at the claim, it would take down one worker after another."""

    def plain(a: Any, b: int = 0) -> None: ...

    assert set(refused(arguments(plain), 10**5000)) == {"a"}
    assert set(refused(arguments(plain), 1, -(10**5000))) == {"b"}


def test_what_has_no_json_is_refused_by_argument() -> None:
    class Opaque:
        def __repr__(self) -> str:
            return SECRET

    def plain(a: Any, b: Any = None) -> None: ...

    found = arguments(plain)
    assert refused(found, Opaque()) == {"a": "has a value of type Opaque, which JSON does not know"}
    assert refused(found, 1, [Opaque()]) == {
        "b": "has a value of type Opaque, which JSON does not know"
    }
    deep: list[Any] = []
    for _ in range(1_000):
        deep = [deep]
    assert refused(found, deep) == {"a": "is nested too deep or contains itself"}
    deep.append(deep)
    assert refused(found, 1, deep) == {"b": "is nested too deep or contains itself"}


def test_a_5_mb_argument_is_refused_with_the_limit() -> None:
    def plain(a: str) -> None: ...

    told = refused(arguments(plain), SECRET * 500_000)
    assert list(told) == ["arguments"]
    assert "6000008 bytes as JSON, more than OPSJOBS_MAX_ARGS_BYTES = 1000000" in told["arguments"]


def test_all_errors_are_told_at_once() -> None:
    def plain(a: int, b: int, c: date, d: int = 0) -> None: ...

    assert refused(arguments(plain), SECRET, d=SECRET, c="2026-02-30", e=1) == {
        "a": "Input should be a valid integer, unable to parse string as an integer",
        "b": "is required",
        "c": "Input should be a valid date or datetime, day value is outside expected range",
        "d": "Input should be a valid integer, unable to parse string as an integer",
        "e": "the task takes no such argument",
    }


def test_positional_arguments_are_taken_by_name() -> None:
    def plain(a: int, b: int = 2, *, c: int = 3) -> None: ...

    found = arguments(plain)
    assert stored(found, 1, 5, c=6) == {"a": 1, "b": 5, "c": 6}
    assert refused(found, 1, 2, 3) == {"arguments": "takes at most 2 by position, got 3"}
    assert refused(found, 1, a=1, b="x") == {
        "a": "was given twice, by position and by name",
        "b": "Input should be a valid integer, unable to parse string as an integer",
    }


def test_any_parameter_name_will_do() -> None:
    def plain(
        json: int, copy: int, model_config: int, _x: int, self_: int, schema: int
    ) -> None: ...

    call = {"json": 1, "copy": 2, "model_config": 3, "_x": 4, "self_": 5, "schema": 6}
    assert stored(arguments(plain), **call) == call


def test_keys_that_are_one_text_in_json_are_refused() -> None:
    """One of the two values would be lost in silence."""

    def plain(a: Any) -> None: ...

    said = {"a": "has keys that are the same text in JSON, such as 1 and '1'"}
    assert refused(arguments(plain), {1: "x", "1": "y"}) == said
    assert refused(arguments(plain), [{"deep": {True: 1, "true": 2}}]) == said
    assert stored(arguments(plain), {1: "x", "2": "y"}) == {"a": {"1": "x", "2": "y"}}


def quoting(value: Any) -> Any:
    raise ValueError(f"no: {value}")


def asserting(value: Any) -> Any:
    raise AssertionError(f"no: {value}")


def crashing(value: Any) -> Any:
    raise TypeError(f"no: {value}")


def test_pydantics_errors_carry_no_input() -> None:
    """Neither a value, nor a validator's sentence that quotes it, nor a key of somebody's dict."""

    def plain(
        number: int = 0,
        quoted: Annotated[str, AfterValidator(quoting)] = "",
        asserted: Annotated[str, BeforeValidator(asserting)] = "",
        keyed: dict[str, int] | None = None,
        nested: list[Line] | None = None,
        tagged: Annotated[Cat | Dog, Field(discriminator="kind")] | None = None,
        who: uuid.UUID | None = None,
        choice: Literal["a", "b"] = "a",
        numbered: dict[int, int] | None = None,
    ) -> None: ...

    assert refused(
        arguments(plain),
        number=SECRET,
        quoted=SECRET,
        asserted=SECRET,
        keyed={SECRET: SECRET},
        nested=[{"sku": "x", "price": 1}, {"sku": SECRET, "price": SECRET, SECRET: 1}],
        tagged={"kind": SECRET},
        who=SECRET,
        choice=SECRET,
        numbered={4111_1111_1111_1111: SECRET},
    ) == {
        "number": "Input should be a valid integer, unable to parse string as an integer",
        "quoted": "its own validator refused it",
        "asserted": "its own validator refused it",
        "keyed": "Input should be a valid integer, unable to parse string as an integer",
        "nested[1].price": "Input should be a valid decimal",
        "tagged": "its tag fits none of the expected variants",
        "who": "Input should be a valid UUID",
        "choice": "Input should be 'a' or 'b'",
        "numbered": "Input should be a valid integer, unable to parse string as an integer",
    }


def test_a_validator_that_crashes_is_told_without_its_words() -> None:
    def plain(a: Annotated[str, AfterValidator(crashing)]) -> None: ...

    assert refused(arguments(plain), SECRET) == {
        "arguments": "a validator or serializer raised TypeError"
    }


def test_what_cannot_be_read_back_is_refused_at_enqueue() -> None:
    """A type whose JSON is not its own input would else be found when the job starts."""

    def plain(
        a: Annotated[int, PlainSerializer(lambda value: f"<{value}>", return_type=str)],
    ) -> None: ...

    assert refused(arguments(plain), 5)["a"].startswith("cannot be read back from its JSON: Input")


def test_redacted_values_are_checked_and_dropped() -> None:
    def plain(a: int, token: Annotated[str, Field(max_length=5)] | None = None) -> None: ...

    found = arguments(plain, "token")
    assert stored(found, 1, "abc") == {"a": 1}
    assert found.validate((1,), {"token": "abc"}) == {"a": 1}
    assert refused(found, 1, SECRET) == {"token": "is not valid"}
    # Stored before it was redacted: it is not handed on, nor does it matter whether it fits.
    assert found.load({"a": 1, "token": SECRET}) == {"a": 1}
    assert "token" not in found.names
    assert "token" not in found.defaults


def test_arguments_that_no_longer_validate() -> None:
    """A function whose annotations changed since its call was recorded."""

    def before(a: str, b: int = 0) -> None: ...

    def after(a: int, c: int) -> None: ...

    row = stored(arguments(before), SECRET, b=1)
    with pytest.raises(InvalidArgs) as error:
        arguments(after).load(row)
    assert {one["loc"]: one["msg"] for one in error.value.errors} == {
        "a": "Input should be a valid integer, unable to parse string as an integer",
        "b": "the task takes no such argument",
        "c": "is required",
    }
    assert SECRET not in str(error.value)


def test_a_default_that_was_not_given_is_not_stored() -> None:
    marker = object()

    def plain(a: int, b: Any = marker) -> None: ...

    found = arguments(plain)
    assert stored(found, 1) == {"a": 1}
    assert found.load({"a": 1}) == {"a": 1}
    assert found.with_defaults({"a": 1}) == {"a": 1, "b": marker}


def test_arguments_that_come_later_are_left_out() -> None:
    def call(a: int, b: int, c: int = 3, d: str = "d") -> None: ...

    whole = arguments(call)
    fewer = whole.without(frozenset({"b", "c"}))
    assert stored(fewer, a="1") == {"a": 1}
    assert fewer.with_defaults({"a": 1}) == {"a": 1, "d": "d"}
    assert refused(fewer) == {"a": "is required"}
    assert refused(fewer, a=1, b=2) == {"b": "the task takes no such argument"}
    assert refused(whole, a=1) == {"b": "is required"}
    assert whole.with_defaults({}) == {"c": 3, "d": "d"}
    assert whole.without(frozenset()) is whole
    assert whole.without(frozenset({"b", "c"})) is fewer


def test_a_call_by_position_becomes_one_by_name() -> None:
    def call(a: int, b: int, *, c: int = 3) -> None: ...

    assert arguments(call).by_name((1, 2), {"c": 3}) == ({"a": 1, "b": 2, "c": 3}, [])
    _, errors = arguments(call).by_name((1, 2, 3), {"a": 1})
    assert [error["type"] for error in errors] == ["given_twice", "too_many_positional"]

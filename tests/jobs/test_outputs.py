from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel

from flask_opsjobs.jobs.perform.perform import Kept, dump_output


class Invoice(BaseModel):
    id: int
    total: Decimal


@dataclass
class Point:
    x: int


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        ({"a": [1, "ü😀"]}, '{"a":[1,"ü😀"]}'),
        (Invoice(id=1, total=Decimal("1.50")), '{"id":1,"total":"1.50"}'),
        ([Point(1)], '[{"x":1}]'),
        (datetime(2026, 1, 2, tzinfo=UTC), '"2026-01-02T00:00:00Z"'),
        ("\\u0000", '"\\\\u0000"'),
    ],
)
def test_what_has_json_is_kept(value: Any, text: str) -> None:
    assert dump_output(value, 1_000) == Kept(text, len(text.encode()))
    json.loads(text)


class Opaque:
    pass


deep: list[Any] = []
for _ in range(240):
    deep = [deep]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Opaque(), "the result is of type Opaque, which JSON does not know"),
        (
            (one for one in [Opaque()]),
            "the result has a value of type Opaque, which JSON does not know",
        ),
        ("a\0b", "the result has a NUL character, which Postgres cannot store"),
        ("a\ud800", "the result has one half of a surrogate pair"),
        ({"a": float("nan")}, "the result has NaN or Infinity"),
        pytest.param(10**5_000, "the result is nested too deep, or has a number", id="huge"),
        (deep, "the result is nested too deep"),
        (b"\xff", "the result cannot be stored as JSON"),
    ],
)
def test_what_has_none_is_omitted_with_the_reason(value: Any, words: str) -> None:
    kept = dump_output(value, 10_000)
    assert kept.value is None
    assert kept.omitted is not None
    assert kept.omitted.startswith(words)


def test_too_much_is_omitted_with_its_size() -> None:
    kept = dump_output("x" * 100, 101)
    words = (
        "the result is 102 bytes as JSON, more than OPSJOBS_MAX_OUTPUT_BYTES = 101: store it elsewhere and "
        "return a reference to it"
    )
    assert kept == Kept(None, 102, words)
    assert dump_output("x" * 99, 101).value is not None

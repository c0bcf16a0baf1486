"""Tests that RQ's payloads are shown truthfully and within bounds, and that nothing in them ever runs."""

from __future__ import annotations

import json
import pickle
import tracemalloc
import zlib
from base64 import b64encode
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from rq.job import Job as RQJob
from rq.serializers import JSONSerializer

from flask_opsjobs.core.display import FAILED, Display
from flask_opsjobs.engine.adopted.inert_pickle import MOST_OPCODES
from flask_opsjobs.engine.adopted.pickle_view import (
    MOST_BYTES,
    RqView,
    view_error,
    view_job,
    view_value,
)

PROTOCOLS = range(6)
LONGEST_VIEW = 200_000
SECRET = "the-secret-value"

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
)
names = st.text("abcdefgh", min_size=1, max_size=5)
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(names, inner, max_size=5)
)
keys = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.binary(max_size=5)
odd_scalars = (
    scalars
    | st.integers(2**500, 2**600)
    | st.floats()
    | st.text(st.characters())
    | st.binary(max_size=300)
    | st.binary(max_size=300).map(bytearray)
    | st.complex_numbers()
    | st.sets(st.integers(), max_size=3)
    | st.frozensets(st.text(max_size=3), max_size=3)
    | st.decimals(allow_nan=False)
    | st.datetimes()
)
odd_values = st.recursive(
    odd_scalars,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(keys | st.tuples(keys, keys), inner, max_size=5)
    ),
)


class Canary:
    """An object whose unpickling writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.write_text, (self.path, "it ran")

    @classmethod
    def tune(cls) -> None: ...

    def sing(self) -> None: ...

    def __call__(self) -> None: ...


class HostDisplay:
    def is_hidden_key(self, key: str) -> bool:
        return key == "password"

    def clean_text(self, text: str) -> str:
        return text


class BrokenDisplay(HostDisplay):
    def is_hidden_key(self, key: str) -> bool:
        raise KeyError(key)


hides = Display(HostDisplay(), may_see=True).hides


def _view(call: Any, protocol: int = 5, **fields: bytes | int) -> RqView:
    return view_job({"data": zlib.compress(pickle.dumps(call, protocol)), **fields}, hides)


def _shown(value: Any, protocol: int = 5) -> Any:
    return json.loads(view_value(pickle.dumps(value, protocol), hides))


@pytest.mark.slow
@given(json_values, st.sampled_from(PROTOCOLS))
def test_a_value_of_json_is_shown_as_it_is(value: Any, protocol: int) -> None:
    assert _shown(value, protocol) == value
    assert json.loads(view_value(json.dumps(value).encode(), hides)) == value


@pytest.mark.slow
@given(odd_values)
def test_a_value_is_shown_alike_in_every_protocol_and_can_be_stored(value: Any) -> None:
    views = {view_value(pickle.dumps(value, protocol), hides) for protocol in PROTOCOLS}
    (view,) = views
    assert "\\u0000" not in view.replace("\\\\", "")
    assert len(view.encode()) < LONGEST_VIEW
    json.loads(view, parse_constant=pytest.fail)


@given(st.binary(max_size=400) | st.binary(max_size=400).map(lambda raw: b"\x80\x04" + raw + b"."))
def test_odd_bytes_end_well(raw: bytes) -> None:
    view = view_job({"data": raw, "meta": raw, "result": raw, "exc_info": raw}, hides)
    for text in (view.arguments, view.meta, view.result):
        assert text is None or len(json.dumps(json.loads(text))) < LONGEST_VIEW
    view_job({"return_value": raw, "exc_string": raw}, hides)


@pytest.mark.slow
@given(odd_values, st.integers(0, 5), st.data())
def test_a_damaged_pickle_ends_well(value: Any, protocol: int, data: st.DataObject) -> None:
    raw = bytearray(pickle.dumps(("shop.send", None, (value,), {}), protocol))
    for _ in range(3):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    json.loads(view_job({"data": bytes(raw)}, hides).arguments)


@pytest.mark.slow
@given(json_values, st.sampled_from(PROTOCOLS), st.data())
def test_a_hidden_value_is_never_shown(value: Any, protocol: int, data: st.DataObject) -> None:
    hidden = {data.draw(st.sampled_from(["password", b"password"])): [SECRET, {SECRET: SECRET}]}
    held: Any = hidden
    for wrap in data.draw(st.lists(st.sampled_from("ldt"), max_size=6)):
        held = {"l": [value, held], "d": {"a": held}, "t": (held, value)}[wrap]
    view = _view(("f", None, (held,), {"password": SECRET, "held": held}), protocol)
    raw = pickle.dumps(held, protocol)
    texts = [view.arguments, view_value(raw, hides), view_value(b64encode(raw), hides)]
    assert not any(SECRET in text for text in texts)
    assert "[hidden: key password]" in view.arguments


def test_a_value_under_a_key_that_is_an_object_is_not_shown() -> None:
    """The object may be equal to a hidden key: an enum of texts, for example."""
    assert SECRET not in json.dumps(_shown({Decimal(1): SECRET, (Decimal(2), 1): SECRET}))
    assert _shown({("password", 1): SECRET}) == {'["password", 1]': "[hidden: key password]"}


def test_a_policy_that_raises_hides() -> None:
    broken = Display(BrokenDisplay(), may_see=True).hides
    assert json.loads(view_value(pickle.dumps({"a": SECRET}), broken)) == {"a": FAILED}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_canary_never_fires(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "canary"
    canary = Canary(path)
    raw = pickle.dumps([canary, {"a": canary}], protocol)
    folded = zlib.compress(raw)
    for call in [
        ("shop.send", None, (canary,), {"a": canary}),
        ("sing", canary, (), {}),
        ("shop.send", None, ({"deep": [canary]},), {}),
        canary,
    ]:
        fields = {"meta": raw, "result": raw, "exc_info": folded, "return_value": b64encode(raw)}
        view = _view(call, protocol, **fields, exc_string=b64encode(folded))
        assert str(view.result).startswith('["<')
        view_error(folded)
    assert not path.exists()
    pickle.loads(raw)
    assert path.read_text() == "it ran"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_call_is_shown_with_its_function_and_arguments(protocol: int) -> None:
    view = _view(("shop.tasks.send", None, (42, "anna"), {"at": Decimal(1), "n": {1}}), protocol)
    assert view.function == "shop.tasks.send"
    assert json.loads(view.arguments) == {
        "*args": [42, "anna"],
        "at": "<decimal.Decimal>",
        "n": [1],
    }
    assert (view.result, view.meta, view.error) == (None, None, None)


@pytest.mark.parametrize("serializer", [None, JSONSerializer])
def test_the_fields_that_rq_writes_are_shown(serializer: Any) -> None:
    job = RQJob.create(
        "shop.tasks.send",
        args=(1,),
        kwargs={"a": [2]},
        meta={"by": "anna"},
        connection=Redis(),
        serializer=serializer,
    )
    job._result, job._exc_info = {"sent": 3}, "Traceback …\nValueError: no"
    fields = job.to_dict()
    view = view_job({name: fields[name] for name in ("data", "meta", "result", "exc_info")}, hides)
    assert view == RqView(
        function="shop.tasks.send",
        arguments='{"*args": [1], "a": [2]}',
        result='{"sent": 3}',
        meta='{"by": "anna"}',
        error="Traceback …\nValueError: no",
    )


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (len, "builtins.len"),
        (Canary(Path("never")).sing, "pathlib.Path.write_text.sing"),
        (Canary.tune, f"{__name__}.Canary.tune"),
        ("shop.tasks.send", "shop.tasks.send"),
    ],
)
def test_a_function_is_named(function: Any, name: str) -> None:
    data = RQJob.create(function, connection=Redis()).to_dict()["data"]
    assert view_job({"data": data}, hides).function == name


def test_the_newest_entry_of_the_stream_counts_before_the_hash() -> None:
    view = _view(
        ("f", None, (), {}),
        result=pickle.dumps("old"),
        return_value=b64encode(pickle.dumps("new")),
        exc_info=zlib.compress(b"old"),
        exc_string=b64encode(zlib.compress(b"new")),
    )
    assert (view.result, view.error) == ('"new"', "new")


def test_what_was_not_read_is_said() -> None:
    view = view_job({"data": 50_000_000, "result": 300_000, "exc_info": b"x" * 300_000}, hides)
    assert view.function is None
    assert view.arguments == '"[not shown: it has 50,000,000 bytes, and at most 256,000 are read]"'
    assert view.result == '"[not shown: it has 300,000 bytes, and at most 256,000 are read]"'
    assert view.error == "[not shown: it has 300,000 bytes, and at most 256,000 are read]"
    assert view_job({}, hides).arguments == '"[not shown: the job has no data]"'


@pytest.mark.slow
@pytest.mark.parametrize("what", ["zeros", "a pickle"])
def test_200_kb_that_unfold_to_200_mb_end_well(what: str) -> None:
    folding = zlib.compressobj(9)
    start = b"" if what == "zeros" else b"(X\x01\x00\x00\x00fNX\x00\x00\x00\x0c"
    parts = [folding.compress(start), *(folding.compress(bytes(10**6)) for _ in range(200))]
    raw = b"".join(parts) + folding.flush()
    assert 150_000 < len(raw) < MOST_BYTES
    tracemalloc.start()
    view = view_job({"data": raw, "exc_info": raw, "meta": raw}, hides)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert view.arguments == view_error(raw).join('""')
    assert "more than 1,000,000 bytes when it is decompressed" in view.error
    assert peak < 5_000_000


def test_a_compressed_field_that_is_cut_off_ends_well() -> None:
    raw = zlib.compress(pickle.dumps(("f", None, ("a" * 500,), {})))
    assert "not a valid pickle" in view_job({"data": raw[:-10]}, hides).arguments


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_values_that_contain_themselves_end_well(protocol: int) -> None:
    one: list[Any] = [1]
    two: dict[str, Any] = {"one": one}
    one.append(two)
    held: tuple[Any, ...] = (one,)
    one.append(held)
    view = _view(("f", None, (one, held), {"two": two}), protocol)
    assert "nested too deeply" in view.arguments
    assert len(view.arguments) < LONGEST_VIEW


@pytest.mark.parametrize("raw", [b"]" * 1_000 + b"a" * 999 + b".", b"[" * 1_000 + b"]" * 1_000])
def test_a_value_that_is_nested_1_000_deep_ends_well(raw: bytes) -> None:
    assert "nested too deeply" in view_value(raw, hides)


def test_a_value_that_is_nested_100_000_deep_ends_well() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    assert "nested too deeply" in view_value(deep, hides)
    assert f"{MOST_OPCODES:,} opcodes" in view_value(b"]" * 100_000 + b"a" * 99_999 + b".", hides)


def test_lists_that_double_end_well() -> None:
    value: list[Any] = ["a" * 1_000]
    for _ in range(18):
        value = [value, value]
    assert len(view_value(pickle.dumps(value), hides)) < LONGEST_VIEW


def test_a_long_value_keeps_its_beginning_and_says_what_is_left_out() -> None:
    shown = _shown(list(range(3_000)))
    assert shown[:999] == list(range(999))
    assert shown[-1] == "[2,001 more]"
    assert _shown({str(n): n for n in range(3_000)})["…"] == "[2,001 more]"
    assert _shown(["a" * 10_001, 2**5_000]) == [
        "[text of 10,001 characters]",
        "[integer of 5,001 bits]",
    ]
    assert _shown([b"a" * 201]) == ["[201 bytes]"]
    assert _shown({"a" * 201: 1}) == {"[key of 201 characters]": 1}


def test_keys_of_the_same_text_are_all_shown() -> None:
    assert _shown({1: "a", "1": "b"}) == {"1": "a", "1 (2)": "b"}


@pytest.mark.parametrize(
    "raw", [b"\xde\xad\xbe\xef", b"{not json", b"not a pickle", b"\x93\x01\x02"]
)
def test_another_serializer_is_a_sentence(raw: bytes) -> None:
    assert json.loads(view_value(raw, hides)).startswith("[not shown: it is not ")
    assert view_job({"data": raw}, hides).function is None


def test_a_call_that_cannot_be_read_to_its_end_keeps_its_function() -> None:
    view = _view(("shop.tasks.send", None, (["a"] * MOST_OPCODES,), {}))
    assert view.function == "shop.tasks.send"
    assert "opcodes" in view.arguments


def test_what_is_no_call_is_said() -> None:
    calls: list[Any] = [("f", None, ()), "f", (1, None, (), {}), ("f", None, (), [])]
    for call in calls:
        assert "it is not a call of RQ" in _view(call).arguments


def test_a_value_that_rq_could_not_serialize_is_shown_as_rq_says() -> None:
    assert view_value(b"Unserializable return value", hides) == '"Unserializable return value"'


def test_a_long_traceback_loses_its_middle_only() -> None:
    lines = "".join(f"line {n}\n" for n in range(20_000))
    shown = view_error(zlib.compress(lines.encode()))
    assert shown.startswith("line 0\nline 1\n")
    assert shown.endswith("line 19999\n")
    assert "bytes left out" in shown
    assert (
        view_error(b"plain, as older versions of RQ wrote it")
        == "plain, as older versions of RQ wrote it"
    )
    assert view_error(zlib.compress(b"\xff\0")) == "\ufffd\ufffd"

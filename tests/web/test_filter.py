"""The filter of a list owns its query string, both ways, and names what it cannot read."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_opsjobs.jobs.filter import LIMITS, BadFilter, Created, JobFilter
from flask_opsjobs.jobs.lifecycle import STATES

names = st.text(
    st.characters(exclude_characters='"', exclude_categories=("Cc", "Cs")), min_size=1, max_size=200
).filter(lambda name: name.strip() == name)
filters = st.builds(
    JobFilter,
    state=st.none() | st.sampled_from(STATES),
    queue=st.none() | names,
    worker=st.none() | names,
    created=st.none()
    | st.builds(Created, st.booleans(), st.integers(0, 99_999), st.sampled_from("smhd")),
    limit=st.sampled_from(LIMITS),
)


@given(filters)
def test_a_filter_reads_its_own_query_string(wanted: JobFilter) -> None:
    assert JobFilter.from_query(wanted.to_query().items()) == wanted


@given(filters)
def test_a_filter_reads_its_own_search_box(wanted: JobFilter) -> None:
    wanted = wanted.but(state=None, limit=LIMITS[0])
    assert JobFilter.from_query([("q", wanted.text)]) == wanted


@given(filters, filters)
def test_conditions_tell_filters_apart(one: JobFilter, other: JobFilter) -> None:
    assert (one.conditions == other.conditions) == (one == other.but(limit=one.limit))


def test_the_box_means_the_same_as_the_fields() -> None:
    box = JobFilter.from_query([("q", ' state:failed  queue:"my queue" worker:send created:<2h ')])
    fields = [("state", "failed"), ("queue", "my queue"), ("worker", "send"), ("created", "< 2h")]
    assert box == JobFilter.from_query([*fields, ("before", "x"), ("q", "")])
    assert box.text == 'queue:"my queue" worker:send created:<2h'


def test_the_same_said_twice_is_the_same() -> None:
    assert JobFilter.from_query([("q", "queue:a"), ("queue", "a")]) == JobFilter(queue="a")


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"state": "faild"}, "state: there is no state 'faild'; known are deferred, scheduled"),
        ({"q": "state:faild"}, "state: there is no state"),
        ({"created": "2h"}, "created: '2h' is no span; write <2h"),
        ({"created": "<2 fortnights"}, "created:"),
        ({"created": "<999999999999d"}, "created:"),
        ({"limit": "10"}, "limit: a page has 25, 50, 100 jobs"),
        ({"limit": "1000000000"}, "limit:"),
        ({"limit": "-25"}, "limit:"),
        ({"limit": "25.0"}, "limit:"),
        ({"queue": "a\x00b"}, "queue: holds a control character"),
        ({"worker": "x" * 201}, "worker: a name has at most 200 characters"),
        ({"worker": 'a"b'}, "worker: a name with a quotation mark"),
        ({"q": "hello"}, "search: what is 'hello'?"),
        ({"q": '"hello there"'}, "search: what is 'hello there'?"),
        ({"q": 'worker:"open'}, "search: cannot read"),
        ({"q": "queue:"}, "queue: needs a value"),
        ({"q": "a\x00:b"}, "search: holds a control character"),
        (
            {"q": "colour:red"},
            "colour: cannot be searched; known are state, queue, worker, created",
        ),
        ({"q": "args.account_id:42"}, "args.account_id: cannot be searched"),
        ({"q": 'error:"timed out"'}, "error: cannot be searched"),
        ({"stat": "failed"}, "stat: cannot be searched"),
        ({"q": "queue:a queue:b"}, "queue: is both a and b"),
        ({"q": "queue:a", "queue": "b"}, "queue: is both a and b"),
    ],
)
def test_what_cannot_be_read_is_named(query: dict[str, str], named: str) -> None:
    with pytest.raises(BadFilter) as raised:
        JobFilter.from_query(query.items())
    assert str(raised.value).startswith(named)


@given(st.lists(st.tuples(st.sampled_from(["q", "state", "queue", "created", "limit"]), st.text())))
def test_nonsense_is_refused_or_read_but_never_breaks(pairs: list[tuple[str, str]]) -> None:
    with contextlib.suppress(BadFilter):
        JobFilter.from_query(pairs)

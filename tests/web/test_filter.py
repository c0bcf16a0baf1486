"""The filter of a list owns its query string, both ways, and names what it cannot read."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from functools import partial
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_opsjobs.jobs.lifecycle import DEATHS, STATES
from flask_opsjobs.jobs.search.filter import LIMITS, ORIGINS, JobFilter
from flask_opsjobs.jobs.search.ranges import read_moments
from flask_opsjobs.jobs.search.terms import BadFilter, Term, read_argument

names = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=200).filter(
    lambda name: name.strip() == name
)
arguments = st.builds(
    read_argument,
    st.builds(
        Term,
        st.from_regex(r"args\.[\w-]{1,9}(\.[\w-]{1,9}){0,3}", fullmatch=True),
        names | st.sampled_from(["42", "-1.5e3", "true", "null", "", "007", "1.", "NaN"]),
        st.booleans(),
    ),
)
# A name that looks like an id is one.
groups = st.none() | st.integers(0, 2**63 - 1) | names.filter(lambda name: not name[-1].isdigit())
filters = st.builds(
    JobFilter,
    tag=st.none() | names,
    error=st.none() | names,
    origin=st.none() | st.sampled_from(ORIGINS),
    id=st.none() | st.integers(0, 2**63 - 1),
    workflow=groups,
    step=st.none() | names,
    batch=groups,
    failure=st.none() | st.integers(0, 2**63 - 1),
    death=st.none() | st.sampled_from(tuple(DEATHS)),
    deploy=st.none() | names,
    worker=st.none() | names,
    incident=st.none() | st.integers(0, 2**63 - 1),
    args=st.lists(arguments, max_size=3, unique_by=lambda one: one.name).map(
        lambda found: tuple(sorted(found, key=lambda one: one.name))
    ),
    state=st.none() | st.sampled_from(STATES),
    queue=st.none() | names,
    task=st.none() | names,
    created=st.none()
    | st.from_regex(r"[<>][0-9]{1,5}[smhd]", fullmatch=True).map(partial(read_moments, "created")),
    limit=st.sampled_from(LIMITS),
).map(lambda wanted: wanted if wanted.workflow is not None else wanted.but(step=None))


@pytest.mark.slow
@given(filters)
def test_a_filter_reads_its_own_query_string(wanted: JobFilter) -> None:
    assert JobFilter.from_query(wanted.to_query().items()) == wanted


@given(filters)
def test_a_filter_reads_its_own_search_box(wanted: JobFilter) -> None:
    wanted = wanted.but(state=None, limit=LIMITS[0])
    assert JobFilter.from_query([("q", wanted.text)]) == wanted


@pytest.mark.slow
@given(filters, filters)
def test_conditions_tell_filters_apart(one: JobFilter, other: JobFilter) -> None:
    assert (one.conditions == other.conditions) == (one == other.but(limit=one.limit))


def test_the_box_means_the_same_as_the_fields() -> None:
    box = JobFilter.from_query([("q", ' state:failed  queue:"my queue" task:send created:<2h ')])
    fields = [("state", "failed"), ("queue", "my queue"), ("task", "send"), ("created", "< 2h")]
    assert box == JobFilter.from_query([*fields, ("before", "x"), ("q", "")])
    assert box.text == 'queue:"my queue" task:send created:<2h'


def test_a_workflow_and_a_batch_are_named_by_id_or_by_name() -> None:
    for text in ("workflow:7 batch:8", "workflow:workflow/7 batch:batch/8"):
        assert JobFilter.from_query([("q", text)]) == JobFilter(workflow=7, batch=8)
    named = JobFilter.from_query([("q", 'workflow:import step:"send mail" batch:march')])
    assert named == JobFilter(workflow="import", step="send mail", batch="march")
    assert named.text == 'workflow:import step:"send mail" batch:march'
    # A step is one of a workflow: without the workflow it means nothing.
    assert named.without("workflow") == JobFilter(batch="march")


def test_a_failure_is_named_by_its_id_and_a_death_by_its_word() -> None:
    for text in ('failure:58 death:"out of memory"', "failure:failure/58 death:out_of_memory"):
        wanted = JobFilter.from_query([("q", text)])
        assert wanted == JobFilter(failure=58, death="out_of_memory")
        assert wanted.is_search
        assert not wanted.needs_payload


def test_a_star_is_searched_in_errors_between_quotes() -> None:
    wanted = JobFilter(error="2*3")
    assert wanted.text == 'error:"2*3"'
    assert JobFilter.from_query([("q", '"2*3"')]) == wanted
    assert JobFilter.from_query(wanted.to_query().items()) == wanted


def test_a_quotation_mark_is_doubled_between_quotes() -> None:
    for name in ('a"b', '"', '"a"', 'a "b"', 'a""*'):
        wanted = JobFilter(queue=name)
        assert JobFilter.from_query(wanted.to_query().items()) == wanted
        assert JobFilter.from_query([("q", wanted.text)]) == wanted
    assert JobFilter(queue='a"b').text == 'queue:"a""b"'
    assert JobFilter.from_query([("error", 'say "no"')]) == JobFilter(error='say "no"')
    assert JobFilter.from_query([("q", 'args.a:"" args.b:""""')]).text == 'args.a:"" args.b:""""'
    with pytest.raises(BadFilter, match="a value in quotes begins and ends with a quote"):
        JobFilter.from_query([("q", 'queue:"a""')])


@pytest.mark.parametrize(
    ("box", "day"),
    [("created:today", 28), ("-started:yesterday", 27), ("tag:eu OR due:tomorrow", 29)],
)
def test_a_day_of_a_search_gets_its_date(box: str, day: int) -> None:
    now = datetime(2026, 11, 27, 23, 30, tzinfo=UTC)  # in Berlin it is the next day
    wanted = JobFilter.from_query([("q", f"{box} zone:Europe/Berlin")])
    *_, one = wanted.dated(now).every_condition
    begin, end = one.value.bounds(now + timedelta(days=9), wanted.tzinfo)
    assert (begin, end) == tuple(datetime(2026, 11, day + n, 23, tzinfo=UTC) for n in (-1, 0))


def test_an_amount_in_a_small_unit_may_have_many_digits() -> None:
    wanted = JobFilter.from_query([("q", "memory:>1048576kB duration:<=86400000ms")])
    memory, duration = (one.value for one in wanted.every_condition)
    assert (memory.low, duration.high) == (1_048_576_000, 86_400)


def test_a_search_without_a_day_has_no_date() -> None:
    wanted = JobFilter.from_query([("q", "created:<1h due:-2h..now queue:today ended:2026-11-27")])
    assert wanted.dated(datetime(2026, 11, 27, tzinfo=UTC)) == wanted


@pytest.mark.parametrize("clause", ["args.a:1 OR error:timeout", "args.a:1 OR args.b:2"])
def test_terms_joined_by_or_are_removed_together(clause: str) -> None:
    wanted = JobFilter.from_query([("q", f"{clause} args.a:3 queue:mail")])
    assert wanted.without(clause).text == "queue:mail args.a:3"


def test_the_same_said_twice_is_the_same() -> None:
    assert JobFilter.from_query([("q", "queue:a"), ("queue", "a")]) == JobFilter(queue="a")


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"state": "faild"}, "state: there is no state 'faild'; known are deferred, scheduled"),
        ({"q": "state:faild"}, "state: there is no state"),
        ({"created": "2h"}, "created: '2h' is not a time or a duration; write <2h, >3d"),
        ({"created": "9999-12-31"}, "created: '9999-12-31' is not in the years 1970 to 2199"),
        ({"created": "1969-12-31T23:59.."}, "created: '1969-12-31T23:59' is not in the years 1970"),
        ({"created": "9999-02-30"}, "created: '9999-02-30' is not a time or a duration"),
        ({"created": "<2 fortnights"}, "created:"),
        ({"created": "<999999999999d"}, "created:"),
        ({"limit": "10"}, "limit: a page has 25, 50, 100 jobs"),
        ({"limit": "1000000000"}, "limit:"),
        ({"limit": "-25"}, "limit:"),
        ({"limit": "25.0"}, "limit:"),
        ({"queue": "a\x00b"}, "queue: holds a control character"),
        ({"task": "x" * 201}, "task: has at most 200 characters"),
        (
            {"q": 'task:"open'},
            "search: cannot read 'task:\"open'; a value in quotes begins and ends with a quote",
        ),
        (
            {"q": 'created:>"2026-11-27 14:30"'},
            "search: cannot read 'created:>\"2026-11-27 14:30\"'; a date and its time are written "
            "2026-11-27T14:30",
        ),
        (
            {"q": "created:>2026-11-27 14:30"},
            "14: cannot be searched; a date and its time are written 2026-11-27T14:30",
        ),
        ({"q": "created:<2026-11-27 9:30:59"}, "9: cannot be searched; a date and its time are"),
        ({"q": "404:x"}, "404: cannot be searched; known are state"),
        ({"q": "14:300"}, "14: cannot be searched; known are state"),
        ({"q": "-HTTPErr*"}, "error: leave out the *, since parts of words"),
        ({"error": "HTTPErr*"}, "error: leave out the *, since parts of words"),
        ({"q": "queue:"}, "queue: needs a value"),
        ({"q": "a\x00:b"}, "search: holds a control character"),
        (
            {"q": "colour:red"},
            "colour: cannot be searched; known are state, queue, task, tag, error, created, "
            "origin, id, workflow, step, batch, failure, death, deploy, worker, "
            "incident, due, started, ended, duration, wait, attempts, priority, memory, zone, "
            "args.NAME. In quotes it is searched in errors",
        ),
        ({"q": "args.:42"}, "args.: write args.name:value"),
        ({"q": "args.a..b:42"}, "args.a..b: write args.name:value"),
        ({"q": "args.a.b.c.d.e.f.g.h.i:42"}, "args.a.b.c.d.e.f.g.h.i: write args.name:value"),
        ({"args": "42"}, "args: what is '42'? Write name:value"),
        ({"args": "a:1", "q": "args.a:2"}, "args.a: is both 1 and 2"),
        ({"q": " ".join(f"args.n{n}:1" for n in range(9))}, "args: at most 8 arguments"),
        ({"args.a": "x" * 201}, "args.a: has at most 200 characters"),
        ({"tag": "x" * 201}, "tag: has at most 200 characters"),
        ({"error": "a\nb"}, "error: holds a control character"),
        ({"origin": "mars"}, "origin: there is no origin 'mars'; known are opsjobs, rq"),
        ({"id": "0x7"}, "id: '0x7' is neither a job's id nor an RQ id"),
        ({"id": "9223372036854775808"}, "id: "),
        ({"step": "notify"}, "step: needs the workflow too, such as workflow:7 step:notify"),
        ({"q": "step:notify batch:7"}, "step: needs the workflow too"),
        ({"q": "state:failed AND queue:a"}, "search: terms beside each other must all match"),
        ({"q": "NOT queue:a"}, "search: write - before a term that must not match"),
        ({"q": "attempts:>=3..5"}, "attempts: cannot read '>=3..5'; write 3, >=3 or 3..5"),
        ({"workflow": "x" * 201}, "workflow: has at most 200 characters"),
        ({"workflow": "7", "step": "a\nb"}, "step: holds a control character"),
        ({"q": "workflow:7 workflow:8"}, "workflow: is both 7 and 8"),
        ({"failure": "KeyError"}, "failure: 'KeyError' is no id of a failure; write failure:58"),
        ({"failure": "9223372036854775808"}, "failure: "),
        (
            {"death": "old age"},
            "death: there is no death 'old_age'; known are out_of_memory, signal",
        ),
        ({"deploy": "x" * 201}, "deploy: has at most 200 characters"),
        ({"worker": "a\nb"}, "worker: holds a control character"),
        ({"incident": "x"}, "incident: 'x' is no id of an incident; write incident:58"),
        ({"q": "deploy:1 deploy:2"}, "deploy: is both 1 and 2"),
        ({"stat": "failed"}, "stat: cannot be searched"),
        ({"q": "queue:a queue:b"}, "queue: is both a and b"),
        ({"q": "queue:a", "queue": "b"}, "queue: is both a and b"),
    ],
)
def test_what_cannot_be_read_is_named(query: dict[str, str], named: str) -> None:
    with pytest.raises(BadFilter) as raised:
        JobFilter.from_query(query.items())
    assert str(raised.value).startswith(named)


_FIELDS = [
    "q",
    "workflow",
    "step",
    "batch",
    "state",
    "queue",
    "created",
    "limit",
    "args",
    "args.a",
    "id",
    "tag",
    "error",
]


@given(st.lists(st.tuples(st.sampled_from(_FIELDS), st.text())))
def test_nonsense_is_refused_or_read_but_never_breaks(pairs: list[tuple[str, str]]) -> None:
    with contextlib.suppress(BadFilter):
        JobFilter.from_query(pairs)


def test_arguments_may_be_given_in_three_ways() -> None:
    box = JobFilter.from_query([("q", 'args.a:1 args.b.c:"2" args.d:"x y"')])
    assert box == JobFilter.from_query([("args", 'd:"x y" args.a:1 b.c:"2"')])
    assert box == JobFilter.from_query([("args.d", "x y"), ("args.b.c", '"2"'), ("args.a", "1")])
    assert box.text == 'args.a:1 args.b.c:"2" args.d:"x y"'
    assert box.without("args.b.c").text == 'args.a:1 args.d:"x y"'
    assert box.args[1].shapes == ['{"b": {"c": "2"}}']
    assert box.args[0].shapes == ['{"a": "1"}', '{"a": 1}']


_TERMS = [
    *(
        "OR",
        "-",
        "timeout",
        '"timed out"',
        '-"OR"',
        '"AND"',
        "--x",
        "colour:red",
        'task:"a*b"',
        "task:a*",
        '"',
    ),
    *(
        "-task:send_*",
        "state:failed",
        "-state:failed",
        "tag:a",
        "tag:b",
        "-tag:c*",
        "args.a:1",
        "-args.a:1",
    ),
    *(
        "created:<2h",
        "due:now..+2h",
        'ended:"2026-03-29 02:30.."',
        "started:yesterday",
        "zone:Europe/Berlin",
    ),
    *(
        "duration:>5s",
        "wait:1s..2m",
        "attempts:3",
        "priority:>=0",
        "memory:..1.5GB",
        "id:1,2,opsjobs-3-1",
    ),
    *(
        "workflow:7",
        "step:pay",
        "failure:58",
        "-death:signal",
        "limit:50",
        "sort:run",
        "-limit:50",
        "-zone:UTC",
    ),
]


@given(st.lists(st.sampled_from(_TERMS), max_size=8))
def test_a_mix_of_terms_is_refused_at_its_place_or_reads_its_own_text(terms: list[str]) -> None:
    text = " ".join(terms)
    try:
        wanted = JobFilter.from_query([("q", text)])
    except BadFilter as error:
        if error.place is not None:
            begin, end = error.place
            assert text[begin:end].strip() == text[begin:end] != ""
        return
    assert JobFilter.from_query(wanted.to_query().items()) == wanted
    typed = wanted.but(state=None, sort=None, limit=LIMITS[0])
    assert JobFilter.from_query([("q", typed.text)]) == typed
    for name in wanted.terms:
        if name not in ("zone", "workflow"):
            assert name not in wanted.without(name).terms


@pytest.mark.parametrize(
    ("typed", "since", "until"),
    [
        # Clocks in Berlin jump from 02:00 to 03:00, at 01:00 UTC.
        ("2026-03-29T02:30", "2026-03-29T01:00", "2026-03-29T01:00"),
        ("2026-03-29T01:59..2026-03-29T03:00", "2026-03-29T00:59", "2026-03-29T01:01"),
        ("2026-03-29", "2026-03-28T23:00", "2026-03-29T22:00"),
        # They show the hour from 02:00 to 03:00 twice, from 00:00 and from 01:00 UTC.
        ("2026-10-25T02:30", "2026-10-25T00:30", "2026-10-25T01:31"),
        ("2026-10-25", "2026-10-24T22:00", "2026-10-25T23:00"),
        (">2026-10-25T02:30", "2026-10-25T00:31", None),
        ("<2026-10-25T02:30", None, "2026-10-25T01:30"),
        ("2026-10-25T02:30:15Z", "2026-10-25T02:30:15", "2026-10-25T02:30:16"),
        ("tomorrow..", "2026-06-01T22:00", None),
        ("-1h..+90s", "2026-06-01T11:00", "2026-06-01T12:01:30"),
    ],
)
def test_a_range_of_times_is_one_of_a_zone(
    typed: str, since: str | None, until: str | None
) -> None:
    now = datetime(2026, 6, 1, 12, tzinfo=UTC)
    found = read_moments("created", typed).bounds(now, ZoneInfo("Europe/Berlin"))
    expected = (since, until)
    assert found == tuple(at and datetime.fromisoformat(f"{at}+00:00") for at in expected)

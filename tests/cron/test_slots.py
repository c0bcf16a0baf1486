"""The slots of any expression in any zone are those that a walk through every minute of two years finds."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from flask_opsjobs.cron.expression import BadSchedule, Schedule, read_schedule
from tests.cron.clocks import (
    BEGIN,
    MINUTE,
    MINUTES,
    ZONES,
    Field,
    Fields,
    expected,
    stretches,
)

# So many slots of an expression are compared from the beginning on; around each change of a clock all are.
MANY = 150
AROUND = 4 * 60
MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
WEEKDAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]


@st.composite
def _terms(draw: st.DrawFn, least: int, most: int, likely: range, names: list[str]) -> Field:
    """A star, a step, a number, a range or a name, and what it stands for."""

    def say(value: int) -> str:
        at = value - least
        is_named = bool(names) and at < len(names) and draw(st.booleans())
        return draw(st.sampled_from([names[at], names[at].lower()])) if is_named else str(value)

    values = st.integers(least, most) | st.sampled_from(likely)
    kind = draw(st.sampled_from(["star", "star/", "one", "one", "one/", "range", "range/"]))
    step = draw(st.integers(1, most + 2)) if kind.endswith("/") else 1
    said = f"/{step}" if kind.endswith("/") else ""
    if kind.startswith("star"):
        return Field("*" + said, frozenset(range(least, most + 1, step)))
    first = draw(values)
    if kind.startswith("one"):
        last = most if said else first
        return Field(say(first) + said, frozenset(range(first, last + 1, step)))
    # 5-5/2 is refused.
    assume(not said or first < most)
    last = draw(st.integers(first + bool(said), most))
    return Field(f"{say(first)}-{say(last)}{said}", frozenset(range(first, last + 1, step)))


def _fields(
    least: int, most: int, likely: range, names: list[str] | None = None
) -> st.SearchStrategy[Field]:
    one = _terms(least, most, likely, names or [])
    several = st.lists(one, min_size=2, max_size=3).map(
        lambda terms: Field(
            ",".join(term.text for term in terms),
            frozenset().union(*(term.values for term in terms)),
        )
    )
    # A field that a step leaves one value of is refused.
    return (one | one | several).filter(
        lambda field: "/" not in field.text or len(field.values) > 1
    )


STAR = {
    name: Field("*", frozenset(range(least, most + 1)))
    for name, least, most in [("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7)]
}
# Clocks are changed between 23:00 and 03:00; days are left open often, so that those of a change are met.
expressions = st.builds(
    Fields,
    minute=_fields(0, 59, range(0, 60, 15)),
    hour=_fields(0, 23, range(4)),
    day=st.just(STAR["day"]) | _fields(1, 31, range(1, 32)),
    month=st.just(STAR["month"]) | _fields(1, 12, range(3, 12), MONTHS),
    weekday=st.just(STAR["weekday"]) | _fields(0, 7, range(8), WEEKDAYS),
)
zones = st.sampled_from(ZONES)


def _changes(zone: str) -> list[int]:
    """The minutes at which the zone's clocks change."""
    return [stretch.begin for stretch in stretches(zone)[1:]]


def _at(minute: float) -> datetime:
    return BEGIN + minute * MINUTE


def _between(schedule: Schedule, after: float, until: int, most: int = MINUTES) -> list[int]:
    found = schedule.slots_between(_at(after), _at(until), most)
    assert all(slot.tzinfo is UTC for slot in found)
    return [(slot - BEGIN) // MINUTE for slot in found]


def _read(fields: Fields, zone: str) -> Schedule | None:
    try:
        return read_schedule(str(fields), zone)
    except BadSchedule:
        return None


def test_the_zones_have_their_changes() -> None:
    assert {zone: len(_changes(zone)) for zone in ZONES} == {
        "UTC": 0,
        "Europe/Paris": 4,
        "America/New_York": 4,
        "Australia/Lord_Howe": 4,
        "America/Santiago": 4,
        "Africa/Casablanca": 4,
        "Asia/Kolkata": 0,
        "Africa/Cairo": 4,
    }


@pytest.mark.slow
@settings(deadline=None)
@given(expressions, zones)
def test_slots_are_those_that_a_walk_through_every_minute_finds(fields: Fields, zone: str) -> None:
    wanted, schedule = expected(fields, zone), _read(fields, zone)
    if schedule is None:
        event("refused")
        assert wanted.between(-1) == []
        return
    event("fixed" if fields.is_fixed else "goes on")
    assert _between(schedule, 0, MINUTES - 1, MANY) == wanted.between(0, most=MANY)
    for change in _changes(zone):
        after, until = change - AROUND, change + AROUND
        assert _between(schedule, after, until) == wanted.between(after, until)


@pytest.mark.slow
@settings(deadline=None)
@given(expressions, zones, st.data())
def test_the_slots_after_a_moment_are_the_tail_of_all(
    fields: Fields, zone: str, data: st.DataObject
) -> None:
    wanted, schedule = expected(fields, zone), _read(fields, zone)
    changes = st.sampled_from([*_changes(zone), MINUTES // 2])
    moment = data.draw(changes) + data.draw(st.integers(-90, 90) | st.integers(-1600, 1600))
    within = data.draw(st.sampled_from([0, 0.5, 0.99]))
    if schedule is None:
        return
    assert _between(schedule, moment + within, MINUTES - 1, 60) == wanted.between(moment, most=60)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize(
    "fields",
    [
        # Each minute of an hour; each half hour of one; by a step; at midnight;
        # one that comes to lie on another.
        Fields(Field("*", frozenset(range(60))), Field("0-3", frozenset(range(4))), **STAR),
        Fields(Field("0,30", frozenset({0, 30})), Field("*", frozenset(range(24))), **STAR),
        Fields(Field("*/20", frozenset({0, 20, 40})), Field("2", frozenset({2})), **STAR),
        Fields(Field("0", frozenset({0})), Field("0", frozenset({0})), **STAR),
        Fields(
            Field("0,15,30,45", frozenset({0, 15, 30, 45})),
            Field("0-3", frozenset(range(4))),
            **STAR,
        ),
        Fields(Field("15", frozenset({15})), Field("*/2", frozenset(range(0, 24, 2))), **STAR),
    ],
    ids=str,
)
def test_slots_around_every_change_from_every_moment(fields: Fields, zone: str) -> None:
    wanted, schedule = expected(fields, zone), read_schedule(str(fields), zone)
    for change in _changes(zone):
        for moment in range(change - 150, change + 150, 7):
            assert _between(schedule, moment, change + 300) == wanted.between(moment, change + 300)

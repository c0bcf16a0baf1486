"""Slots against a brute-force oracle, which looks at the wall clock each minute; and what is refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_opsjobs.cron.expression import ALIASES, BadSchedule, read_schedule

MINUTE = timedelta(minutes=1)
BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
END = datetime(2027, 1, 1, tzinfo=UTC)
# Europe and America change by an hour, Lord Howe by half of one; Casablanca changes for Ramadan, Cairo at midnight, so
# that a day may begin at one; Kolkata stands half an hour off.
ZONES = [
    "UTC", "Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Africa/Cairo",
    "Asia/Kolkata",
]  # fmt: skip
EXPRESSIONS = [
    "*/7 * * * *", "30 * * * *", "*/10 2,3 * * *", "*/20 0 * * SUN", "15 */2 * * *", "0 2 * * *", "30 1,2 * * *",
    "0,15,30,45 0-3 * * *", "59 23 28-31 3,10 *", "5 4 13 * FRI", "0 12 */2 * MON-FRI", "0 0 29 2 *",
]  # fmt: skip


@dataclass(frozen=True)
class Oracle:
    """A cron expression read in the plainest way: five sets, and the rule for days."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    is_both: bool
    is_fixed: bool

    @classmethod
    def read(cls, expression: str) -> Oracle:
        fields = expression.split()
        ranges = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
        sets = [_members(field, *span) for field, span in zip(fields, ranges, strict=True)]
        sets[4] = frozenset(day % 7 for day in sets[4])
        return cls(
            *sets,
            is_both=fields[2].startswith("*") or fields[4].startswith("*"),
            is_fixed=not fields[0].startswith("*") and not fields[1].startswith("*"),
        )

    def shows(self, wall: datetime) -> bool:
        if wall.minute not in self.minutes or wall.hour not in self.hours:
            return False
        return _is_day(self, wall.date())


@cache
def _is_day(oracle: Oracle, day: date) -> bool:
    by_date, by_name = day.day in oracle.days, day.isoweekday() % 7 in oracle.weekdays
    is_day = by_date and by_name if oracle.is_both else by_date or by_name
    return day.month in oracle.months and is_day


def _members(field: str, low: int, high: int) -> frozenset[int]:
    names = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]
    found: set[int] = set()
    for term in field.split(","):
        span, _, step = term.partition("/")
        first, _, last = span.partition("-")
        if span == "*":
            bounds = (low, high)
        else:
            ends = [
                names.index(end) if end in names else int(end) for end in (first, last or first)
            ]
            bounds = (ends[0], high if step and not last else ends[1])
        found.update(range(bounds[0], bounds[1] + 1, int(step or 1)))
    return frozenset(found)


def walk(
    zone: str, begin: datetime, end: datetime
) -> Iterator[tuple[datetime, datetime, bool, datetime]]:
    """Each minute after `begin`: the moment, what the wall shows, whether again, and what it showed before."""
    place = ZoneInfo(zone)
    before = begin.astimezone(place).replace(tzinfo=None, fold=0)
    moment = begin + MINUTE
    while moment <= end:
        local = moment.astimezone(place)
        wall = local.replace(tzinfo=None, fold=0)
        yield moment, wall, local.fold == 1, before
        before = wall
        moment += MINUTE


def brute(
    expressions: Iterable[str], zone: str, begin: datetime, end: datetime
) -> dict[str, list[datetime]]:
    """The slots of each expression after `begin` and up to `end`."""
    oracles = {expression: Oracle.read(expression) for expression in expressions}
    found: dict[str, list[datetime]] = {expression: [] for expression in oracles}
    for moment, wall, is_again, before in walk(zone, begin, end):
        # What the wall has not shown since the last minute, and what it shows.
        shown = [before + n * MINUTE for n in range(1, max(1, (wall - before) // MINUTE) + 1)]
        for expression, oracle in oracles.items():
            walls = (() if is_again else shown) if oracle.is_fixed else (wall,)
            if any(map(oracle.shows, walls)):
                found[expression].append(moment)
    return found


@pytest.mark.parametrize("zone", ZONES)
def test_two_years_of_minutes(zone: str) -> None:
    expected = brute(EXPRESSIONS, zone, BEGIN, END)
    for expression, slots in expected.items():
        found = read_schedule(expression, zone).slots_between(BEGIN, END, 10**6)
        assert found == slots, expression


@cache
def changes(zone: str) -> list[datetime]:
    """The hours after which the wall clock of a zone changes, within the two years."""
    place = ZoneInfo(zone)
    hours = [BEGIN + timedelta(hours=n) for n in range(2 * 365 * 24)]
    offsets = [hour.astimezone(place).utcoffset() for hour in hours]
    return [
        hour for hour, now, then in zip(hours, offsets, offsets[1:], strict=False) if now != then
    ]


def _field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    # Not `3-3`: with a step behind it, cronsim reads that as `3`, which goes on to the end.
    pairs = st.tuples(number, number).filter(lambda pair: pair[0] != pair[1])
    span = pairs.map(lambda pair: f"{min(pair)}-{max(pair)}")
    step = st.tuples(st.one_of(st.just("*"), span), st.integers(1, high)).map(
        lambda pair: f"{pair[0]}/{pair[1]}"
    )
    term = st.one_of(number.map(str), span, step)
    return st.one_of(st.just("*"), term, st.lists(term, min_size=2, max_size=3).map(",".join))


@settings(max_examples=150, deadline=None)
@given(
    minute=_field(0, 59), hour=_field(0, 4), day=st.one_of(st.just("*"), _field(1, 31)), weekday=_field(0, 7),
    zone=st.sampled_from(ZONES[1:6]), which=st.integers(0, 7), ahead=st.integers(0, 30 * 60),
)  # fmt: skip
def test_any_expression_around_a_change(
    minute: str, hour: str, day: str, weekday: str, zone: str, which: int, ahead: int
) -> None:
    """Of any two days around a change, begun at any minute."""
    known = changes(zone)
    begin = known[which % len(known)] - ahead * MINUTE
    end = begin + timedelta(days=2)
    expression = f"{minute} {hour} {day} * {weekday}"
    assert (
        read_schedule(expression, zone).slots_between(begin, end, 10**6)
        == brute([expression], zone, begin, end)[expression]
    )


class TestAChangeOfTheClock:
    """In Paris 02:00 to 02:59 did not exist on 30 March 2025, and came twice on 26 October."""

    def slots(self, expression: str, day: str) -> list[str]:
        begin = datetime.fromisoformat(f"{day}T00:00+00:00") - timedelta(hours=3)
        schedule = read_schedule(expression, "Europe/Paris")
        found = schedule.slots_between(begin, begin + timedelta(hours=8), 100)
        return [slot.strftime("%H:%M") for slot in found]

    def test_a_fixed_slot_in_the_gap_comes_when_it_is_over(self) -> None:
        assert self.slots("30 2 * * *", "2025-03-30") == ["01:00"]

    def test_several_in_one_gap_are_one(self) -> None:
        assert self.slots("0,30 2,3 * * *", "2025-03-30") == ["01:00", "01:30"]

    def test_a_fixed_slot_that_is_shown_twice_comes_once(self) -> None:
        assert self.slots("30 2 * * *", "2025-10-26") == ["00:30"]

    def test_with_a_star_time_goes_on(self) -> None:
        assert self.slots("30 * * * *", "2025-03-30") == [
            f"{hour:02}:30" for hour in (21, 22, 23, 0, 1, 2, 3, 4)
        ]
        assert self.slots("*/30 2 * * *", "2025-03-30") == []
        assert self.slots("*/30 2 * * *", "2025-10-26") == ["00:00", "00:30", "01:00", "01:30"]

    def test_half_an_hour_loses_nothing(self) -> None:
        """Lord Howe went from 02:00 to 02:30 on 5 October 2025: cronsim alone begins at 03:30 here."""
        begin = datetime(2025, 10, 4, 14, tzinfo=UTC)
        schedule = read_schedule("*/10 3 * * *", "Australia/Lord_Howe")
        found = schedule.slots_between(begin, begin + timedelta(hours=6), 100)
        assert [slot.strftime("%H:%M") for slot in found] == [
            f"16:{minute:02}" for minute in range(0, 60, 10)
        ]


class TestWhatIsTaken:
    @pytest.mark.parametrize("alias", ALIASES)
    def test_aliases_are_their_five_fields(self, alias: str) -> None:
        named, written = read_schedule(alias.upper()), read_schedule(ALIASES[alias])
        assert named.next(BEGIN, 3) == written.next(BEGIN, 3)

    def test_a_slot_at_the_moment_itself_is_over(self) -> None:
        hourly = read_schedule("@hourly")
        assert hourly.next(BEGIN, 1) == [BEGIN + timedelta(hours=1)]
        assert hourly.next(BEGIN - timedelta(microseconds=1), 1) == [BEGIN]
        assert hourly.slots_between(BEGIN - MINUTE, BEGIN, 5) == [BEGIN]

    def test_only_so_many_are_listed(self) -> None:
        assert len(read_schedule("* * * * *").slots_between(BEGIN, END, 7)) == 7

    def test_leap_days_and_last_days(self) -> None:
        assert [slot.year for slot in read_schedule("0 0 29 2 *").next(BEGIN, 2)] == [2028, 2032]
        assert [slot.day for slot in read_schedule("0 0 L * *").next(BEGIN, 3)] == [31, 28, 31]

    @pytest.mark.parametrize(
        ("expression", "words"),
        [
            ("0 2 * * *", "At 02:00 every day"),
            ("*/5 * * * *", "Every fifth minute of every hour"),
            ("@daily", "At 00:00 every day"),
        ],
    )
    def test_words(self, expression: str, words: str) -> None:
        assert read_schedule(expression).words == words


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("expression", "said"),
        [
            ("61 * * * *", "the field minute is '61', allowed is 0 to 59"),
            ("0 24 * * *", "the field hour is '24', allowed is 0 to 23"),
            ("0 0 32 * *", "the field day of the month is '32', allowed is 1 to 31"),
            ("0 0 * FOO *", "the field month is 'FOO', allowed is 1 to 12 or JAN to DEC"),
            ("0 0 * * 8", "the field day of the week is '8', allowed is 0 to 7"),
            ("5-2 25 * * *", "the field minute is '5-2', .*the field hour is '25'"),
            ("*/0 * * * *", r"the field minute is '\*/0'"),
            ("0 0 30 2 *", "the month '2' never has the day '30'"),
            ("0 0 * *", "has 4 fields, it needs 5"),
            ("0 0 0 * * *", "has 6 fields: seconds are not supported"),
            ("@reboot", "'@reboot' has no slots"),
            ("@dayly", "'@dayly' is unknown; known are @yearly"),
            ("", "a cron expression is a text"),
            (None, "a cron expression is a text"),
            ("1," * 150 + "1 * * * *", "at most 200 characters"),
        ],
    )  # fmt: skip
    def test_nonsense_is_refused_with_its_place(self, expression: object, said: str) -> None:
        with pytest.raises(BadSchedule, match=said):
            read_schedule(expression)

    @pytest.mark.parametrize(
        ("zone", "said"),
        [
            ("Europe/Pariss", "did you mean 'Europe/Paris'"),
            ("../etc/passwd", "is not the name of a time zone"),
            ("", "is not the name of a time zone"),
            (None, "is not the name of a time zone"),
        ],
    )
    def test_an_unknown_zone_is_refused_with_a_near_one(self, zone: object, said: str) -> None:
        with pytest.raises(BadSchedule, match=said):
            read_schedule("0 0 * * *", zone)

    def test_every_fault_is_told_at_once(self) -> None:
        with pytest.raises(BadSchedule, match=r"zone 'Nowhere' .*; cron expression '99"):
            read_schedule("99 * * * *", "Nowhere")

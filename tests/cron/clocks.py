"""What clocks of some zones show in each minute of two years, and the slots that follow from it.

Knows no cronsim.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import islice
from zoneinfo import ZoneInfo

BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
END = datetime(2027, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
MINUTES = (END - BEGIN) // MINUTE
# A gap and a fold of an hour, of half an hour, at midnight, for a month, and none.
ZONES = (
    "UTC",
    "Europe/Paris",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Africa/Casablanca",
    "Asia/Kolkata",
    "Africa/Cairo",
)
# A clock's time is counted in minutes from two days before, as clocks west of Greenwich are behind.
_FIRST_DATE = date(2024, 12, 30)
_DATES = [_FIRST_DATE + timedelta(days=number) for number in range(735)]
_DAY = 24 * 60


@dataclass(frozen=True)
class Stretch:
    """Minutes, from `begin` to before `end`, in which a clock was not changed;
    `shown` is what it shows first.
    """

    begin: int
    end: int
    shown: int


@dataclass(frozen=True)
class Field:
    """A field of an expression, and the values that it stands for."""

    text: str
    values: frozenset[int]

    @property
    def has_star(self) -> bool:
        """Whether it begins with a star."""
        return self.text.startswith("*")


@dataclass(frozen=True)
class Fields:
    """A whole expression."""

    minute: Field
    hour: Field
    day: Field
    month: Field
    weekday: Field

    @property
    def is_fixed(self) -> bool:
        """Whether its minute and hour are."""
        return not (self.minute.has_star or self.hour.has_star)

    def __str__(self) -> str:
        fields = (self.minute, self.hour, self.day, self.month, self.weekday)
        return " ".join(field.text for field in fields)


@cache
def stretches(zone: str) -> list[Stretch]:
    """The two years in a zone, minute by minute."""
    place = ZoneInfo(zone)
    found: list[Stretch] = []
    for minute in _candidates(place):
        clock = (BEGIN + minute * MINUTE).astimezone(place).replace(tzinfo=None)
        shown = (clock - datetime.combine(_FIRST_DATE, datetime.min.time())) // MINUTE
        if found and found[-1].shown + minute - found[-1].begin == shown:
            continue
        if found:
            found[-1] = Stretch(found[-1].begin, minute, found[-1].shown)
        found.append(Stretch(minute, MINUTES, shown))
    return found


def _candidates(place: ZoneInfo) -> Iterator[int]:
    """The minutes in which a clock may have been changed:
    those of each hour that begins and ends otherwise.
    """
    offset = (BEGIN - MINUTE * 60).astimezone(place).utcoffset()
    for hour in range(0, MINUTES, 60):
        later = (BEGIN + (hour + 59) * MINUTE).astimezone(place).utcoffset()
        yield from range(hour, hour + 60) if later != offset else (hour,)
        offset = later


@dataclass(frozen=True)
class Slots:
    """The slots of two years, as minutes. `marks` has a byte for each minute: 1 for a slot, else 0."""

    marks: bytes

    def between(self, after: int, until: int = MINUTES - 1, most: int = MINUTES) -> list[int]:
        """The first `most` slots after `after` and up to `until`, inclusive."""
        return list(islice(self._after(after, until + 1), most))

    def _after(self, at: int, end: int) -> Iterator[int]:
        while (at := self.marks.find(1, at + 1, end)) >= 0:
            yield at


def expected(fields: Fields, zone: str) -> Slots:
    """The minutes that are slots."""
    shown = _shown(fields)
    runs = bytearray(MINUTES)
    seen = stretches(zone)[0].shown
    for stretch in stretches(zone):
        last = stretch.shown + stretch.end - stretch.begin
        now = bytearray(shown[stretch.shown : last])
        if fields.is_fixed:
            again = min(max(0, seen - stretch.shown), len(now))
            now[:again] = bytes(again)
            if any(shown[seen : stretch.shown]):
                now[0] = 1
        runs[stretch.begin : stretch.end] = now
        seen = max(seen, last)
    return Slots(bytes(runs))


def _shown(fields: Fields) -> bytes:
    """For each minute that a clock could show, whether the expression means it."""
    day = bytes(
        minute in fields.minute.values and hour in fields.hour.values
        for hour in range(24)
        for minute in range(60)
    )
    return b"".join(day if _is_meant(fields, at) else bytes(_DAY) for at in _DATES)


def _is_meant(fields: Fields, at: date) -> bool:
    if at.month not in fields.month.values:
        return False
    is_day = at.day in fields.day.values
    is_weekday = not fields.weekday.values.isdisjoint(
        {at.isoweekday(), at.isoweekday() % 7}
    )  # Sunday is 7 and 0
    if fields.day.has_star or fields.weekday.has_star:
        return is_day and is_weekday
    return is_day or is_weekday

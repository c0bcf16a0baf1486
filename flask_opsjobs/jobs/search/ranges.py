"""Parses the ranges that a search has: of times, of durations, of sizes and of whole numbers. Pure.

A time is one of a time zone: `2026-11-27` is a day there. A time that its clocks skip means the moment at
which they jump. Of one that they show twice, a range begins with the first and ends with the second.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from .terms import BadFilter

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_SIZES = {"kB": 1e3, "MB": 1e6, "GB": 1e9}
_AGO = re.compile(r"([<>])([0-9]{1,5})([smhd])")
_FROM_NOW = re.compile(r"([+-])([0-9]{1,5})([smhd])")
_CLOCK = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[T ]([0-9]{2}:[0-9]{2}(:[0-9]{2})?)(Z|[+-][0-9]{2}:[0-9]{2})?)?"
)
_DAYS = {"yesterday": -1, "today": 0, "tomorrow": 1}
_COMPARED = re.compile(r"([<>]=?)(.+)")
_NUMBER = re.compile(r"([0-9]{1,8}(?:\.[0-9]{1,3})?)([A-Za-z]*)")
_LAST_PRIORITY = 9
_FIRST_YEAR, _LAST_YEAR = 1970, 2199
_NO_TIME, _DAY = timedelta(0), timedelta(days=1)
_MINUTE, _SECOND = timedelta(minutes=1), timedelta(seconds=1)
_TIMES = "write <2h, >3d, 2026-11-27, 2026-11-27T14:30, -2h..now or 2026-11-27.. with s, m, h, d"


@dataclass(frozen=True)
class TimePoint:
    """A span from now; or a time on a clock, which lasts a day, a minute or a second; or a day near today."""

    span: timedelta | None = None
    clock: datetime | None = None
    days: int | None = None
    lasts: timedelta = _NO_TIME

    @property
    def is_to_come(self) -> bool:
        """Whether it is now or later, whatever the time is."""
        return self.span is not None and self.span >= _NO_TIME

    def find_begin(self, now: Any, zone: tzinfo) -> Any:
        """The moment at which it begins. `now` may be SQL, and so is then a span from it."""
        return self._find(now, zone, _NO_TIME, 0)

    def find_end(self, now: Any, zone: tzinfo) -> Any:
        """The moment after it."""
        return self._find(now, zone, self.lasts, 1)

    def _find(self, now: Any, zone: tzinfo, shift: timedelta, fold: int) -> Any:
        if self.span is not None:
            return now + self.span
        clock = self.dated(now, zone).clock
        assert clock is not None
        clock += shift
        if clock.tzinfo is not None:
            return clock.astimezone(UTC)
        times = _find_times(clock, zone)
        while times[1] < times[0]:  # skipped
            clock = clock.replace(second=0) + _MINUTE
            times = _find_times(clock, zone)
        return times[fold]

    def dated(self, now: Any, zone: tzinfo) -> TimePoint:
        """The same with its date, when it is a day near today."""
        if self.days is None:
            return self
        today = now.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0)
        clock = today.replace(tzinfo=None) + timedelta(days=self.days)
        return replace(self, days=None, clock=clock)

    def is_after(self, other: TimePoint) -> bool:
        """Whether it is later than another one. False when that depends on the time or the zone."""
        if self.span is not None and other.span is not None:
            return self.span > other.span
        if self.days is not None and other.days is not None:
            return self.days > other.days
        if self.clock is None or other.clock is None:
            return False
        are_alike = (self.clock.tzinfo is None) == (other.clock.tzinfo is None)
        return are_alike and self.clock > other.clock


def _find_times(clock: datetime, zone: tzinfo) -> tuple[datetime, datetime]:
    """The first and the second moment of a local time. The second is before the first when it is skipped."""
    there = clock.replace(tzinfo=zone)
    return there.astimezone(UTC), there.replace(fold=1).astimezone(UTC)


@dataclass(frozen=True)
class Moments:
    """A range of times, from `since` to before `until`; None is open. `text` is how it is written."""

    text: str
    since: TimePoint | None
    until: TimePoint | None

    def bounds(self, now: Any, zone: tzinfo) -> tuple[Any, Any]:
        """The first moment, and the first one after the range. None is open."""
        return (
            None if self.since is None else self.since.find_begin(now, zone),
            None if self.until is None else self.until.find_end(now, zone),
        )

    def dated(self, now: datetime, zone: tzinfo) -> Moments:
        """The same with the dates of its days near today."""
        since, until = (one and one.dated(now, zone) for one in (self.since, self.until))
        return replace(self, since=since, until=until)

    @property
    def needs_zone(self) -> bool:
        """Whether it means other moments in another time zone."""
        points = [point for point in (self.since, self.until) if point is not None]
        return any(
            point.days is not None or (point.clock is not None and point.clock.tzinfo is None)
            for point in points
        )

    @property
    def is_ago(self) -> bool:
        """Whether it is written as `<2h`: of times that may be in the future, it has those of the past."""
        return _AGO.fullmatch(self.text) is not None

    def __str__(self) -> str:
        return self.text


def read_moments(qualifier: str, value: str) -> Moments:
    """A range such as `<2h`, `2026-11-27`, `2026-11-27T08:00..` or `-2h..now`. Raises `BadFilter`."""
    text = value.strip()
    if ago := _AGO.fullmatch(text.replace(" ", "")):
        point = TimePoint(span=-timedelta(seconds=int(ago[2]) * _UNITS[ago[3]]))
        return Moments(ago[0], *((point, None) if ago[1] == "<" else (None, point)))
    if compared := _COMPARED.fullmatch(text):
        point = _read_point(qualifier, compared[2].strip())
        is_later, is_closed = compared[1][0] == ">", compared[1][1:] == "="
        if is_later and not is_closed:
            point = _after(point)
        elif not is_later and not is_closed:
            point = replace(point, lasts=_NO_TIME)
        return Moments(text, *((point, None) if is_later else (None, point)))
    first, dots, last = (part.strip() for part in text.partition(".."))
    if dots and not (first or last):
        raise BadFilter(qualifier, f"a range has an end; {_TIMES}")
    since = _read_point(qualifier, first) if first else None
    until = since if not dots else _read_point(qualifier, last) if last else None
    if not dots and since is not None and since.span is not None:
        raise BadFilter(qualifier, f"{text[:40]!r} is one moment; write a range such as -2h..now")
    if dots and since and until and since.is_after(until):
        raise BadFilter(qualifier, f"{text[:60]!r} ends before it begins")
    return Moments(text, since, until)


def _read_point(qualifier: str, text: str) -> TimePoint:
    if text == "now":
        return TimePoint(span=_NO_TIME)
    if text in _DAYS:
        return TimePoint(days=_DAYS[text], lasts=_DAY)
    if from_now := _FROM_NOW.fullmatch(text):
        seconds = int(from_now[2]) * _UNITS[from_now[3]]
        return TimePoint(span=timedelta(seconds=seconds if from_now[1] == "+" else -seconds))
    clock = _CLOCK.fullmatch(text)
    try:
        found = datetime.fromisoformat(text) if clock else None
    except ValueError:  # such as the 31st of April
        found = None
    if clock is None or found is None:
        raise BadFilter(qualifier, f"{text[:40]!r} is not a time or a duration; {_TIMES}")
    if not _FIRST_YEAR <= found.year <= _LAST_YEAR:
        years = f"{_FIRST_YEAR} to {_LAST_YEAR}"
        raise BadFilter(qualifier, f"{text[:40]!r} is not in the years {years}")
    return TimePoint(clock=found, lasts=_SECOND if clock[3] else _MINUTE if clock[2] else _DAY)


def _after(point: TimePoint) -> TimePoint:
    """What comes right after a point."""
    if point.days is not None:
        return replace(point, days=point.days + 1)
    return point if point.clock is None else replace(point, clock=point.clock + point.lasts)


def read_zone(name: str) -> tzinfo | None:
    """The time zone of this name, such as `Europe/Berlin`; None when there is none."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_+/-]{0,60}", name) or name in ("localtime", "Factory"):
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


@dataclass(frozen=True)
class Amounts:
    """A range of numbers: of seconds, of bytes, or of whole numbers. None is open.

    `is_above` and `is_below` leave out the bound itself. `text` is how it is written.
    """

    text: str
    low: float | None = None
    high: float | None = None
    is_above: bool = False
    is_below: bool = False

    def __str__(self) -> str:
        return self.text


def read_duration(qualifier: str, value: str) -> Amounts:
    """A range of seconds, such as `>5s`, `<=1.5h` or `5s..1m`. Raises `BadFilter`."""
    return _read_amounts(qualifier, value, _UNITS, ">5s, <=1.5m or 5s..1h, with ms, s, m, h or d")


def read_size(qualifier: str, value: str) -> Amounts:
    """A range of bytes, such as `>500MB`. Raises `BadFilter`."""
    return _read_amounts(qualifier, value, _SIZES, ">500MB or 1.5GB.., with kB, MB or GB")


def read_number(qualifier: str, value: str) -> Amounts:
    """A range of whole numbers, such as `3`, `>=3` or `3..5`. Raises `BadFilter`."""
    return _read_amounts(qualifier, value, {"": 1.0}, "3, >=3 or 3..5")


def read_priority(qualifier: str, value: str) -> Amounts:
    """A range of priorities, such as `1`, `<5` or `0..2`. Raises `BadFilter`."""
    found = read_number(qualifier, value)
    if max(found.low or 0, found.high or 0) > _LAST_PRIORITY:
        problem = f"{value[:40]!r} is no priority; they are 0 (first) to {_LAST_PRIORITY}"
        raise BadFilter(qualifier, problem)
    return found


def _read_amounts(qualifier: str, value: str, units: dict[str, float], examples: str) -> Amounts:
    text = value.replace(" ", "")

    def read(number: str) -> float:
        found = _NUMBER.fullmatch(number)
        if found is None or found[2] not in units or ("" in units and "." in found[1]):
            raise BadFilter(qualifier, f"cannot read {text[:40]!r}; write {examples}")
        return float(found[1]) * units[found[2]]

    if compared := _COMPARED.fullmatch(text):
        bound, is_open = read(compared[2]), compared[1][1:] != "="
        if compared[1][0] == ">":
            return Amounts(text, low=bound, is_above=is_open)
        return Amounts(text, high=bound, is_below=is_open)
    first, dots, last = text.partition("..")
    if (not dots and "" not in units) or not (first or last):
        raise BadFilter(qualifier, f"{text[:40]!r} is no range; write {examples}")
    low = read(first) if first else None
    high = low if not dots else read(last) if last else None
    if low is not None and high is not None and low > high:
        raise BadFilter(qualifier, f"{text[:40]!r} ends before it begins")
    return Amounts(text, low, high)

"""Draws cron slots as SVG: a strip of the newest, and a calendar of eight weeks, each with a description."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from ...cron.lifecycle import RESULTS

# In units of the drawing.
SIDE = 12
_STEP, _COLUMN, _ROW = 15, 34, 22
_LEFT, _TOP = 48, 28
_WEEKS = 8
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# A day with several slots shows the worst of their results.
_WORST_FIRST = ("missed", "late", "skipped_overlap", "queued_behind", "paused", "manual", "ran")
_SHAPES = {"skipped_overlap": "skipped", "queued_behind": "behind"}


@dataclass(frozen=True)
class Drawn:
    """A row of the run history: one slot, or `count` slots with the same result from `first` to `last`."""

    result: str
    first: datetime
    last: datetime
    count: int = 1


@dataclass(frozen=True)
class Mark:
    """The mark of one slot, or of one day: its position, shape, status and text."""

    x: int
    y: int
    shape: str
    status: str
    title: str


@dataclass(frozen=True)
class Label:
    """A text beside the marks, at its position."""

    x: int
    y: int
    text: str


@dataclass(frozen=True)
class Picture:
    """A drawing; `says` describes all of it for screen readers."""

    width: int
    height: int
    says: str
    marks: Sequence[Mark]
    labels: Sequence[Label] = ()


def shape_of(result: str) -> str:
    """The name of a result's symbol in the sprite, without `g-`."""
    return _SHAPES.get(result, result)


def make_strip(rows: Iterable[Drawn], most: int = 20) -> Picture:
    """The newest `most` rows as marks, the newest at the right. `rows` are given newest first."""
    shown = list(rows)[:most][::-1]
    marks = [
        Mark(number * _STEP, 0, shape_of(row.result), row.result, _title(row))
        for number, row in enumerate(shown)
    ]
    return Picture(most * _STEP - (_STEP - SIDE), SIDE, _summary(shown), marks)


def make_calendar(rows: Iterable[Drawn], today: date, zone: ZoneInfo) -> Picture:
    """The slots of eight weeks up to the week of `today`, by their day in `zone`."""
    first = today - timedelta(days=today.weekday(), weeks=_WEEKS - 1)
    shown = [row for row in rows if row.last.astimezone(zone).date() >= first]
    days = _by_day(shown, first, today, zone)
    marks = [_mark_of_day(day, results, first) for day, results in sorted(days.items())]
    weeks = [first + timedelta(weeks=number) for number in range(0, _WEEKS, 2)]
    labels = [
        *(Label(0, _TOP + 10 + number * _ROW, name) for number, name in enumerate(_DAYS)),
        *(Label(_position(week, first)[0], SIDE, _day(week)) for week in weeks),
    ]
    width = _LEFT + (_WEEKS - 1) * _COLUMN + SIDE + 14
    return Picture(width, _TOP + 6 * _ROW + SIDE + 12, _summary(shown), marks, labels)


def _by_day(
    rows: Iterable[Drawn], first: date, today: date, zone: ZoneInfo
) -> dict[date, Counter[str]]:
    """The number of slots by day and result.

    For a row of many slots over several days only its ends are known, so each of its days counts one.
    """
    days: dict[date, Counter[str]] = {}
    for row in rows:
        begin, end = (moment.astimezone(zone).date() for moment in (row.first, row.last))
        span = (end - begin).days
        for offset in range(span + 1):
            day = begin + timedelta(days=offset)
            if first <= day <= today:
                days.setdefault(day, Counter())[row.result] += row.count if span == 0 else 1
    return days


def _mark_of_day(day: date, results: Counter[str], first: date) -> Mark:
    worst = next(result for result in _WORST_FIRST if result in results)
    x, y = _position(day, first)
    summary = ", ".join(
        _counted(result, results[result], results.total()) for result in _ordered(results)
    )
    return Mark(x, y, shape_of(worst), worst, f"{_day(day)}: {summary}")


def _position(day: date, first: date) -> tuple[int, int]:
    week, number = divmod((day - first).days, 7)
    return _LEFT + week * _COLUMN, _TOP + number * _ROW


def _title(row: Drawn) -> str:
    at = f"{row.first:%Y-%m-%d %H:%M} UTC"
    if row.count == 1:
        return f"{at}: {RESULTS[row.result].word}"
    return f"{row.count} from {at} to {row.last:%Y-%m-%d %H:%M} UTC: {RESULTS[row.result].word}"


def _summary(rows: Sequence[Drawn]) -> str:
    counted: Counter[str] = Counter()
    for row in rows:
        counted[row.result] += row.count
    if not counted:
        return "No slots yet"
    parts = ", ".join(f"{counted[result]} {RESULTS[result].word}" for result in _ordered(counted))
    noun = "slot" if counted.total() == 1 else "slots"
    return f"{counted.total()} {noun}: {parts}"


def _ordered(results: Counter[str]) -> list[str]:
    """The results that occur, in the order of `RESULTS`."""
    return [result for result in RESULTS if result in results]


def _counted(result: str, number: int, total: int) -> str:
    word = RESULTS[result].word
    return word if total == 1 else f"{number} {word}"


def _day(day: date) -> str:
    return f"{day.day} {_MONTHS[day.month - 1]}"

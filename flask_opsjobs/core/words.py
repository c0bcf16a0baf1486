"""Writes numbers, moments and durations in English words."""

from __future__ import annotations

import re
import reprlib
from datetime import UTC, datetime, timedelta

_STEPS = ((60, "s"), (3600, "min"), (48 * 3600, "h"), (None, "d"))
# What differs between two errors of one kind.
_VARIABLE = re.compile(r"""'[^']*'|"[^"]*"|\d+(?:[.,:]\d+)*""")
_VALUES = reprlib.Repr()
_VALUES.maxstring = _VALUES.maxlong = _VALUES.maxother = 80
_SIZES = {"s": 1, "min": 60, "h": 3600, "d": 86400}


def counted(number: int, noun: str, plural: str | None = None, *, more: str = "") -> str:
    """A number with its noun: `1 job`, `1,204 jobs`, `2 lost deliveries`; with `more="+"` `10,000+ jobs`."""
    is_one = number == 1 and not more
    return f"{number:,}{more} {noun if is_one else plural or noun + 's'}"


def agree(number: int, one: str, many: str) -> str:
    """The form of a verb that fits the number: `is` for 1, `are` for 0 or 3."""
    return one if number == 1 else many


def show_value(value: object) -> str:
    """A value that an error message names, as Python writes it, without the middle of a long one."""
    return _VALUES.repr(value)


def moment(value: datetime) -> str:
    """A time to the second: `2026-11-25 21:04:07 UTC`."""
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def span(seconds: float) -> str:
    """A duration in its largest unit: `9 s`, `36 min`, `5 h`, `3 d`."""
    seconds = max(0.0, seconds)
    unit = next(unit for limit, unit in _STEPS if limit is None or seconds < limit)
    return f"{int(seconds // _SIZES[unit])} {unit}"


def short_duration(seconds: float) -> str:
    """A duration as short as its size allows: `0.4 ms`, `40 ms`, `2.1 s`, `12 min`."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.2g} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"
    if seconds < 100:
        is_whole = seconds == int(seconds) or seconds >= 10
        return f"{seconds:.0f} s" if is_whole else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def took(seconds: float | None) -> str:
    """A measured duration: `0.4 ms`, `30.0 s`, `24 min 7 s`, `2 h 5 min`, `3 d 4 h`; empty for None."""
    if seconds is None:
        return ""
    seconds = max(0.0, seconds)
    if seconds < 1:
        return short_duration(seconds)
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def exact_span(declared: timedelta) -> str:
    """A declared duration, of which nothing is rounded: `1.5 s`, `1 h 30 min`, `30 d`."""
    hours, seconds = divmod(declared.seconds, 3600)
    seconds_left = seconds % 60 + declared.microseconds / 1_000_000
    parts = ((declared.days, "d"), (hours, "h"), (seconds // 60, "min"), (seconds_left, "s"))
    return " ".join(f"{number:g} {unit}" for number, unit in parts if number)


def without_variables(error: str) -> str:
    """An error with an ellipsis for each number and each quoted text, so that equal ones can be counted."""
    return _VARIABLE.sub("…", error)

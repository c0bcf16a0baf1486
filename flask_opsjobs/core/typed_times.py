"""Reads the times and spans that people type: `2h`, `2026-11-26`, `2026-11-26T09:00`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_SPAN = re.compile(r"([1-9][0-9]{0,4})([smhd])")


def read_span(text: str) -> timedelta | None:
    """A span such as `30m`, `2h` or `3d`; None for any other text.

    >>> read_span("2h"), read_span("2 hours")
    (datetime.timedelta(seconds=7200), None)
    """
    found = _SPAN.fullmatch(text)
    return None if found is None else timedelta(**{_UNITS[found[2]]: int(found[1])})


def read_moment_or_day(text: str) -> datetime | None:
    """A time or a day in ISO 8601, in UTC unless it has an offset; None for any other text.

    >>> read_moment_or_day("2026-11-26 09:00")
    datetime.datetime(2026, 11, 26, 9, 0, tzinfo=datetime.timezone.utc)
    """
    try:
        found = datetime.fromisoformat(text)
        return found.replace(tzinfo=found.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return None

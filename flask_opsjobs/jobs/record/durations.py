"""Reads durations that hosts give: seconds or a `timedelta`, at most a hundred years."""

from __future__ import annotations

from datetime import timedelta

LONGEST = timedelta(days=36_500)
_MOST_SECONDS = LONGEST.total_seconds()


def seconds_of(duration: object) -> float | None:
    """The duration in seconds; None when the value is not a duration from 0 to a hundred years."""
    if isinstance(duration, timedelta):
        duration = duration.total_seconds()
    if isinstance(duration, bool) or not isinstance(duration, int | float):
        return None
    # The comparison refuses NaN, and integers that are too large for a float.
    return float(duration) if 0 <= duration <= _MOST_SECONDS else None


def is_span(value: object) -> bool:
    """Whether the value is a `timedelta` above 0 and at most a hundred years long."""
    return isinstance(value, timedelta) and timedelta(0) < value <= LONGEST

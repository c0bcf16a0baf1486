"""Reads durations as hosts write them: seconds or a `timedelta`, at most a hundred years."""

from __future__ import annotations

from datetime import timedelta

LONGEST = timedelta(days=36_500)
_MOST_SECONDS = LONGEST.total_seconds()


def seconds_of(wish: object) -> float | None:
    """A wish in seconds; None when it is no duration from 0 to a hundred years."""
    if isinstance(wish, timedelta):
        wish = wish.total_seconds()
    if isinstance(wish, bool) or not isinstance(wish, int | float):
        return None
    # Neither NaN nor an integer beyond all floats passes the comparison.
    return float(wish) if 0 <= wish <= _MOST_SECONDS else None


def is_span(value: object) -> bool:
    """Whether it is a `timedelta` above 0 and not longer than a hundred years."""
    return isinstance(value, timedelta) and timedelta(0) < value <= LONGEST

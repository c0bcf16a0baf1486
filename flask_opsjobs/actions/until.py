"""Reads until when something shall hold: a time, or a span from now."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from ..core.typed_times import read_span
from ..core.words import show_value
from .domain import read_moment


def read_until(value: Any, longest: timedelta | None = None) -> str:
    """A span such as `2h`, or a time as `read_moment` gives it, for `find_until`.

    Raises `ValueError` for anything else, and for a span over `longest`.
    """
    text = value.strip() if isinstance(value, str) else ""
    span = read_span(text)
    if span is not None and (longest is None or span <= longest):
        return text
    moment = None if span is not None else read_moment(value)
    if moment is not None:
        return moment
    bound = "" if longest is None else f", and at most {longest.days} days from now"
    raise ValueError(
        "until is a span such as 30m, 2h or 3d, or a time such as 2026-11-26T09:00, in UTC unless it has an "
        f"offset{bound}; got {show_value(value)}"
    )


def find_until(asked: str, now: datetime) -> datetime:
    """The time that `read_until` has read. A span begins now."""
    span = read_span(asked)
    return datetime.fromisoformat(asked) if span is None else now + span

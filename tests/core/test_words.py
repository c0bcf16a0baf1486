"""Numbers, moments and durations as people read them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from flask_opsjobs.core.words import agree, counted, moment, short_duration, span, took


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (counted(0, "job"), "0 jobs"),
        (counted(1, "job"), "1 job"),
        (counted(1204, "job"), "1,204 jobs"),
        (counted(1, "job", more="+"), "1+ jobs"),
        (counted(2, "lost delivery", "lost deliveries"), "2 lost deliveries"),
        (agree(1, "waits", "wait"), "waits"),
        (agree(0, "waits", "wait"), "wait"),
        (
            moment(datetime(2026, 11, 25, 1, 2, 3, 999, timezone(timedelta(hours=2)))),
            "2026-11-24 23:02:03 UTC",
        ),
        (span(-1), "0 s"),
        (span(59.9), "59 s"),
        (span(3599), "59 min"),
        (span(47 * 3600), "47 h"),
        (span(48 * 3600), "2 d"),
        (took(None), ""),
        (took(0.00056), "0.56 ms"),
        (took(0.0144), "14 ms"),
        (took(0.9997), "1.0 s"),
        (took(30), "30.0 s"),
        (took(1447), "24 min 7 s"),
        (took(7500), "2 h 5 min"),
        (took(273_600), "3 d 4 h"),
    ],
)
def test_words(made: str, text: str) -> None:
    assert made == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0004, "0.4 ms"),
        (0.0123, "12 ms"),
        (0.4, "400 ms"),
        (0.99999, "1.0 s"),
        (2.14, "2.1 s"),
        (30, "30 s"),
        (720, "12 min"),
        (14_400, "4 h"),
    ],
)
def test_durations_are_short(value: float, text: str) -> None:
    assert short_duration(value) == text

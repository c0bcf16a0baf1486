"""Charts: what is not known is hatched and never drawn as zero, and the words say what the drawing shows."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flask_opsjobs.overview.pace_queries import Pace, PaceStep
from flask_opsjobs.web.app.chart import Chart
from flask_opsjobs.web.app.charts import (
    Scale,
    make_charts,
    rate_chart,
    short,
    wait_chart,
)

START = datetime(2026, 11, 24, 1, 14, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def pace(*steps: dict[str, Any], window: str = "hour", step: int = 1) -> Pace:
    """A pace of these steps, minutes apart."""
    each = timedelta(minutes=step)
    made = [PaceStep(START + number * each, **values) for number, values in enumerate(steps)]
    return Pace(window, each, tuple(made))


@dataclass(frozen=True)
class _SomeSearch:
    url: str

    def __call__(self, start: datetime, end: datetime) -> str:
        return self.url


def charts(found: Pace) -> dict[str, Chart]:
    return {chart.key: chart for chart in make_charts(found)}


KNOWN = {
    **dict.fromkeys(("failed", "canceled"), 0.0),
    **dict.fromkeys(("due", "waiting", "started"), 4),
    "finished": 10.0,
    "median": 0.5,
    "p95": 2.0,
    "wait": 0.1,
}


def test_a_steady_hour_is_one_line_and_no_hatching() -> None:
    found = charts(pace(*[KNOWN] * 60))
    chart = found["finished"]
    assert chart.trace.count("M") == 1
    assert chart.trace.startswith("M2.1 8l4.3 0")
    assert (chart.uncounted, chart.value, chart.says) == (
        [],
        "10",
        "finished a minute, as an hour ago",
    )
    assert chart.dot == (253.9, 8.0)
    assert found["failed"].bars == ""  # nothing failed: there is no bar, and yet it is known
    assert found["failed"].uncounted == []
    assert found["run-time"].value == "500 ms"
    assert "p95 2 s" in found["run-time"].says


def test_charts_are_kept_while_their_numbers_and_addresses_are_the_same() -> None:
    first, again = (make_charts(pace(*[KNOWN] * 60), _SomeSearch("/a")) for _ in range(2))
    assert again is first
    assert again[0].drawing is first[0].drawing
    assert again[0].series[0].cells is first[0].series[0].cells
    other = make_charts(pace(*[KNOWN] * 60), _SomeSearch("/b"))
    assert other[0].links[0].url == "/b"
    more = make_charts(pace(*[KNOWN] * 59, {**KNOWN, "finished": 11.0}), _SomeSearch("/a"))
    assert more[0].drawing != first[0].drawing
    assert [chart.drawing for chart in more[1:]] == [chart.drawing for chart in first[1:]]


def test_texts_and_addresses_are_escaped_in_a_drawing_and_in_a_table() -> None:
    bad = '<b>"\u202e'
    values = [1.0] * 60
    found = pace(*[KNOWN] * 60)
    drawn = rate_chart(found, "ended", "Ended", bad, values, find_jobs=_SomeSearch(f"/?a={bad}&b"))
    (series,) = drawn.series
    for written in (drawn.drawing, replace(series, title=bad, say=lambda _: bad).cells[0]):
        assert "<b>" not in written
        assert "\u202e" not in re.sub('href="[^"]*"', "", written)
        assert "/?a=&lt;b&gt;&#34;" in written
        assert "&amp;b" in written
        assert written.count('"') % 2 == 0


def test_what_nobody_counted_is_hatched_and_breaks_the_line() -> None:
    found = charts(pace(*[KNOWN] * 27, *[{}] * 2, *[KNOWN] * 31))
    for chart in found.values():
        assert chart.uncounted == [(115.2, 8.5)]
    assert found["finished"].trace.count("M") == 2
    assert found["finished"].area.count("Z") == 2
    assert "No figures from 01:41 to 01:43 UTC." in found["finished"].finding


def test_a_minute_in_which_nothing_ended_has_no_run_time_and_is_not_hatched() -> None:
    quiet = {**KNOWN, "finished": 0.0, "median": None, "p95": None}
    chart = charts(pace(KNOWN, quiet, KNOWN))["run-time"]
    assert chart.uncounted == []
    assert chart.trace.count("M") == 2


def test_nothing_was_ever_counted() -> None:
    for chart in charts(pace(*[{}] * 60)).values():
        assert (chart.value, chart.uncounted, chart.dot) == ("–", [(0.0, 256.0)], None)
        assert chart.trace == chart.area == chart.bars == ""
        assert "Nobody counted" in chart.finding


def test_a_change_is_said_with_its_direction() -> None:
    falling = [{**KNOWN, "finished": 600.0}] * 30 + [{**KNOWN, "finished": 372.0}] * 30
    chart = charts(pace(*falling))["finished"]
    assert chart.says == "finished a minute, 38 % below an hour ago"
    assert chart.finding.startswith(
        "Jobs that finished a minute over the last hour: 600 at first, 372 at the end"
    )
    rising = [{**KNOWN, "failed": 0.1}] * 30 + [{**KNOWN, "failed": 2.1}] * 30
    assert charts(pace(*rising))["failed"].says == "failed a minute, 0.1 an hour ago"


def test_lower_bounds_are_said() -> None:
    chart = charts(pace(*[{**KNOWN, "due": 100_000, "is_capped": True}] * 60))["due"]
    assert "at least" in chart.says
    assert "lower bounds" in chart.finding


def test_the_day_has_its_own_axis() -> None:
    chart = charts(pace(*[KNOWN] * 96, window="day", step=15))["finished"]
    *times, last = [label for *_, label in chart.ticks]
    assert [f"{time:%H:%M}" for time in times] == ["06:00", "12:00", "18:00"]
    assert last == "now"
    assert "as a day ago" in chart.says


@pytest.mark.parametrize(
    ("most", "top"),
    [(0, 2), (1, 1), (3, 4), (7, 8), (9, 10), (11, 20), (610, 800), (2304, 4000), (0.03, 0.04)],
)
def test_the_axis_ends_at_a_round_number(most: float, top: float) -> None:
    assert Scale.of([0.0, most]).top == pytest.approx(top)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.3, "0.3"),
        (2.14, "2.1"),
        (12.4, "12"),
        (1500, "1,500"),
        (24_000, "24 k"),
        (3_100_000, "3.1 M"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert short(value) == text


def _beside(now: list[float | None], before: list[float | None], name: str = "ended") -> Pace:
    """A pace of these numbers of ended jobs, and of the window before."""
    found, earlier = (pace(*[{name: value} for value in each]) for each in (now, before))
    return replace(found, before=earlier.steps)


@pytest.mark.parametrize(
    ("now", "before", "says"),
    [
        ([30.0] * 60, [10.0] * 60, "1,800 over the last hour, 200 % more than in the hour before."),
        ([9.0] * 60, [10.0] * 60, "540 over the last hour, 10 % fewer than in the hour before."),
        ([10.0] * 60, [10.0] * 60, "600 over the last hour, as in the hour before."),
        ([0.0] * 60, [10.0] * 60, "0 over the last hour, 600 in the hour before."),
        ([30.0, *[None] * 3, *[30.0] * 56], [10.0] * 60, "1,710 over the last hour, 200 % more"),
    ],
)
def test_a_window_says_how_many_more_it_has_than_the_one_before(
    now: list[float | None], before: list[float | None], says: str
) -> None:
    found = _beside(now, before)
    chart = rate_chart(found, "ended", "Ended", "ended a minute", found.values("ended"))
    assert f"ended a minute. {says}" in chart.says
    assert says in chart.finding
    assert chart.ghost
    assert [series.title for series in chart.series] == ["Ended", "Ended before"]


def test_a_window_before_of_which_little_is_known_is_not_compared() -> None:
    found = _beside([30.0] * 60, [*[None] * 30, *[10.0] * 30])
    chart = rate_chart(found, "ended", "Ended", "ended a minute", found.values("ended"))
    assert chart.says == "ended a minute, as an hour ago"
    assert chart.ghost


def test_waits_are_compared_by_their_mean() -> None:
    chart = wait_chart(_beside([2.0] * 60, [None, *[1.0] * 59], "wait"))
    assert "On average 2 s over the last hour, 100 % longer than in the hour before." in chart.says


def test_steps_with_jobs_are_links_and_tab_reaches_the_highest_of_each_twelfth() -> None:
    values: list[float | None] = [float(number % 5) for number in range(60)]
    values[7] = None
    chart = rate_chart(
        pace(*[KNOWN] * 60),
        "ended",
        "Ended",
        "ended a minute",
        values,
        find_jobs=lambda start, end: f"{start:%H:%M}..{end:%H:%M}",
    )
    (series,) = chart.series
    assert set(series.links) == {at for at, value in enumerate(values) if value}
    assert [at for at, link in series.links.items() if link.is_stop] == list(range(4, 60, 5))
    link = series.links[4]
    assert (link.url, link.says, link.at) == (
        "01:18..01:19",
        "4 ended",
        START + 4 * MINUTE,
    )
    assert (link.x, link.width) == (17.1, 4.3)

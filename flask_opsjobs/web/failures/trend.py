"""Draws how often a failure happened on the last day and in the last 30 days, with the deploys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from ...core.words import counted
from ...failures.queries import DAY, MONTH, QUARTER, DeployMark, Ends, floor
from ..app.chart import WIDTH, Chart
from ..app.charts import Flag, Scale, find_gaps, make_flags, short

_QUARTERS = DAY // QUARTER
_DAYS = MONTH // DAY
# Counting may be so far behind; what is later is not counted.
_MOST_LAG = timedelta(minutes=4)

# A chart, and the deploys in it.
FlaggedChart = tuple[Chart, Sequence[Flag]]


def begin_of_quarters(now: datetime) -> datetime:
    """Where the chart of the last day begins."""
    return floor(now, QUARTER) - (_QUARTERS - 1) * QUARTER


def begin_of_days(now: datetime) -> datetime:
    """Where the chart of the last 30 days begins."""
    return floor(now, DAY) - (_DAYS - 1) * DAY


def draw_day(
    failed: Mapping[datetime, int],
    ended: Mapping[datetime, Ends],
    marks: Sequence[DeployMark],
    counted_until: datetime | None,
    now: datetime,
) -> FlaggedChart:
    """The attempts that failed so in each quarter of an hour, over the jobs of the task that ended."""
    start = begin_of_quarters(now)
    steps = [start + number * QUARTER for number in range(_QUARTERS)]
    red = _known(failed, steps, counted_until, now)
    grey = [
        None if value is None else (ended[at].finished + ended[at].failed if at in ended else 0)
        for at, value in zip(steps, red, strict=True)
    ]
    number = sum(int(value or 0) for value in red)
    says = "failed" + ("; grey: jobs of the task that ended" if any(grey) else "")
    scale = Scale.of(red, grey)
    ticks = [
        (round((at - start) / DAY * WIDTH, 1), "start" if at == steps[0] else "middle", at)
        for at in (floor(start, DAY / 4) + DAY / 4 * each for each in range(5))
        if start <= at < steps[-_QUARTERS // 6]
    ]
    chart = Chart(
        "day",
        "Last day",
        f"{number:,}",
        says,
        _finding(number, "on the last day", marks, start),
        scale.grid(short),
        [*ticks, (WIDTH, "end", "now")],
        find_gaps(red),
        bars=scale.bars(red),
        context=scale.bars(grey),
    )
    return chart, make_flags(marks, start, DAY)


def draw_month(
    failed: Mapping[datetime, int], marks: Sequence[DeployMark], now: datetime
) -> FlaggedChart:
    """The attempts that failed so on each of the last 30 days, in UTC."""
    start = begin_of_days(now)
    days = [start + number * DAY for number in range(_DAYS)]
    values = [failed.get(day, 0) for day in days]
    number, today = sum(values), values[-1]
    says = (
        "failed, all of them today" if number == today > 0 else f"failed, {today:,} of them today"
    )
    scale = Scale.of(values)
    ticks = [
        (round(at * WIDTH / _DAYS, 1), "middle" if at else "start", f"{days[at]:%-d %b}")
        for at in range(0, _DAYS - 5, 10)
    ]
    chart = Chart(
        "month",
        "Last 30 days",
        f"{number:,}",
        says,
        _finding(number, "in the last 30 days", marks, start),
        scale.grid(short),
        [*ticks, (WIDTH, "end", "today")],
        (),
        bars=scale.bars(values),
    )
    return chart, make_flags(marks, start, MONTH)


def _known(
    found: Mapping[datetime, int],
    steps: Sequence[datetime],
    counted_until: datetime | None,
    now: datetime,
) -> list[float | None]:
    """The numbers of the steps; None for one of which nothing is counted yet, because counting is behind."""
    until = counted_until
    if until is not None and now - until < _MOST_LAG:
        until = now
    return [found.get(at, None if until is None or at >= until else 0) for at in steps]


def _finding(number: int, when: str, marks: Sequence[DeployMark], start: datetime) -> str:
    known = [mark for mark in marks if mark.at >= start]
    deploys = f" {counted(len(known), 'deploy')} in this time"
    newest = f", the newest is {known[0].version}" if known else ""
    return f"{counted(number, 'attempt')} failed {when}.{deploys}{newest}."

"""Computes what charts show: paths, labels, links, and a sentence that describes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import groupby, pairwise

from ...core.words import short_duration
from ...failures.queries import DeployMark
from ...overview.pace_queries import Pace, PaceStep
from .chart import BOTTOM, TOP, WIDTH, BarLink, Chart, Series, Values

_NICE = (1, 2, 4, 6, 8, 10)
_AXIS = {"hour": timedelta(minutes=15), "day": timedelta(hours=6), "month": timedelta(days=10)}
# A version at a flag takes about so much width; nearer flags go without.
_FLAG_WIDTH = 62.0
_LONGEST_VERSION = 12
# The least width of the bar below a line.
_FOOT = 4.0
# Tab reaches so many steps of a chart.
_MOST_STOPS = 12
# The width that a label needs; the last one before `now` needs more.
_LABEL, _LAST_LABEL = 26.0, 40.0
# A process keeps the charts of the last so many paces for each kind of page, 0.3 to 0.6 MB each. To draw them
# takes about a fifth of the time of a page, and open pages ask again before their numbers change. They have
# only numbers and addresses in them, and both are compared before charts are shown again.
KEPT = 8

# From when until when: the address of a search of the jobs in between. Equal ones give equal addresses.
FindJobs = Callable[[datetime, datetime], str]


@dataclass(frozen=True)
class Flag:
    """A deploy in a chart. `label` is empty where there is no room; `is_right`: it is near the right edge."""

    x: float
    version: str
    label: str
    is_right: bool
    url: str | None = None


@dataclass(frozen=True)
class ChartMark:
    """A deploy, or what an operator did. It lasts until `until`; None is a moment."""

    at: datetime
    says: str
    url: str | None
    until: datetime | None = None


@dataclass(frozen=True)
class Line:
    """What an operator did, in a chart: a line, and a bar below it for as long as it lasted."""

    x: float
    width: float
    mark: ChartMark


def place_deploys(
    marks: Sequence[DeployMark], start: datetime, window: timedelta, width: float
) -> list[tuple[float, DeployMark]]:
    """The deploys in a window of time, the newest first, each with its place in a drawing of this width."""
    newest_first = sorted(marks, key=lambda mark: mark.at, reverse=True)
    placed = (((mark.at - start) / window * width, mark) for mark in newest_first)
    return [(x, mark) for x, mark in placed if 0 <= x <= width]


def make_flags(
    marks: Sequence[DeployMark],
    start: datetime,
    window: timedelta,
    find_url: Callable[[str], str | None] = lambda _: None,
) -> Sequence[Flag]:
    """The deploys in the window, the newest first; a label only where there is room for it.

    `find_url` tells the address to which a version leads.
    """
    flags: list[Flag] = []
    room: float = WIDTH
    shown = place_deploys(marks, start, window, WIDTH)
    for number, (x, mark) in enumerate(shown):
        is_right = x > WIDTH - _FLAG_WIDTH
        # A label on the left must end where the next older flag stands.
        older = shown[number + 1][0] if number + 1 < len(shown) else 0.0
        has_room = older <= x - _FLAG_WIDTH and x <= room if is_right else x + _FLAG_WIDTH <= room
        label = _short_version(mark.version) if has_room else ""
        if has_room:
            room = x - _FLAG_WIDTH if is_right else x
        flags.append(Flag(round(x, 1), mark.version, label, is_right, find_url(mark.version)))
    return flags


def make_lines(marks: Sequence[ChartMark], start: datetime, window: timedelta) -> Sequence[Line]:
    """What operators did in the window, also what began before it."""
    lines = []
    for mark in marks:
        x, end = (
            min(max((moment - start) / window * WIDTH, 0.0), WIDTH)
            for moment in (mark.at, mark.until or mark.at)
        )
        lines.append(Line(round(x, 1), round(max(end - x, _FOOT), 1), mark))
    return lines


def _short_version(version: str) -> str:
    return version if len(version) <= _LONGEST_VERSION else f"{version[: _LONGEST_VERSION - 1]}…"


@lru_cache(maxsize=KEPT)
def make_charts(
    pace: Pace,
    find_finished: FindJobs | None = None,
    find_failed: FindJobs | None = None,
    find_canceled: FindJobs | None = None,
) -> Sequence[Chart]:
    """A chart for each state, run times and waits. Only the highest step of each twelfth is a link."""
    ends = [
        rate_chart(
            pace,
            state,
            title,
            f"{state} a minute",
            pace.values(state),
            bars=state == "failed",
            find_jobs=find,
        )
        for state, title, find in (
            ("finished", "Throughput", find_finished),
            ("failed", "Failures", find_failed),
            ("canceled", "Canceled", find_canceled),
        )
    ]
    return (
        *(replace(chart, series=[each.shortened() for each in chart.series]) for chart in ends),
        run_time_chart(pace),
        wait_chart(pace),
        depth_chart(pace, "waiting", "Waiting", "scheduled, deferred or retryable"),
        depth_chart(pace),
        depth_chart(pace, "started", "Running", "started"),
    )


def rate_chart(
    pace: Pace,
    key: str,
    title: str,
    what: str,
    values: Values,
    *,
    bars: bool = False,
    find_jobs: FindJobs | None = None,
) -> Chart:
    """A rate over the window of `pace`. A value of None means that nobody counted this step.

    The window before, if there is one, has its values under `key`. With `find_jobs` each step leads to a
    search of its jobs.
    """
    before = pace.values_before(key)
    first, last = _ends(values)
    finding = _finding(pace, f"Jobs that {what}", values, short)
    compared = _compare_sums(pace, values, before)
    scale = Scale.of(values, before)
    links = _link_steps(pace, values, what, find_jobs) if find_jobs else {}
    return Chart(
        key,
        title,
        _or_dash(last, short),
        f"{what}.{compared}" if compared else f"{what}{_trend(pace, first, last)}",
        finding + compared,
        scale.grid(short),
        _ticks(pace),
        find_gaps(values),
        area="" if bars else scale.area(values),
        trace="" if bars else scale.trace(values),
        bars=scale.bars(values) if bars else "",
        ghost=scale.trace(before),
        dot=None if bars else scale.dot(values),
        series=_list_series(
            what.partition(" ")[0].capitalize(),
            values,
            before,
            lambda value: f"{round(value * pace.minutes):,}",
            links,
        ),
    )


def wait_chart(pace: Pace) -> Chart:
    """The wait that 95 of 100 jobs did not exceed, from due to started."""
    values, before = pace.values("wait"), pace.values_before("wait")
    compared = _compare_means(pace, values, before, short_duration, ("longer", "shorter"))
    scale = Scale.of(values, before)
    return Chart(
        "wait",
        "Wait",
        _or_dash(_latest(values), short_duration),
        f"p95, from due to started{compared and '.' + compared}",
        _finding(pace, "The wait that 95 of 100 jobs did not exceed", values, short_duration)
        + compared,
        scale.grid(short_duration),
        _ticks(pace),
        find_gaps(pace.values("finished")),
        trace=scale.trace(values),
        ghost=scale.trace(before),
        dot=scale.dot(values),
        series=_list_series("Wait p95", values, before, short_duration),
    )


def run_time_chart(pace: Pace) -> Chart:
    """The median and the 95th percentile of run times."""
    medians, highs, before = pace.values("median"), pace.values("p95"), pace.values_before("median")
    last, high = _latest(medians), _latest(highs)
    compared = _compare_means(pace, medians, before, short_duration, ("longer", "shorter"))
    says = "median" if high is None else f"median, p95 {short_duration(high)}, dashed"
    finding = _finding(pace, "Median run time of jobs that ended", medians, short_duration)
    if high is not None:
        finding += f" 95 of 100 ran no longer than {short_duration(high)} at the end."
    scale = Scale.of(highs, before)
    return Chart(
        "run-time",
        "Run time",
        _or_dash(last, short_duration),
        f"{says}{compared and '.' + compared}",
        finding + compared,
        scale.grid(short_duration),
        _ticks(pace),
        # A step in which no job ended has no run time, but it was counted, so it is not a gap.
        find_gaps(pace.values("finished")),
        trace=scale.trace(medians),
        second=scale.trace(highs),
        ghost=scale.trace(before),
        dot=scale.dot(medians),
        series=[
            *_list_series("Median run", medians, before, short_duration),
            Series("p95", highs, short_duration),
        ],
    )


def depth_chart(
    pace: Pace, key: str = "due", title: str = "Depth", what: str = "due and not started"
) -> Chart:
    """The jobs that had not ended, as they were sampled under `key`."""
    values, before = pace.values(key), pace.values_before(key)
    is_capped = any(step.is_capped for step in pace.steps)
    compared = _compare_means(pace, values, before, short, ("more", "fewer"))
    first, last = values[0], _latest(values)
    then = "" if first is None else f", {short(first)} {_AGO[pace.window]}"
    finding = _finding(pace, f"Jobs that were {what}", values, short)
    finding += " Of big backlogs these are lower bounds." if is_capped else ""
    what += ", at least" if is_capped else ""
    scale = Scale.of(values, before)
    return Chart(
        key,
        title,
        _or_dash(last, short),
        f"{what}.{compared}" if compared else what + then,
        finding + compared,
        scale.grid(short),
        _ticks(pace),
        find_gaps(values),
        area=scale.area(values),
        trace=scale.trace(values),
        ghost=scale.trace(before),
        dot=scale.dot(values),
        series=_list_series(key.capitalize(), values, before, _whole),
    )


def _list_series(
    title: str,
    values: Values,
    before: Values,
    say: Callable[[float], str],
    links: Mapping[int, BarLink] = {},
) -> list[Series]:
    """The values, and those of the window before if there is one."""
    earlier = [Series(f"{title} before", before, say, is_before=True)] if before else []
    return [Series(title, values, say, links), *earlier]


def find_stops(values: Values) -> set[int]:
    """The numbers of the highest steps of each twelfth that has any."""
    few = -(-len(values) // _MOST_STOPS)
    highest = {
        max(range(at, min(at + few, len(values))), key=lambda number: values[number] or 0)
        for at in range(0, len(values), few)
    }
    return {at for at in highest if values[at]}


def _link_steps(
    pace: Pace, values: Values, what: str, find_jobs: FindJobs
) -> Mapping[int, BarLink]:
    """A link for each step that has jobs, by its number."""
    wide, stops = WIDTH / len(values), find_stops(values)
    verb = what.partition(" ")[0]
    starts = [step.start for step in pace.steps]
    return {
        at: BarLink(
            round(at * wide, 1),
            round(wide, 1),
            _label(pace, starts[at]),
            f"{round(value * pace.minutes):,} {verb}",
            find_jobs(starts[at], starts[at] + pace.step),
            at in stops,
        )
        for at, value in enumerate(values)
        if value
    }


@dataclass(frozen=True)
class Scale:
    """The vertical axis from 0 to a round `top`, over `number` steps of equal width."""

    top: float
    number: int

    @classmethod
    def of(cls, values: Values, others: Values = ()) -> Scale:
        """The scale of `values` with the smallest round `top` that they and the others fit below."""
        most = max((value for value in (*values, *others) if value is not None), default=0.0)
        power = 1.0 if most >= 1 else 0.001
        while power * 10 < most:
            power *= 10
        top = next((nice * power for nice in _NICE if nice * power >= most), 10 * power)
        return cls(max(top, 0.002) if most else 2.0, max(1, len(values)))

    def grid(self, words: Callable[[float], str]) -> list[tuple[float, str]]:
        """Three grid lines as (y, label); the lowest has no label."""
        lines = ((0.0, ""), (self.top / 2, words(self.top / 2)), (self.top, words(self.top)))
        return [(self._y(value), label) for value, label in lines]

    def trace(self, values: Values) -> str:
        """A line through the known values, with a gap where values are None."""
        return "".join(
            f"M{self._line(part)}" + ("h1" if len(part) == 1 else "") for part in _parts(values)
        )

    def area(self, values: Values) -> str:
        """The area below that line."""
        return "".join(
            f"M{_n(self._x(part[0][0]))} {_n(BOTTOM)}L{self._line(part)}V{_n(BOTTOM)}Z"
            for part in _parts(values)
        )

    def bars(self, values: Values) -> str:
        """A bar for each value above 0."""
        wide = WIDTH / self.number * 0.7
        return "".join(
            f"M{_n(self._x(at) - wide / 2)} {_n(BOTTOM)}V{_n(self._y(value))}h{_n(wide)}V{_n(BOTTOM)}z"
            for part in _parts(values)
            for at, value in part
            if value
        )

    def dot(self, values: Values) -> tuple[float, float] | None:
        """The position of the last value; None when it is not known."""
        last = values[-1] if values else None
        return (
            None if last is None else (round(self._x(len(values) - 1), 1), round(self._y(last), 1))
        )

    def _line(self, part: Sequence[tuple[int, float]]) -> str:
        """The first point, and the way from each to the next, which takes fewer characters."""
        # Whole tenths: their differences are exact, and quick to write.
        points = [(round(self._x(at) * 10), round(self._y(value) * 10)) for at, value in part]
        ways = (((x - a) / 10, (y - b) / 10) for (a, b), (x, y) in pairwise(points))
        x, y = points[0]
        return f"{x / 10:g} {y / 10:g}" + "".join(f"l{x:g} {y:g}" for x, y in ways)

    def _x(self, at: int) -> float:
        return (at + 0.5) * WIDTH / self.number

    def _y(self, value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * min(1.0, value / self.top)


def _parts(values: Values) -> list[list[tuple[int, float]]]:
    """The runs of known values, each as (index, value) pairs."""
    grouped = groupby(enumerate(values), lambda pair: pair[1] is not None)
    return [
        [(at, value) for at, value in part if value is not None] for known, part in grouped if known
    ]


def find_gaps(values: Values) -> list[tuple[float, float]]:
    """The gaps without known values, as (left edge, width)."""
    wide = WIDTH / max(1, len(values))
    grouped = groupby(enumerate(values), lambda pair: pair[1] is None)
    gaps = [[at for at, _ in part] for is_gap, part in grouped if is_gap]
    return [(round(gap[0] * wide, 1), round(len(gap) * wide, 1)) for gap in gaps]


def _ticks(pace: Pace) -> list[tuple[float, str, datetime | str]]:
    """The labels below the plot, as (x, anchor, label): times of day, and `now` at the end."""
    every, first = _AXIS[pace.window], pace.steps[0].start
    span = pace.step * len(pace.steps)
    midnight = first.astimezone(UTC).replace(hour=0, minute=0)
    at = midnight + ((first - midnight) // every + 1) * every
    ticks: list[tuple[float, str, datetime | str]] = []
    while at < first + span:
        x = (at - first) / span * WIDTH
        if x <= WIDTH - _LAST_LABEL:
            ticks.append((round(x, 1), "start" if x < _LABEL / 2 else "middle", _label(pace, at)))
        at += every
    return [*ticks, (WIDTH, "end", "now")]


def _label(pace: Pace, at: datetime) -> datetime | str:
    """A time of day, which the reader's time zone changes, or a day in UTC."""
    return f"{at:%-d %b}" if pace.window == "month" else at


# --- in words

_OVER = {
    "hour": "over the last hour",
    "day": "over the last day",
    "month": "over the last 30 days",
}
_AGO = {"hour": "an hour ago", "day": "a day ago", "month": "30 days ago"}
_BEFORE = {
    "hour": "in the hour before",
    "day": "in the day before",
    "month": "in the 30 days before",
}
# A percentage of fewer jobs is misleading.
_FEW_JOBS = 20


def _compare_sums(pace: Pace, values: Values, before: Values) -> str:
    """How many jobs the window has, beside the window before; empty when too little of that one is known."""
    pairs = [
        (a, b) for a, b in zip(values, before, strict=False) if a is not None and b is not None
    ]
    if len(pairs) * 10 < len(values) * 9:
        return ""
    now, then = (sum(side) * pace.minutes for side in zip(*pairs, strict=True))
    change = _say_change(pace, round(now), round(then), _whole, ("more", "fewer"), _FEW_JOBS)
    known = sum(value or 0 for value in values) * pace.minutes
    return f" {_whole(round(known))} {_OVER[pace.window]}, {change}."


def _compare_means(
    pace: Pace, values: Values, before: Values, say: Callable[[float], str], words: tuple[str, str]
) -> str:
    """The mean of the window, beside that of the window before; empty when one of them is not known."""
    now, then = _mean(values), _mean(before)
    if now is None or then is None:
        return ""
    return (
        f" On average {say(now)} {_OVER[pace.window]}, {_say_change(pace, now, then, say, words)}."
    )


def _say_change(
    pace: Pace,
    now: float,
    then: float,
    say: Callable[[float], str],
    words: tuple[str, str],
    few: float = 0,
) -> str:
    """What changed from `then` to `now`, by one of the words: `4 % more than in the day before`."""
    past = _BEFORE[pace.window]
    if now == then:
        return f"as {past}"
    if min(now, then) <= few or not 0.1 < now / then < 10:
        return f"{say(then)} {past}"
    change = round((now / then - 1) * 100)
    if abs(change) < 5:
        return f"as {past}"
    return f"{abs(change)} % {words[change < 0]} than {past}"


def _finding(pace: Pace, what: str, values: Values, words: Callable[[float], str]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return f"{what} {_OVER[pace.window]}: not known. Nobody counted."
    ends = zip(("at first", "at the end"), _ends(values), strict=True)
    parts = [f"{words(mean)} {when}" for when, mean in ends if mean is not None]
    parts.append(f"from {words(min(known))} to {words(max(known))} in all")
    return f"{what} {_OVER[pace.window]}: {', '.join(parts)}.{_unwatched(pace.steps, values)}"


def _unwatched(steps: Sequence[PaceStep], values: Values) -> str:
    gaps = [
        [steps[at].start for at, _ in part]
        for is_gap, part in groupby(enumerate(values), lambda pair: pair[1] is None)
        if is_gap
    ]
    if not gaps:
        return ""
    longest = max(gaps, key=len)
    more = f", and {len(gaps) - 1} shorter gaps" if len(gaps) > 1 else ""
    return f" No figures from {longest[0]:%H:%M} to {_end(steps, longest[-1]):%H:%M} UTC{more}."


def _end(steps: Sequence[PaceStep], at: datetime) -> datetime:
    return at + (steps[1].start - steps[0].start if len(steps) > 1 else timedelta())


def _ends(values: Values) -> tuple[float | None, float | None]:
    """The means of the first and the last twelfth of the values; None for a twelfth without known values."""
    few = max(1, len(values) // 12)
    return _mean(values[:few]), _mean(values[-few:])


def _mean(values: Values) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _latest(values: Values) -> float | None:
    return next((value for value in reversed(values) if value is not None), None)


def _trend(pace: Pace, first: float | None, last: float | None) -> str:
    if first is None or last is None:
        return ""
    then = _AGO[pace.window]
    # A percentage of small numbers is misleading.
    if min(first, last) < 1 or last >= 10 * first:
        return f", {short(first)} {then}"
    change = round((last / first - 1) * 100)
    if abs(change) < 5:
        return f", as {then}"
    return f", {abs(change)} % {'above' if change > 0 else 'below'} {then}"


def _or_dash(value: float | None, words: Callable[[float], str]) -> str:
    return "–" if value is None else words(value)


def short(value: float) -> str:
    """A number as short as its size allows: `0`, `0.3`, `12`, `1,500`, `24 k`, `3.1 M`."""
    if value >= 1e6:
        return f"{value / 1e6:.1f} M"
    if value >= 10_000:
        return f"{value / 1000:.0f} k"
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"


def _whole(value: float) -> str:
    """A whole number in full, any other one in short."""
    return f"{value:,.0f}" if value == int(value) else short(value)


def _n(value: float) -> str:
    return f"{value:z.1f}".removesuffix(".0")

"""Draws charts as SVG: paths, labels, and a sentence that describes what they show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

from ...failures.queries import DeployMark
from ...overview.pace_queries import Pace, PaceStep

# In units of the drawing. The labels are to the right of the plot and below it.
WIDTH, _TOP, _BOTTOM = 256.0, 8.0, 104.0
_NICE = (1, 2, 4, 6, 8, 10)
_AXIS = {"hour": timedelta(minutes=15), "day": timedelta(hours=6), "month": timedelta(days=10)}
# A version at a flag takes about so much width; nearer flags go without.
_FLAG_WIDTH = 62.0
_LONGEST_VERSION = 12
# The width that a label needs; the last one before `now` needs more.
_LABEL, _LAST_LABEL = 26.0, 40.0

Values = Sequence[float | None]


@dataclass(frozen=True)
class Flag:
    """A deploy in a chart. `label` is empty where there is no room; `is_right`: it is near the right edge."""

    x: float
    version: str
    label: str
    is_right: bool


@dataclass(frozen=True)
class Chart:
    """One chart. `value` and `says` are shown above it; `finding` describes it for screen readers.

    `context` are grey bars behind the others, `ghost` is a thin line of the same steps a day before.
    """

    key: str
    title: str
    value: str
    says: str
    finding: str
    grid: Sequence[tuple[float, str]]
    ticks: Sequence[tuple[float, str, datetime | str]]
    uncounted: Sequence[tuple[float, float]]
    area: str = ""
    trace: str = ""
    second: str = ""
    bars: str = ""
    context: str = ""
    ghost: str = ""
    dot: tuple[float, float] | None = None
    flags: Sequence[Flag] = ()


def place_deploys(
    marks: Sequence[DeployMark], start: datetime, window: timedelta, width: float
) -> list[tuple[float, DeployMark]]:
    """The deploys in a window of time, the newest first, each with its place in a drawing of this width."""
    newest_first = sorted(marks, key=lambda mark: mark.at, reverse=True)
    placed = (((mark.at - start) / window * width, mark) for mark in newest_first)
    return [(x, mark) for x, mark in placed if 0 <= x <= width]


def make_flags(marks: Sequence[DeployMark], start: datetime, window: timedelta) -> Sequence[Flag]:
    """The deploys in the window, the newest first; a label only where there is room for it."""
    flags: list[Flag] = []
    room = WIDTH
    shown = place_deploys(marks, start, window, WIDTH)
    for number, (x, mark) in enumerate(shown):
        is_right = x > WIDTH - _FLAG_WIDTH
        # A label on the left must end where the next older flag stands.
        older = shown[number + 1][0] if number + 1 < len(shown) else 0.0
        has_room = older <= x - _FLAG_WIDTH and x <= room if is_right else x + _FLAG_WIDTH <= room
        label = _short_version(mark.version) if has_room else ""
        if has_room:
            room = x - _FLAG_WIDTH if is_right else x
        flags.append(Flag(round(x, 1), mark.version, label, is_right))
    return flags


def _short_version(version: str) -> str:
    return version if len(version) <= _LONGEST_VERSION else f"{version[: _LONGEST_VERSION - 1]}…"


def make_charts(pace: Pace) -> list[Chart]:
    """Throughput, failures, run time and depth."""
    steps = pace.steps
    is_capped = any(step.is_capped for step in steps)
    return [
        rate_chart(
            pace, "throughput", "Throughput", "finished a minute", [s.finished for s in steps]
        ),
        rate_chart(
            pace, "failed", "Failures", "failed a minute", [s.failed for s in steps], bars=True
        ),
        run_time_chart(pace),
        _depth(pace, [step.due for step in steps], is_capped),
    ]


def rate_chart(
    pace: Pace,
    key: str,
    title: str,
    what: str,
    values: Values,
    *,
    bars: bool = False,
    ghost: Values = (),
) -> Chart:
    """A rate over the window of `pace`. A value of None means that nobody counted this step."""
    first, last = _ends(values)
    finding = _finding(pace, f"Jobs that {what}", values, short)
    scale = Scale.of([*values, *ghost])
    scale = Scale(scale.top, len(values))
    return Chart(
        key,
        title,
        _or_dash(last, short),
        f"{what}{_trend(pace, first, last)}",
        finding,
        scale.grid(short),
        _ticks(pace),
        find_gaps(values),
        area="" if bars else scale.area(values),
        trace="" if bars else scale.trace(values),
        bars=scale.bars(values) if bars else "",
        ghost=scale.trace(ghost),
        dot=None if bars else scale.dot(values),
    )


def wait_chart(pace: Pace) -> Chart:
    """The wait that 95 of 100 jobs did not exceed, from due to started."""
    values = [step.wait for step in pace.steps]
    scale = Scale.of(values)
    return Chart(
        "wait",
        "Wait",
        _or_dash(_latest(values), seconds),
        "p95, from due to started",
        _finding(pace, "The wait that 95 of 100 jobs did not exceed", values, seconds),
        scale.grid(seconds),
        _ticks(pace),
        find_gaps([step.finished for step in pace.steps]),
        trace=scale.trace(values),
        dot=scale.dot(values),
    )


def run_time_chart(pace: Pace) -> Chart:
    """The median and the 95th percentile of run times."""
    medians, highs = [s.median for s in pace.steps], [s.p95 for s in pace.steps]
    last, high = _latest(medians), _latest(highs)
    says = "median" if high is None else f"median, p95 {seconds(high)}, dashed"
    finding = _finding(pace, "Median run time of jobs that ended", medians, seconds)
    if high is not None:
        finding += f" 95 of 100 ran no longer than {seconds(high)} at the end."
    scale = Scale.of(highs)
    # A step in which no job ended has no run time, but it was counted, so it is not a gap.
    counted = [step.finished for step in pace.steps]
    return Chart(
        "run-time",
        "Run time",
        _or_dash(last, seconds),
        says,
        finding,
        scale.grid(seconds),
        _ticks(pace),
        find_gaps(counted),
        trace=scale.trace(medians),
        second=scale.trace(highs),
        dot=scale.dot(medians),
    )


def _depth(pace: Pace, values: Values, is_capped: bool) -> Chart:
    first, last = values[0], _latest(values)
    then = "" if first is None else f", {short(first)} {_AGO[pace.window]}"
    what = "due and not started" + (", at least" if is_capped else "")
    finding = _finding(pace, "Jobs that were due and had not started", values, short)
    finding += " Of big backlogs these are lower bounds." if is_capped else ""
    scale = Scale.of(values)
    return Chart(
        "depth",
        "Depth",
        _or_dash(last, short),
        what + then,
        finding,
        scale.grid(short),
        _ticks(pace),
        find_gaps(values),
        area=scale.area(values),
        trace=scale.trace(values),
        dot=scale.dot(values),
    )


@dataclass(frozen=True)
class Scale:
    """The vertical axis from 0 to a round `top`, over `number` steps of equal width."""

    top: float
    number: int

    @classmethod
    def of(cls, values: Values) -> Scale:
        """The scale with the smallest round `top` that all values fit below."""
        most = max((value for value in values if value is not None), default=0.0)
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
            "M" + "L".join(self._points(part)) + ("h1" if len(part) == 1 else "")
            for part in _parts(values)
        )

    def area(self, values: Values) -> str:
        """The area below that line."""
        return "".join(
            f"M{_n(self._x(part[0][0]))} {_n(_BOTTOM)}L{'L'.join(self._points(part))}"
            f"L{_n(self._x(part[-1][0]))} {_n(_BOTTOM)}Z"
            for part in _parts(values)
        )

    def bars(self, values: Values) -> str:
        """A bar for each value above 0."""
        wide = WIDTH / self.number * 0.7
        return "".join(
            f"M{_n(self._x(at) - wide / 2)} {_n(_BOTTOM)}V{_n(self._y(value))}h{_n(wide)}V{_n(_BOTTOM)}z"
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

    def _points(self, part: Sequence[tuple[int, float]]) -> list[str]:
        return [f"{_n(self._x(at))} {_n(self._y(value))}" for at, value in part]

    def _x(self, at: int) -> float:
        return (at + 0.5) * WIDTH / self.number

    def _y(self, value: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * min(1.0, value / self.top)


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
            label = f"{at:%-d %b}" if pace.window == "month" else at
            ticks.append((round(x, 1), "start" if x < _LABEL / 2 else "middle", label))
        at += every
    return [*ticks, (WIDTH, "end", "now")]


# --- in words

_OVER = {
    "hour": "over the last hour",
    "day": "over the last day",
    "month": "over the last 30 days",
}
_AGO = {"hour": "an hour ago", "day": "a day ago", "month": "30 days ago"}


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


def seconds(value: float) -> str:
    """A duration as short as its size allows: `40 ms`, `2.1 s`, `12 min`."""
    if value < 0.9995:
        return f"{value * 1000:.2g} ms" if value < 0.01 else f"{value * 1000:.0f} ms"
    if value < 100:
        return f"{value:.0f} s" if value == int(value) or value >= 10 else f"{value:.1f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.0f} h"


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")

"""Compares the outcomes of simulations: a table of their numbers, and a chart of their starts."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ...core.words import took
from ...limits.bucket import Shape
from ...limits.simulation import TrialOutcome
from ...limits.words import WAITS
from ..app.chart import WIDTH, Chart
from ..app.charts import Scale, short
from ..app.filters import number

_MOMENTS = (("First start", "first"), ("Half have started", "half"), ("Last start", "last"))
_SPANS = (
    ("Wait, median", "wait_median"),
    ("Wait, 95th percentile", "wait_p95"),
    ("Longest wait", "wait_most"),
)
# The number of moments at which the chart samples the starts: enough for a smooth line.
_POINTS = 128
_TICKS = 4
_ROUND = (
    *(0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30),
    *(60 * minutes for minutes in (1, 2, 5, 10, 15, 30)),
    *(3_600 * hours for hours in (1, 2, 3, 6, 12)),
    *(86_400 * days for days in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)),
)


@dataclass(frozen=True)
class Tried:
    """The outcome of the jobs with one shape of the limit; `name` is the head of its column."""

    name: str
    shape: Shape
    outcome: TrialOutcome


@dataclass(frozen=True)
class OutcomeRow:
    """A row of a table: its label, a cell for each shape, and the code of a reason, if it is about one."""

    label: str
    cells: Sequence[str]
    code: str = ""


def start_in_words(after: float | None) -> str:
    """A time since the beginning, in words: `at once`, `after 4 min 2 s`; a dash for None, which is never."""
    if after is None:
        return "–"
    return "at once" if after < 0.001 else f"after {took(round(after, 3))}"


def numbers(tried: Sequence[Tried]) -> list[OutcomeRow]:
    """The table rows that say when the jobs start and how long they wait."""
    outcomes = [each.outcome for each in tried]
    moments = [
        OutcomeRow(label, [start_in_words(getattr(o, key)) for o in outcomes])
        for label, key in _MOMENTS
    ]
    ended = OutcomeRow(
        "All have ended", [start_in_words(o.ended) if o.starts else "–" for o in outcomes]
    )
    spans = [OutcomeRow(label, [_span(getattr(o, key)) for o in outcomes]) for label, key in _SPANS]
    return [
        *moments,
        ended,
        *spans,
        OutcomeRow("Most at once", [number(o.most_at_once) for o in outcomes]),
        OutcomeRow("Too heavy to ever start", [number(o.never) for o in outcomes]),
    ]


def blocks(tried: Sequence[Tried]) -> list[OutcomeRow]:
    """The table rows that say why, and how long in total, the next job in line waited.

    The longest wait comes first."""
    found = [dict(each.outcome.blocked) for each in tried]
    codes = dict.fromkeys(code for each in tried for code, _ in each.outcome.blocked)
    return [
        OutcomeRow(WAITS[code], [_span(by.get(code, 0.0)) for by in found], code) for code in codes
    ]


def make_chart(tried: Sequence[Tried]) -> Chart | None:
    """The chart of started jobs over time; the second shape is dashed. None when no job ever starts."""
    if not any(each.outcome.starts for each in tried):
        return None
    longest = max(each.outcome.last or 0.0 for each in tried) or 1.0
    moments = [longest * point / (_POINTS - 1) for point in range(_POINTS)]
    # Add a little to each moment: rounding errors must not exclude the last start.
    lines = [
        [float(bisect_right(each.outcome.starts, at + 1e-6)) for at in moments] for each in tried
    ]
    scale = Scale.of([line[-1] for line in lines])
    scale = Scale(scale.top, _POINTS)
    first = tried[0].outcome
    says = f"start, the last {start_in_words(first.last)}" if first.starts else "start"
    others = [
        f"{each.name.lower()} {start_in_words(each.outcome.last) if each.outcome.starts else 'none'}, dashed"
        for each in tried[1:]
    ]
    return Chart(
        "starts",
        "Starts over time",
        number(first.started),
        "; ".join([says, *others]),
        f"How many have started, over time. {' '.join(_told(each) for each in tried)}",
        scale.grid(short),
        _ticks(longest),
        [],
        area=scale.area(lines[0]),
        trace=scale.trace(lines[0]),
        second=scale.trace(lines[1]) if lines[1:] else "",
    )


def _ticks(longest: float) -> list[tuple[float, str, datetime | str]]:
    """The labels below the plot, as (x, anchor, label): a few round times since the beginning."""
    every = next((step for step in _ROUND if longest / step <= _TICKS), longest)
    # `Scale` places its first and its last point this far from the edges.
    edge = WIDTH / _POINTS / 2
    places = [
        (at * every, edge + at * every / longest * (WIDTH - 2 * edge)) for at in range(_TICKS + 1)
    ]
    return [
        (
            round(x, 1),
            "start" if not after else "end" if x > WIDTH - 10 else "middle",
            _axis(after, every),
        )
        for after, x in places
        if x <= WIDTH
    ]


def _axis(after: float, every: float) -> str:
    """A round time, in the unit of the steps: `0`, `0.5 s`, `90 min`, `36 h`, `10 d`."""
    units = ((86_400, "d"), (3_600, "h"), (60, "min"))
    size, unit = next((pair for pair in units if every >= pair[0]), (1, "s"))
    return f"{after / size:g} {unit}" if after else "0"


def _told(tried: Tried) -> str:
    found = tried.outcome
    if found.first is None:
        return f"{tried.name}: none."
    at_once = bisect_right(found.starts, found.first + 1e-6)
    return (
        f"{tried.name}: {number(at_once)} {start_in_words(found.first)}, half {start_in_words(found.half)}, "
        f"all {number(found.started)} {start_in_words(found.last)}."
    )


def _span(duration: float | None) -> str:
    if duration is None:
        return "–"
    return "none" if duration < 0.001 else took(round(duration, 3))
